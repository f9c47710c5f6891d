"""The journal as a root model reads it.

Rendering is a function of the records, each on its own: so the prompt of a turn is, byte for byte, a prefix of
the next one, and providers can cache it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from rlm_langchain.context.sanitize import shown
from rlm_langchain.context.store import ContextStore
from rlm_langchain.prompts.render import few_shot_messages, render
from rlm_langchain.records import QuestionRecord, Record

HISTORY_KEPT = 2_000_000
"""Characters of history that the REPL is given: the latest."""


def conversation(
    records: Sequence[Record], profile: str, whole: Callable[[QuestionRecord], str] | None = None
) -> list[BaseMessage]:
    """The messages for the next turn of a run. A summary takes the place of all that came before it.

    `whole` gives the context of a question that comes with it: the records hold a reference.
    """
    begun = _opening(profile, records)
    messages = [*begun]
    heard: list[str] = []
    question = ""
    for record in records:
        if record["type"] == "question":
            question = record["text"]
        if record["type"] == "turn" and record.get("summary"):
            messages, heard = [*begun], [question, render(profile, "resumed", summary=record["text"])]
        elif record["type"] == "turn":
            messages.append(HumanMessage("\n\n".join(heard)))
            messages.append(AIMessage(record["text"] or "(an empty reply)"))
            heard = []
        elif record["type"] == "question":
            heard.append(record["text"])
            heard += [whole(record)] if whole and record.get("whole") else []
        elif record["type"] == "output":
            heard.append(record["text"])
        elif record["type"] == "note" and record["to"] == "model":
            heard.append(record["text"])
    if heard:
        messages.append(HumanMessage("\n\n".join(heard)))
    return messages


def _opening(profile: str, records: Sequence[Record]) -> list[BaseMessage]:
    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    first = records[0] if records else None
    examples = first.get("examples") if first is not None and first["type"] == "question" else None
    return [kinds[role](text) for role, text in few_shot_messages(profile, examples)]


def transcript(records: Sequence[Record]) -> str:
    """Everything that a root model wrote and was shown, in full: what the REPL holds as `history`.

    Of a very long one, the end.
    """
    parts = []
    for record in records:
        if record["type"] == "turn":
            parts.append(f"## Turn {record['turn']}\n\n{record['text']}")
        elif record["type"] in ("question", "output") or (record["type"] == "note" and record["to"] == "model"):
            parts.append(record["text"])
    return "\n\n".join(parts)[-HISTORY_KEPT:]


def whole_text(store: ContextStore, question: QuestionRecord, profile: str) -> str:
    """The context of a question, for a prompt that holds it whole. Raises `JournalError` when it was changed."""
    context = question.get("context")
    assert context is not None  # noqa: S101 - such a question has one
    text = _as_read(store.load(context))
    return render(profile, "whole", text=shown(text, len(text)))


def _as_read(value: str | list[Any] | dict[str, Any]) -> str:
    """Texts under their names; everything else as JSON."""
    if isinstance(value, str):
        return value
    items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    if all(isinstance(item, str) for _, item in items):
        return "\n\n".join(f"### {name}\n{item}" for name, item in items)
    return json.dumps(value, ensure_ascii=False, indent=1)
