"""Answers in words: the answer in a reply without code, as prose or as JSON.

Such a reply ends a run as `FINAL` does: in the final turn, as the second reply without code in a row, or if the
model has the whole context in its prompt. Models write JSON alone, in a fenced block, or after a sentence.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rlm_langchain.answers.citations import CITED_KEYS, answer_of, has_quotes
from rlm_langchain.answers.schema import AnswerSchema, fences_in, last_fences

MAX_TRIED = 1_000
"""The most positions of a reply from which JSON is decoded."""
MAX_READ = 20
"""The most characters that failed attempts to decode JSON may read, as a multiple of the reply's length."""
_BEGIN = re.compile(r"[{\[]")


def answer_in_words(text: str, schema: AnswerSchema | None, *, cites: bool) -> Any:
    """Return the answer in a reply without code. None if it has none, or none that fits the schema.

    With `cites`, the answer may be `{"answer": ..., "quotes": [...]}`, as in `FINAL`.
    """
    if schema is None and not cites:
        return text.strip() or None
    whole_values = [*_whole_values(text)]
    embedded = [*_embedded_values(text)][::-1]  # a reply ends with its answer
    if cites and (cited := _first_with_quotes((*whole_values, *embedded), schema)) is not None:
        return cited
    words = text.strip() or None
    if schema is None:
        return words
    candidates = (*whole_values, *_fenced_values(text), words, *embedded)
    return next((value for value in candidates if schema.problem(value) is None), None)


def with_quotes(value: Any, schema: AnswerSchema | None) -> Any:
    """Return the argument of `FINAL` as `{"answer": ..., "quotes": [...]}` if it is that in another form: as text
    with JSON, with more keys, or in a list or a dict that holds nothing else. Anything else is unchanged."""
    if not isinstance(value, str):
        cited = _first_with_quotes([value], schema)
    else:
        cited = _first_with_quotes((*_whole_values(value), *[*_embedded_values(value)][::-1]), schema)
    return value if cited is None else cited


def _first_with_quotes(values: Iterable[Any], schema: AnswerSchema | None) -> Any:
    """Return the first value that has an answer that fits the schema, and quotes. None if there is none."""
    forms = (form for value in values for form in _forms_with_quotes(value))
    return next((form for form in forms if schema is None or schema.problem(answer_of(form)) is None), None)


def _forms_with_quotes(value: Any) -> Iterator[Any]:
    """Yield a value as an answer with quotes, if it is one. Further keys stay in the answer, so nothing is lost."""
    if isinstance(value, dict | list) and len(value) == 1:
        [value] = value.values() if isinstance(value, dict) else value
    if has_quotes(value):
        yield value
    elif isinstance(value, dict) and value.keys() > CITED_KEYS:
        yield {"answer": {key: item for key, item in value.items() if key != "quotes"}, "quotes": value["quotes"]}


def problem_in_words(text: str, schema: AnswerSchema) -> str | None:
    """Return why the likeliest answer in a reply without code does not fit. None if one fits, or there is none."""
    if answer_in_words(text, schema, cites=False) is not None:
        return None
    embedded = [*_embedded_values(text)][::-1]
    likeliest = [*_whole_values(text), *_fenced_values(text), *embedded, text.strip()][0]
    return schema.problem(likeliest) if likeliest != "" else None


def is_json_value(code: str) -> bool:
    """Return whether a block of code is no program, but one list or dict, as JSON or as a Python literal."""
    return any(isinstance(value, dict | list) for value in _values(code))


def _whole_values(text: str) -> Iterator[Any]:
    """Yield the value of a reply that is nothing but JSON, or nothing but one fenced block of it."""
    yield from _values(text)
    stripped = text.strip()
    if any((fence.start, fence.end) == (0, len(stripped)) for fence in fences_in(stripped)):
        yield from _fenced_values(stripped)


def _fenced_values(text: str) -> Iterator[Any]:
    """Yield the values in the fenced blocks of a reply, the last one first."""
    for fence in last_fences(text):
        yield from _values(fence.inside)


def _values(text: str) -> Iterator[Any]:
    """Yield the value of a text that is JSON, or a list or dict as a Python literal. Yield nothing for others."""
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
    """Yield the outermost lists and dicts in a reply, in order."""
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
"""Accepts unescaped newlines in strings, which models write, and refuses NaN."""
