"""Detects a run without progress: a root model that only repeats itself is warned, and then the run is ended.

Otherwise only the limit on turns would end such a run, and each turn costs money. A turn is a repeat if each of its
cells has run before: the same program, with the same output and the same replies to its calls. A reply without code
that follows another one is a repeat, too. The model may repeat one cell, or several in turn.

Differences without a meaning are ignored: addresses, white space, the times that a clock shows, and in errors also
numbers and the names that were not found. Two programs are similar if they differ only in the names that they bind,
or in numbers that do not choose what to look at. More similar turns than repeats are allowed, because each may be
an attempt. Any other output or call is progress: a run may page through its context.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from rlm_langchain.context.sanitize import fenced
from rlm_langchain.graph.nodes.parse_reply import program
from rlm_langchain.records import (
    CallRecord,
    CellRecord,
    OutputRecord,
    TurnRecord,
)
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.journal import Journal

MAX_REPEATS = 3
"""Repeats in a row that end a run. The first one brings a warning."""
MAX_SILENT_REPEATS = 7
"""Repeats in a row that end a run, if a cell may make progress that its output does not show, as `i += 1` does, or
calls a tool, whose reply may change."""
SAME_ERRORS_TO_WARN = 3
"""Turns in a row with different code but the same error and nothing else, after which the model is warned. It is a
weaker sign than a repeat, because each of them may be another attempt."""
MAX_SAME_ERRORS = 8
"""Turns in a row with the same error that end a run."""
SIMILAR_TURNS_TO_WARN = 5
"""Turns in a row of similar programs with the same output and replies, after which the model is warned."""
MAX_SIMILAR_TURNS = 12
"""Similar turns in a row that end a run."""

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")
_CLOCK = re.compile(r"\b(?:time|datetime|perf_counter|monotonic|now|today)\b")
"""A name in a program that may read a clock."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+)?|\d\d?:\d\d:\d\d(?:\.\d+)?|\d+\.\d+(?:e-?\d+)?|\b1\d{9,12}\b")
_NUMBER = re.compile(r"[-+]?\d[\d_.,]*")
_NOT_FOUND = re.compile(r"(?:(?<=name ')|(?<=named ')|(?<=variable ')|(?<=attribute '))[^'\n]+(?=')")
"""The name in an error that was not found."""
_CELL = re.compile(r"<cell \d+>")
_FRAMES = re.compile(
    r'^(?:Traceback \(most recent call last\):|[ \t]*File "<cell.*)\n(?:[ \t]+.*\n)*', re.MULTILINE
)
"""The frames of a traceback: cells, line numbers, and the text of the lines."""
_UNREVEALING = {"FINAL", "float", "int", "len", "print", "repr", "round", "str"} | {
    "llm_query",
    "llm_query_batched",
    "recursive_lm",
    "rlm_query",
    "rlm_query_batched",
}
"""Functions that reveal nothing of the context except by what they print, or by their replies."""
_COMMENT = re.compile(r"#[^\n]*")
_MUTATING = re.compile(
    "add|append|appendleft|clear|discard|extend|extendleft|insert|pop|popitem|popleft|read|readline|remove|reverse"
    "|rotate|send|setdefault|shuffle|sort|update|write"
)
"""Methods that may change their object."""


