"""LangChain messages: a list of `{"role": ..., "content": ...}`, with `tool_calls` if there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlm_langchain.context import describe
from rlm_langchain.context.reference import StoreWriter, json_reference
from rlm_langchain.context.sources.documents import as_sequence, is_plain
from rlm_langchain.context.sources.json_values import store_json
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_ROLES = {"human": "user", "ai": "assistant"}
_NO_TEXT = frozenset(("image", "image_url", "audio", "input_audio", "video", "file", "media", "document"))
"""Types of parts of a message that hold no text."""


def refuse_pictures(messages: Sequence[BaseMessage]) -> None:
    """Raise `InputError` for a message of a question that holds more than text: an answer that has overlooked a
    picture would look like any other."""
    for message in messages:
        for kind in _without_text(message):
            raise InputError(
                f"a {message.type} message holds a part of type {kind!r}, and an RLM reads text: "
                "describe it in words, or ask a model that can see it"
            )


def _without_text(message: BaseMessage) -> list[str]:
    """Return the types of the parts of a message that hold no text."""
    blocks = message.content if isinstance(message.content, list) else []
    kinds = [str(block.get("type")) for block in blocks if isinstance(block, dict)]
    return [kind for kind in kinds if kind in _NO_TEXT]


def accepts(value: Any) -> bool:
    """Accept a message, or a list that contains nothing else."""
    items = as_sequence(value)
    if not items or is_plain(items[0]):
        return False
    from langchain_core.messages import BaseMessage

    return all(isinstance(item, BaseMessage) for item in items)


def to_reference(value: BaseMessage | Sequence[BaseMessage], store_writer: StoreWriter) -> ContextRef:
    """Return a reference to the text of each message. Images and other parts without text are left out, and the
    description says so."""
    left_out = Counter(kind for message in as_sequence(value) for kind in _without_text(message))
    items = [_item(message) for message in as_sequence(value)]
    blob, note = store_json(items, store_writer)
    roles = Counter(item["role"] for item in items)
    line = describe.join_parts(
        f"list of {describe.count(len(items), 'message')}, dicts with 'role' and 'content'",
        f"{describe.tokens(blob.size)} as JSON",
        describe.list_counts(roles),
        f"parts that are no text are left out: {describe.list_counts(left_out)}" if left_out else "",
        note,
    )
    return json_reference(blob, "list", len(items), line)


def _item(message: BaseMessage) -> dict[str, Any]:
    role = getattr(message, "role", None) or _ROLES.get(message.type, message.type)
    item: dict[str, Any] = {"role": role, "content": str(message.text)}
    if calls := getattr(message, "tool_calls", None):
        item["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in calls]
    return item
