"""Formats errors for the root model: a traceback of its own lines, and a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlm_langchain.context.sanitize import clip
from rlm_langchain.sandboxes.reserved_names import RESERVED

if TYPE_CHECKING:
    from pydantic_monty import Frame, MontyError

    from rlm_langchain.sandboxes.monty.prepare import Source

MAX_CHARS = 4_000
"""Longest text of an exception, in characters. A longer one is clipped."""
MAX_FRAMES = 12
_UNASKED = "a model cannot be asked here"
NOTHING_RAN = "No code of this cell was run."

_FUNCTIONS = RESERVED - {"context", "budget"}
"""If the line that failed to import a module names one of these, it was looked for in that module."""
_NO_IMPORT = "llm_query, rlm_query, FINAL and the other functions of this REPL are there without an import"
HINTS = (
    (r"No module named '(rlm|repl|tools|functions)|from 'rlm", _NO_IMPORT),
    (
        r"can't be awaited|a coroutine or an awaitable is required|support async |'asyncio' has no attribute",
        "the functions of this REPL are called without await; llm_query_batched asks many at once",
    ),
    (r"support yield", "generator functions are not there: append to a list and return it"),
    (
        r"support class inheritance",
        "classes here cannot inherit: raise ValueError or RuntimeError themselves, and share code by functions",
    ),
    (
        r"support method decorators",
        "write plain methods, called with (); @staticmethod and @classmethod work alone",
    ),
    (r"support the 'del' statement", "del works alone on its line, for names and items: use d.pop(key)"),
    (r"exception groups", "use plain try and except"),
    (r"[Ww]ildcard imports", "import the names that you need"),
    (r"No module named '(asyncio|threading|multiprocessing|queue)", "to ask many at once, use llm_query_batched"),
    (r"No module named 'ast'", "for ast.literal_eval(text), use json.loads(text) or eval(text)"),
    (r"No module named 'calendar'", "use date and timedelta of datetime"),
    (r"No module named 'contextlib'", "in place of suppress, use try and except"),
    (r"No module named 'difflib'", "compare sets of lines or of words, or ask a model with llm_query"),
    (r"No module named 'fnmatch'", "use re, or startswith and endswith of str"),
    (r"No module named 'html'", "use str.replace for entities, and re.sub for tags"),
    (r"No module named 'pprint'", "use print(json.dumps(value, indent=1))"),
    (
        r"No module named 'traceback'",
        "print(type(error).__name__, error)",
    ),
    (r"No module named 'types'", "in place of SimpleNamespace, use a dict or a dataclass"),
    (r"No module named 'urllib", "use str.partition, str.split and re for addresses; nothing can be fetched"),
    (r"No module named 'warnings'", "print the warning"),
    (
        r"No module named",
        "there are no packages here; of the standard library re, json, csv, math, collections, itertools, "
        "functools, datetime, random, statistics, heapq, textwrap, string, operator and a few more",
    ),
    (r"module 'sys' has no attribute 'exit'", "a cell ends at its last line, and FINAL(value) ends the run"),
    (r"module 'sys' has no attribute", "most of sys is not there: use print to write"),
    (r"'TextIOWrapper' object has no attribute|_io\.TextIOWrapper", "use print(text, end='')"),
    (r"from 'pathlib'", "there are no files here: use Path, or str methods on the name"),
    (
        r"a model cannot be asked here",
        "not in a key of list.sort, a default factory or a __repr__: ask in a loop, in a "
        "comprehension, or with llm_query_batched",
    ),
    (r"exceptions can only be called with", "an exception takes one text here: raise ValueError('...')"),
    (
        r"Permission denied|not supported in this environment|invalid return type",
        "there are no files and no environment here; the text is in `context`",
    ),
    (r"is not an iterator", "use next(iter(...))"),
    (r"name 'input' is not defined", "nobody can be asked for input here"),
    (r"has no len\(\)", "len() knows no __len__ of your own classes: give them a method"),
    (r"'super' is not defined", "classes here cannot inherit"),
)
"""A pattern in an error, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The error that ended a cell."""

    death: Literal["time", "memory", "crash"] | None
    """Why the session cannot continue. None for an ordinary error."""
    text: str


def interpret_error(error: MontyError, sources: Mapping[int, Source], failed_calls: frozenset[str]) -> Fault:
    """Interpret an error of Monty. `failed_calls` are the errors that the cell got as `LLMError`."""
    from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

    match error:
        case MontySyntaxError():
            return Fault(
                None,
                f"{_lines(error.traceback(), sources)}{clip(error.display('type-msg'), MAX_CHARS)}\n{NOTHING_RAN}",
            )
        case MontyRuntimeError():
            return _interpret_raised(
                clip(error.display("type-msg"), MAX_CHARS), error.traceback(), sources, failed_calls
            )
        case MontyCrashedError() if error.timed_out:
            return Fault("time", "it did not stop by itself")
    return Fault("crash", "the worker is gone")


def _interpret_raised(
    full: str, frames: list[Frame], sources: Mapping[int, Source], failed_calls: frozenset[str]
) -> Fault:
    if re.match(r"TimeoutError: (feed|turn) time limit exceeded", full):
        return Fault("time", full)
    if re.match(r"MemoryError: (memory limit exceeded|the worker exceeded its memory limit)", full):
        return Fault("memory", full)
    if not frames and full.startswith("RuntimeError: request frame of "):  # replies that its pipe does not take
        return Fault("memory", full)
    text = _in_python_terms(full, failed_calls)
    lines = _lines(frames, sources)
    hints = [hint for pattern, hint in HINTS if re.search(pattern, text)]
    if "No module named" in text and any(name in lines for name in _FUNCTIONS):
        hints = [_NO_IMPORT]
    hint = f"\nHint: {hints[0]}." if hints else ""
    parse = "\n" + NOTHING_RAN if "The parser does not support" in text and len(frames) == 1 else ""
    return Fault(None, f"{lines}{text}{hint}{parse}")


def _in_python_terms(text: str, failed_calls: frozenset[str]) -> str:
    """Replace Monty's names by those that a Python programmer knows."""
    kind, _, message = text.partition(": ")
    if kind == "RuntimeError" and message in failed_calls:
        return f"LLMError: {message}"
    if kind == "KeyError" and re.match(r"[^\W\d]", message) and message not in {"None", "True", "False"}:
        return f"KeyError: {message!r}"
    text = re.sub(r"external function '\w+' cannot suspend in this synchronous context", _UNASKED, text)
    text = text.replace("RuntimeError: Internal error in monty: exceptions", "TypeError: exceptions", 1)
    return text.replace("The monty syntax parser does not yet", "The parser does not")


def _lines(frames: list[Frame], sources: Mapping[int, Source]) -> str:
    """Return the frames that are in cells, as Python shows them. A repeated frame is shown once."""
    shown: list[str] = []
    repeated = 0
    for text in filter(None, (_line(frame, sources) for frame in frames)):
        if shown and shown[-1] == text:
            repeated += 1
        else:
            shown += [*_repeats(repeated), text]
            repeated = 0
    shown += _repeats(repeated)
    return "Traceback (most recent call last):\n" + "".join(shown[-MAX_FRAMES:]) if shown else ""


def _repeats(times: int) -> list[str]:
    return [f"  [the line above {times} more times]\n"] if times else []


def _line(frame: Frame, sources: Mapping[int, Source]) -> str | None:
    number = re.fullmatch(r"<python-input-(\d+)>", frame.filename)
    source = sources.get(int(number[1])) if number else None
    if source is None:
        return None
    line = source.line(frame.line)
    file = f"<cell {source.cell}>" if source.cell else "<prelude>"
    return f'  File "{file}", line {line}, in {frame.function_name or "<module>"}\n    {source.text(line)}\n'
