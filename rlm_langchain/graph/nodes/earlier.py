"""What was asked and answered before on a thread: shown in short to the model, and in full in the REPL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from typing_extensions import TypedDict

from rlm_langchain.context.long_text import load_text
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.context.sanitize import shown
from rlm_langchain.context.sources.json_values import why_not_json
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError
from rlm_langchain.prompts.render import render
from rlm_langchain.trajectory.journal import Journal

SHOWN = 4
"""Exchanges that the prompt shows: the latest ones."""
ANSWER_CHARS, LAST_ANSWER_CHARS, QUESTION_CHARS = 500, 4_000, 1_000
"""Characters of an answer, of the last answer, and of a question that the prompt shows."""


class Exchange(TypedDict):
    """A question and what became of it, as code in the REPL sees them."""

    question: str
    answer: Any
    status: str
    """That of the answer, or `given up` for a question that another one came before."""


def exchanges(journal: Journal, store: ContextStore) -> list[Exchange]:
    """Return what was asked before on the thread, the latest last. Raises `JournalError`: a text is missing."""
    return [
        Exchange(
            question=load_text(store, question.get("query_ref", question["query"])),
            answer=_plain(answer["answer"]) if answer else None,
            status=answer["status"] if answer else "given up",
        )
        for question, answer in journal.questions
    ]


def describe_earlier(profile: str, name: str, before: Sequence[Exchange]) -> str:
    """Return what the model is told of them."""
    first = max(0, len(before) - SHOWN)
    told = [
        _describe(profile, f"{name}[{i}]", one, i == len(before) - 1) for i, one in enumerate(before) if i >= first
    ]
    return render(
        profile, "earlier", variable=name, count=len(before), shown=len(told), exchanges="\n\n".join(told)
    )


def _describe(profile: str, place: str, one: Exchange, is_last: bool) -> str:
    question = shown(one["question"], QUESTION_CHARS)
    if one["answer"] is None:
        return render(profile, "earlier_without", place=place, question=question, status=one["status"])
    text = to_prompt_text(one["answer"])
    answer = shown(text, LAST_ANSWER_CHARS if is_last else ANSWER_CHARS)
    kind, chars = type(one["answer"]).__name__, f"{len(text):,}"
    return render(
        profile,
        "earlier_answer",
        place=place,
        question=question,
        status=one["status"],
        kind=kind,
        chars=chars,
        answer=answer,
    )


def _plain(answer: Any) -> Any:
    """Return an answer as JSON can hold it: one with a number that JSON has no word for, as text."""
    try:
        return answer if why_not_json(answer) is None else json.dumps(answer)
    except InputError:  # too deep
        return json.dumps(answer)
