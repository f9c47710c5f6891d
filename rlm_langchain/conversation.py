"""The journal as a root model reads it.

Rendering is a function of the records, each on its own: so the prompt of a turn is, byte for byte, a prefix of
the next one, and providers can cache it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from rlm_langchain.context.safe import quotable
from rlm_langchain.prompts import opening, render
from rlm_langchain.types import QuestionRecord, Record

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
    return [kinds[role](text) for role, text in opening(profile, examples)]


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


def shown(text: str, most: int) -> str:
    """Printed text as a model may see it: cut in the middle, made visible, without power over
    prompts, fenced so that it stays a quotation."""
    cut = quotable(clip(text.rstrip("\n"), most))
    longest = max((len(run) for run in re.findall(r"`+", cut)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{cut}\n{fence}"


def fenced(text: str) -> str:
    """What `shown` has fenced in this text."""
    found = re.search(r"^(`{3,})\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    return found[2] if found else text


def clip(text: str, most: int) -> str:
    """Head and tail of a text that is longer than `most` characters, with the true length said between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} of {len(text):,} characters left out ...]\n{text[-half:]}"
