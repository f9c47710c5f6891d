"""The earlier questions and answers of a thread: clipped in the prompt, and complete in the REPL."""

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

MAX_EXCHANGES = 4
"""Most exchanges that the prompt shows: the last ones."""
ANSWER_CHARS, LAST_ANSWER_CHARS, QUESTION_CHARS = 500, 4_000, 1_000
"""Most characters of an answer, of the last answer, and of a question in the prompt."""


class Exchange(TypedDict):
    """A question and its answer, as code in the REPL sees them."""

    question: str
    answer: Any
    status: str
    """The status of the answer, or `given up` if a new question came first."""


def exchanges(journal: Journal, store: ContextStore) -> list[Exchange]:
    """Return the earlier questions of the thread, the oldest first. Raises `JournalError` if a text is missing."""
    return [
        Exchange(
            question=load_text(store, question.get("query_ref", question["query"])),
            answer=_as_json_value(answer["answer"]) if answer else None,
            status=answer["status"] if answer else "given up",
        )
        for question, answer in journal.questions
    ]


def describe_earlier(profile: str, name: str, before: Sequence[Exchange]) -> str:
    """Return the part of the prompt that describes the earlier questions."""
    first = max(0, len(before) - MAX_EXCHANGES)
    latest = [
        _describe(profile, f"{name}[{i}]", one, i == len(before) - 1) for i, one in enumerate(before) if i >= first
    ]
    return render(
        profile, "earlier", variable=name, count=len(before), shown=len(latest), exchanges="\n\n".join(latest)
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


def _as_json_value(answer: Any) -> Any:
    """Return an answer as a JSON value. One with NaN or infinity, which JSON lacks, is returned as text."""
    try:
        return answer if why_not_json(answer) is None else json.dumps(answer)
    except InputError:  # too deep
        return json.dumps(answer)