@dataclass(slots=True)
class Progress:
    """The repeats, errors and similar turns at the end of a run."""

    repeats: int = 0
    """Number of the last turns that only repeat earlier ones."""
    max_repeats: int = MAX_REPEATS
    """Repeats that end the run."""
    same_errors: int = 0
    """Number of the last turns that ended in the same error and brought nothing else."""
    similar_turns: int = 0
    """Number of the last turns whose programs are similar to earlier ones, with the same output and replies."""
    _error: Hashable = None
    _similar_seen: set[Hashable] = field(default_factory=set)
    _seen: set[Hashable] = field(default_factory=set)
    _streak: set[Hashable] = field(default_factory=set)
    """The signatures of the repeats in a row."""
    _was_prose: bool = False
    """Whether the last turn had no code."""
    _functions: set[str] = field(default_factory=set)
    """Names of functions that earlier cells have defined."""

    @classmethod
    def of(cls, journal: Journal) -> Progress:
        """Return the progress of a run since its last question."""
        progress, calls = cls(), _calls_by_cell(journal)
        for turn in journal.turns_since_question:
            cells = [
                _RanCell(cell, output, calls.get(cell["cell"], []))
                for cell in journal.cells
                if cell["turn"] == turn["turn"] and (output := journal.outputs.get(cell["cell"])) is not None
            ]
            progress._add(turn, cells)
        return progress

    @property
    def is_over(self) -> bool:
        """Return whether the run is to be ended."""
        return (
            self.repeats >= self.max_repeats
            or self.same_errors >= MAX_SAME_ERRORS
            or self.similar_turns >= MAX_SIMILAR_TURNS
        )

    @property
    def is_warning_due(self) -> bool:
        """Return whether the model is to be warned."""
        return bool(self.repeats) or self.repeats_error or self.similar_turns >= SIMILAR_TURNS_TO_WARN

    @property
    def repeats_error(self) -> bool:
        """Return whether the model is to be warned because different code ended in the same error."""
        return not self.repeats and self.same_errors >= SAME_ERRORS_TO_WARN

    @property
    def turns_left(self) -> int:
        """Return how many more turns like the last ones the run may take."""
        return min(
            self.max_repeats - self.repeats,
            MAX_SAME_ERRORS - self.same_errors,
            MAX_SIMILAR_TURNS - self.similar_turns,
        )

    def _add(self, turn: TurnRecord, cells: list[_RanCell]) -> None:
        if turn.get("summary"):
            # The model no longer sees its earlier turns, so it may look again. But a summary does not end a loop.
            self._seen = set(self._streak)
            return
        if skeletons := {cell.skeleton for cell in cells}:
            self.similar_turns = self.similar_turns + 1 if skeletons <= self._similar_seen else 0
            self._similar_seen |= skeletons
        signatures = {cell.signature for cell in cells} or {turn["text"].strip()}
        is_prose = not turn["cells"]
        if (is_prose and self._was_prose) or signatures <= self._seen:
            self.repeats += 1
            self._streak |= signatures
            if any(cell.may_progress_silently(self._functions) for cell in cells):
                self.max_repeats = MAX_SILENT_REPEATS
        else:
            self.repeats, self.max_repeats, self._streak = 0, MAX_REPEATS, set()
        self._seen |= signatures
        self._was_prose = is_prose
        error = cells[-1].error if cells else None
        self.same_errors = 0 if error is None else self.same_errors + 1 if error == self._error else 1
        self._error = error
        self._functions.update(name for cell in cells for name in cell.functions)


@dataclass(frozen=True, slots=True)
class _RanCell:
    """A cell that has ended, with its output and calls."""

    cell: CellRecord
    output: OutputRecord
    calls: list[CallRecord]
    """Its calls, without those that are free, such as `budget()`."""

    @property
    def signature(self) -> Hashable:
        """Return a key that is equal for cells with the same program, output and replies."""
        return _normalised(self.cell["code"]), self._printed, self._replies

    @property
    def skeleton(self) -> Hashable:
        """Return a key that is equal for cells with similar programs, and the same output and replies."""
        return _skeleton(self.cell["code"]), self._printed, self._replies

    @property
    def error(self) -> Hashable:
        """Return a key of the error, with the output before it and the replies to calls. None without an error."""
        if not self.output["error"]:
            return None
        shown = fenced(self.output["text"])
        start = found.start() if (found := _FRAMES.search(shown)) else 0
        raised = _NUMBER.sub("0", _NOT_FOUND.sub("", self._comparable(shown[start:])))
        replies = {
            reply for call, reply in zip(self.calls, self._replies_in_order, strict=True) if call["error"] is None
        }
        return self._comparable(shown[:start]), raised, tuple(sorted(replies))

    @property
    def _replies(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(set(self._replies_in_order)))

    @property
    def _replies_in_order(self) -> list[tuple[str, str]]:
        return [
            (call["prompt_sha256"], ref["sha256"] if (ref := call.get("value_ref")) else repr(call["value"]))
            for call in self.calls
        ]

    def may_progress_silently(self, functions: set[str]) -> bool:
        """Return whether running the cell again may make progress though all looks the same. Not if it failed.

        `functions` are the names of functions that earlier cells have defined.
        """
        if self.output["error"]:
            return False
        return any(kind_of(call["kind"]).is_counted for call in self.calls) or _changes_its_start(
            self.cell["code"], functions
        )

    @property
    def functions(self) -> Iterator[str]:
        """Yield the names of the functions that the cell defines."""
        tree = program(self.cell["code"])
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))

    @property
    def _printed(self) -> str:
        return self._comparable(fenced(self.output["text"]))

    def _comparable(self, shown: str) -> str:
        """Return a part of the output without what differs each time: addresses, times, white space."""
        text = _CELL.sub("<cell>", _ADDRESS.sub("0x", shown))
        text = _FRAMES.sub("", text) if self.output["error"] else text
        return " ".join((_TIME.sub("", text) if _CLOCK.search(self.cell["code"]) else text).split())


