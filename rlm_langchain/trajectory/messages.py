"""Renders the journal as the messages that a root model reads.

Each record is rendered on its own, so the prompt of a turn is, byte for byte, a prefix of the next prompt, and
providers can cache it. The words are those that were recorded: `graph/nodes/generate.py` writes what a turn is told
about the run, such as a warning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from rlm_langchain.context.sanitize import fence
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import JournalError
from rlm_langchain.prompts.render import few_shot_messages, render
from rlm_langchain.records import QuestionRecord, Record, WaveRecord

HISTORY_CHARS = 2_000_000
"""Characters of `history` in the REPL: the latest ones."""


def conversation(records: Sequence[Record], profile: str, store: ContextStore | None = None) -> list[BaseMessage]:
    """Return the messages for the next turn of a run. A summary replaces everything before it.

    `store` holds what the records only refer to: long questions, and contexts that are part of a prompt. Without
    it, they are shown as shortened in the records. Raises `JournalError` if one is missing in the store.
    """
    few_shot = _few_shot_messages(profile, records)
    messages = [*few_shot]
    pending_texts: list[str] = []
    question = ""
    for record in records:
        if record["type"] == "question":
            question = record["text"] if store is None else prompt_of(store, record)
        if record["type"] == "turn" and record.get("summary"):
            messages, pending_texts = [*few_shot], [question, render(profile, "resumed", summary=record["text"])]
        elif record["type"] == "turn":
            messages.append(HumanMessage("\n\n".join(pending_texts)))
            messages.append(AIMessage(record["text"] or "(an empty reply)"))
            pending_texts = []
        elif record["type"] == "question":
            pending_texts.append(question)
            pending_texts += [whole_text(store, record, profile)] if store and record.get("whole") else []
        elif record["type"] == "output":
            pending_texts.append(record["text"])
        elif record["type"] == "note" and record["to"] == "model":
            pending_texts.append(record["text"])
    if pending_texts:
        messages.append(HumanMessage("\n\n".join(pending_texts)))
    return messages


def _few_shot_messages(profile: str, records: Sequence[Record]) -> list[BaseMessage]:
    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    first = records[0] if records else None
    examples = first.get("examples") if first is not None and first["type"] == "question" else None
    return [kinds[role](text) for role, text in few_shot_messages(profile, examples)]


def transcript(records: Sequence[Record]) -> str:
    """Return everything that a root model wrote and read: the `history` of the REPL.

    A very long transcript is cut to its end.
    """
    parts = []
    for record in records:
        if record["type"] == "turn":
            parts.append(f"## Turn {record['turn']}\n\n{record['text']}")
        elif record["type"] in ("question", "output") or (record["type"] == "note" and record["to"] == "model"):
            parts.append(record["text"])
    return "\n\n".join(parts)[-HISTORY_CHARS:]


def prompt_of(store: ContextStore, question: QuestionRecord) -> str:
    """Return the prompt of a question, word for word. Raises `JournalError` if a long one is missing or changed."""
    return str(store.load(question["text_ref"])) if "text_ref" in question else question["text"]


def stored_prompts(store: ContextStore | None, wave: WaveRecord) -> list[str] | None:
    """Return the whole prompts of a batch, or None if they were not stored, or are not in the store any more."""
    ref = wave.get("prompts_ref")
    if ref is None or store is None:
        return None
    try:
        return [str(prompt) for prompt in store.load(ref)]
    except JournalError:  # garbage collection has removed them
        return None


def whole_text(store: ContextStore, question: QuestionRecord, profile: str) -> str:
    """Return the context of a question as prompt text. Raises `JournalError` if the context was changed."""
    context = question.get("context")
    assert context is not None  # noqa: S101 - a question with `whole` has a context
    text = _context_as_text(store.load(context))
    return render(profile, "whole", text=fence(text, len(text)))


def _context_as_text(value: str | list[Any] | dict[str, Any]) -> str:
    """Return a context as text: named texts under headings, everything else as JSON."""
    if isinstance(value, str):
        return value
    items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    if all(isinstance(item, str) for _, item in items):
        return "\n\n".join(f"### {name}\n{item}" for name, item in items)
    return json.dumps(value, ensure_ascii=False, indent=1)
