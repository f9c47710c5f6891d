"""LangChain messages: a list of `{"role": ..., "content": ...}`, with `tool_calls` if there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlm_langchain.context import describe
from rlm_langchain.context.reference import StoreWriter, json_reference
from rlm_langchain.context.sources.documents import as_sequence, is_plain
from rlm_langchain.context.sources.json_values import store_json
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_ROLES = {"human": "user", "ai": "assistant"}


def accepts(value: Any) -> bool:
    """Accept a message, or a list that contains nothing else."""
    items = as_sequence(value)
    if not items or is_plain(items[0]):
        return False
    from langchain_core.messages import BaseMessage

    return all(isinstance(item, BaseMessage) for item in items)


def to_reference(value: BaseMessage | Sequence[BaseMessage], store_writer: StoreWriter) -> ContextRef:
    """Return a reference to the text of each message. Images and other parts without text are left out."""
    items = [_item(message) for message in as_sequence(value)]
    blob, note = store_json(items, store_writer)
    roles = Counter(item["role"] for item in items)
    line = describe.join_parts(
        f"list of {describe.count(len(items), 'message')}, dicts with 'role' and 'content'",
        f"{describe.tokens(blob.size)} as JSON",
        describe.list_counts(roles),
        note,
    )
    return json_reference(blob, "list", len(items), line)


def _item(message: BaseMessage) -> dict[str, Any]:
    role = getattr(message, "role", None) or _ROLES.get(message.type, message.type)
    item: dict[str, Any] = {"role": role, "content": str(message.text)}
    if calls := getattr(message, "tool_calls", None):
        item["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in calls]
    return item