def _calls_by_cell(journal: Journal) -> dict[int, list[CallRecord]]:
    """Return the calls that are not free, by the number of their cell."""
    found: dict[int, list[CallRecord]] = {}
    for call in journal.calls.values():
        if not kind_of(call["kind"]).is_free:
            found.setdefault(call["cell"], []).append(call)
    return found


@lru_cache(maxsize=256)
def _normalised(code: str) -> str:
    """Return a program without comments and layout."""
    tree = program(code)
    return " ".join(_COMMENT.sub("", code).split()) if tree is None else ast.dump(tree)


@lru_cache(maxsize=256)
def _skeleton(code: str) -> str:
    """Return a program without the names that it binds, and without numbers unless they choose what to look at."""
    tree = program(code)
    return _normalised(code) if tree is None else ast.dump(_Skeleton(tree).visit(tree))


class _Skeleton(ast.NodeTransformer):
    def __init__(self, tree: ast.AST) -> None:
        nodes = [*ast.walk(tree)]
        bound = dict.fromkeys(
            node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        self._names = {name: f"_{number}" for number, name in enumerate(bound)}
        self._inspects_nothing = not any(_may_inspect(node) for node in nodes)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._names.get(node.id, node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not self._inspects_nothing or isinstance(node.value, bool | bytes | None):
            return node
        return ast.Constant(_NUMBER.sub("0", node.value) if isinstance(node.value, str) else 0)


def _may_inspect(node: ast.AST) -> bool:
    """Return whether a part of a program may look at something that a number chooses."""
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in _UNREVEALING)
    return isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id == "context")


def _changes_its_start(code: str, functions: set[str]) -> bool:
    """Return whether a program changes values that it starts with when it is run again.

    `functions` are the names of functions of earlier cells, which may change values, too.
    """
    tree = program(code)
    if tree is None:
        return False
    nodes = [*ast.walk(tree)]
    fresh = {name for node in nodes for name in _rebound_names(node)}
    return any(_changed_names(node, functions) - fresh for node in nodes)


def _rebound_names(node: ast.AST) -> set[str]:
    """Return the names to which a statement assigns a value that does not depend on their old value."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return {target.id for target in targets if isinstance(target, ast.Name)} - _names_in(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return {name} - _names_in(value)
        case ast.For(target=target) | ast.comprehension(target=target):
            return {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
        case ast.arg(arg=name) | ast.withitem(optional_vars=ast.Name(id=name)):
            return {name}
        case _:
            return set()


def _changed_names(node: ast.AST, functions: set[str]) -> set[str]:
    """Return the names whose values a statement or a call may change."""
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=method)) if _MUTATING.fullmatch(method):
            return _names_in(value)
        case ast.AugAssign(target=value) | ast.Call(func=ast.Name(id="next"), args=[value, *_]):
            return _names_in(value)
        case ast.Call(func=ast.Name(id=name)):
            return {name} & functions
        case ast.Assign(targets=targets, value=value):
            stored = {name for target in targets for name in _names_in(target)}
            read = {name for target in targets for name in _index_names(target)} | _names_in(value)
            return stored & read
        case ast.Delete(targets=targets):
            return {name for target in targets for name in _names_in(target)}
        case _:
            return set(getattr(node, "names", ())) if isinstance(node, ast.Global | ast.Nonlocal) else set()


def _names_in(node: ast.AST) -> set[str]:
    """Return the names in an expression or a target."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _index_names(target: ast.AST) -> set[str]:
    """Return the names in the index of a target like `found[len(found)]`."""
    return _names_in(target.slice) if isinstance(target, ast.Subscript) else set()
