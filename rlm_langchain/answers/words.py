"""Answers in words: what a reply without code says for an answer, be it prose or JSON as it was asked for.

Such a reply ends a run as `FINAL` does: the last words at a limit, a message without code, the answer to a context
that was read whole. Models write the JSON alone, in a fence, or below a sentence.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from rlm_langchain.answers.citations import answer_of, has_quotes
from rlm_langchain.answers.schema import AnswerSchema, fences_in, last_fences

MAX_TRIED = 1_000
"""Places in a reply at which JSON may begin that are tried."""
MAX_READ = 20
"""How often a reply is read in all for them: many may begin what only its end shows to be no JSON."""
_BEGIN = re.compile(r"[{\[]")


def answer_in_words(text: str, schema: AnswerSchema | None, *, cites: bool) -> Any:
    """Return what a reply without code says for an answer; None when it is none, or does not fit the schema.

    With `cites` that may be `{"answer": ..., "quotes": [...]}`, as `FINAL` takes it.
    """
    if schema is None and not cites:
        return text.strip() or None
    whole = [*_whole_values(text)]
    embedded = [*_embedded_values(text)][::-1]  # a reply ends with its answer
    if cites:
        for value in (*whole, *embedded):
            if has_quotes(value) and (schema is None or schema.problem(answer_of(value)) is None):
                return value
    words = text.strip() or None
    if schema is None:
        return words
    candidates = (*whole, *_fenced_values(text), words, *embedded)
    return next((value for value in candidates if schema.problem(value) is None), None)


def problem_in_words(text: str, schema: AnswerSchema) -> str | None:
    """Return what is wrong with the surest answer in a reply without code; None when there is none, or one fits."""
    if answer_in_words(text, schema, cites=False) is not None:
        return None
    embedded = [*_embedded_values(text)][::-1]
    surest = [*_whole_values(text), *_fenced_values(text), *embedded, text.strip()][0]
    return schema.problem(surest) if surest != "" else None


def is_json_value(code: str) -> bool:
    """Return whether this is one list or dict and no program, as JSON or as Python writes it."""
    return any(isinstance(value, dict | list) for value in _values(code))


def _whole_values(text: str) -> Iterator[Any]:
    """Yield the value that a reply is, if it is nothing else, be it in a fence."""
    yield from _values(text)
    stripped = text.strip()
    if any((fence.start, fence.end) == (0, len(stripped)) for fence in fences_in(stripped)):
        yield from _fenced_values(stripped)


def _fenced_values(text: str) -> Iterator[Any]:
    """Yield what stands in the fences of a reply, the last one first."""
    for fence in last_fences(text):
        yield from _values(fence.inside)


def _values(text: str) -> Iterator[Any]:
    try:
        yield _DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        try:
            value = json.loads(json.dumps(ast.literal_eval(text.strip()), allow_nan=False))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return
        if isinstance(value, dict | list):
            yield value


def _embedded_values(text: str) -> Iterator[Any]:
    """Yield the lists and dicts in a reply, in order, and not those inside of others."""
    at, left = 0, MAX_READ * len(text)
    for _ in range(MAX_TRIED):
        if left < 0 or (begin := _BEGIN.search(text, at)) is None:
            return
        try:
            value, at = _DECODER.raw_decode(text, begin.start())
        except (ValueError, RecursionError) as error:
            at = begin.end()
            left -= max(error.pos - at, 0) if isinstance(error, json.JSONDecodeError) else 0
        else:
            yield value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)
"""Takes newlines in texts, which models do not escape, and no NaN."""
