"""Tells whether a run still gets anywhere: a root model that only repeats itself is warned, and then stopped.

No budget but the turns would end such a run, and each turn is paid for. A turn repeats when every cell of it had
been run before, as the same program, with the same output and the same replies to its calls; so does a reply
without code that follows another one. Several such turns in a row bring nothing that the model does not know,
whether it runs one cell over and over or several by turns.

What differs without a meaning is left out of the comparison: addresses, white space, the times that a clock shows,
and in errors numbers and the names that were not found. Programs are alike when only the names that they bind
differ, or numbers in programs that look at nothing by them. Such turns have more patience: each may be an attempt.
Everything else that is printed or asked is progress: a run may page through its context.
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

REPEATS_END = 3
"""Repeating turns in a row after which a run is ended: with what they repeat, four. The first brings a word."""
SILENT_REPEATS_END = 7
"""The same, for cells that may move something on that their output does not show, as `i += 1` does, or that ask a
tool, whose reply may yet change."""
SAME_ERROR_TOLD = 3
"""Turns in a row that end in the same error, though their code differs, and bring nothing else: then the model is
warned. A weaker sign than repeating, since each of them may be another attempt."""
SAME_ERROR_END = 8
"""The same, after which the run is ended."""
ALIKE_TOLD = 5
"""Turns in a row whose programs are alike, with the same output and replies: then the model is warned."""
ALIKE_END = 12
"""The same, after which the run is ended."""

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")
_CLOCK = re.compile(r"\b(?:time|datetime|perf_counter|monotonic|now|today)\b")
"""Of a program: that it may look at a clock."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+)?|\d\d?:\d\d:\d\d(?:\.\d+)?|\d+\.\d+(?:e-?\d+)?|\b1\d{9,12}\b")
_NUMBER = re.compile(r"[-+]?\d[\d_.,]*")
_NOT_FOUND = re.compile(r"(?:(?<=name ')|(?<=named ')|(?<=variable ')|(?<=attribute '))[^'\n]+(?=')")
"""Of an error: the name that nothing has."""
_CELL = re.compile(r"<cell \d+>")
_FRAMES = re.compile(
    r'^(?:Traceback \(most recent call last\):|[ \t]*File "<cell.*)\n(?:[ \t]+.*\n)*', re.MULTILINE
)
"""Of a traceback, what tells where it was: numbers of cells and lines, and their text."""
_BLIND = {"FINAL", "float", "int", "len", "print", "repr", "round", "str"} | {
    "llm_query",
    "llm_query_batched",
    "recursive_lm",
    "rlm_query",
    "rlm_query_batched",
}
"""Functions whose results tell nothing of the context that is not in what is printed or in their replies."""
_COMMENT = re.compile(r"#[^\n]*")
_MUTATING = re.compile(
    "add|append|appendleft|clear|discard|extend|extendleft|insert|pop|popitem|popleft|read|readline|remove|reverse"
    "|rotate|send|setdefault|shuffle|sort|update|write"
)
"""Methods after which an object may not be what it was."""


@dataclass(slots=True)
class Progress:
    """How the latest turns of a run went."""

    repeats: int = 0
    """Turns in a row, up to now, that only repeated earlier ones."""
    patience: int = REPEATS_END
    """How many of those there may be."""
    same_error: int = 0
    """Turns in a row, up to now, that ended in the same error and brought nothing else."""
    alike: int = 0
    """Turns in a row, up to now, that did the same as earlier ones, by programs that are alike."""
    _error: Hashable = None
    _alike_seen: set[Hashable] = field(default_factory=set)
    _seen: set[Hashable] = field(default_factory=set)
    _streak: set[Hashable] = field(default_factory=set)
    """What the repeating turns have done."""
    _spoke: bool = False
    """Whether the last turn had no code."""
    _functions: set[str] = field(default_factory=set)
    """Names of functions that earlier cells have defined."""

    @classmethod
    def of(cls, journal: Journal) -> Progress:
        """How a run has gone since its question."""
        progress, calls = cls(), _calls_by_cell(journal)
        for turn in journal.turns_since_question:
            cells = [
                _Ran(cell, output, calls.get(cell["cell"], []))
                for cell in journal.cells
                if cell["turn"] == turn["turn"] and (output := journal.outputs.get(cell["cell"])) is not None
            ]
            progress._add(turn, cells)
        return progress

    @property
    def is_over(self) -> bool:
        """Whether nothing new is to be expected of this run."""
        return self.repeats >= self.patience or self.same_error >= SAME_ERROR_END or self.alike >= ALIKE_END

    @property
    def is_warned(self) -> bool:
        """Whether a word is due."""
        return bool(self.repeats) or self.fails_alike or self.alike >= ALIKE_TOLD

    @property
    def fails_alike(self) -> bool:
        """Whether different code has run into the same error so often that a word is due."""
        return not self.repeats and self.same_error >= SAME_ERROR_TOLD

    @property
    def left(self) -> int:
        """How many more turns like the last ones the run may take."""
        return min(self.patience - self.repeats, SAME_ERROR_END - self.same_error, ALIKE_END - self.alike)

    def _add(self, turn: TurnRecord, cells: list[_Ran]) -> None:
        if turn.get("summary"):
            # The model no longer sees what it did, and may well look again; but a loop is not broken by it.
            self._seen = set(self._streak)
            return
        if alike := {cell.alike for cell in cells}:
            self.alike = self.alike + 1 if alike <= self._alike_seen else 0
            self._alike_seen |= alike
        done = {cell.signature for cell in cells} or {turn["text"].strip()}
        is_speech = not turn["cells"]
        if (is_speech and self._spoke) or done <= self._seen:
            self.repeats += 1
            self._streak |= done
            if any(cell.may_move_on(self._functions) for cell in cells):
                self.patience = SILENT_REPEATS_END
        else:
            self.repeats, self.patience, self._streak = 0, REPEATS_END, set()
        self._seen |= done
        self._spoke = is_speech
        error = cells[-1].error if cells else None
        self.same_error = 0 if error is None else self.same_error + 1 if error == self._error else 1
        self._error = error
        self._functions.update(name for cell in cells for name in cell.functions)


@dataclass(frozen=True, slots=True)
class _Ran:
    """A cell that has ended."""

    cell: CellRecord
    output: OutputRecord
    calls: list[CallRecord]
    """Those of its calls whose replies tell something."""

    @property
    def signature(self) -> Hashable:
        """What is the same when the same cell does the same once more."""
        return _normal(self.cell["code"]), self._printed, self._replies

    @property
    def alike(self) -> Hashable:
        """What is the same when a program that is alike does the same once more."""
        return _skeleton(self.cell["code"]), self._printed, self._replies

    @property
    def error(self) -> Hashable:
        """The error of a cell, with what it printed before it and what its calls brought; None without an error."""
        if not self.output["error"]:
            return None
        shown = fenced(self.output["text"])
        start = found.start() if (found := _FRAMES.search(shown)) else 0
        raised = _NUMBER.sub("0", _NOT_FOUND.sub("", self._told(shown[start:])))
        told = tuple(reply for call, reply in zip(self.calls, self._values, strict=True) if call["error"] is None)
        return self._told(shown[:start]), raised, tuple(sorted(set(told)))

    @property
    def _replies(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(set(self._values)))

    @property
    def _values(self) -> list[tuple[str, str]]:
        return [
            (call["prompt_sha256"], ref["sha256"] if (ref := call.get("value_ref")) else repr(call["value"]))
            for call in self.calls
        ]

    def may_move_on(self, functions: set[str]) -> bool:
        """Whether to run it again may lead on although it looks the same. A cell that fails has led nowhere."""
        if self.output["error"]:
            return False
        return any(kind_of(call["kind"]).is_counted for call in self.calls) or _carries(
            self.cell["code"], functions
        )

    @property
    def functions(self) -> Iterator[str]:
        """The names of the functions that it defines."""
        tree = program(self.cell["code"])
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))

    @property
    def _printed(self) -> str:
        return self._told(fenced(self.output["text"]))

    def _told(self, shown: str) -> str:
        """A part of what it showed, without what is another each time."""
        text = _CELL.sub("<cell>", _ADDRESS.sub("0x", shown))
        text = _FRAMES.sub("", text) if self.output["error"] else text
        return " ".join((_TIME.sub("", text) if _CLOCK.search(self.cell["code"]) else text).split())


def _calls_by_cell(journal: Journal) -> dict[int, list[CallRecord]]:
    found: dict[int, list[CallRecord]] = {}
    for call in journal.calls.values():
        if not kind_of(call["kind"]).is_free:
            found.setdefault(call["cell"], []).append(call)
    return found


@lru_cache(maxsize=256)
def _normal(code: str) -> str:
    """A program without its comments and its layout."""
    tree = program(code)
    return " ".join(_COMMENT.sub("", code).split()) if tree is None else ast.dump(tree)


@lru_cache(maxsize=256)
def _skeleton(code: str) -> str:
    """A program without the names that it binds, and without numbers where these choose nothing to look at."""
    tree = program(code)
    return _normal(code) if tree is None else ast.dump(_Skeleton(tree).visit(tree))


class _Skeleton(ast.NodeTransformer):
    def __init__(self, tree: ast.AST) -> None:
        nodes = [*ast.walk(tree)]
        bound = dict.fromkeys(
            node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        self._names = {name: f"_{number}" for number, name in enumerate(bound)}
        self._is_blind = not any(_looks(node) for node in nodes)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._names.get(node.id, node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not self._is_blind or isinstance(node.value, bool | bytes | None):
            return node
        return ast.Constant(_NUMBER.sub("0", node.value) if isinstance(node.value, str) else 0)


def _looks(node: ast.AST) -> bool:
    """Whether a part of a program may look at something that depends on a number."""
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in _BLIND)
    return isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id == "context")


def _carries(code: str, functions: set[str]) -> bool:
    """Whether a program changes what it begins with when it is run again: by itself, or by earlier functions."""
    tree = program(code)
    if tree is None:
        return False
    nodes = [*ast.walk(tree)]
    fresh = {name for node in nodes for name in _bound_anew(node)}
    return any(_changes(node, functions) - fresh for node in nodes)


def _bound_anew(node: ast.AST) -> set[str]:
    """Names to which a statement gives a value that does not depend on the one that they had."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return {target.id for target in targets if isinstance(target, ast.Name)} - _loaded(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return {name} - _loaded(value)
        case ast.For(target=target) | ast.comprehension(target=target):
            return {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
        case ast.arg(arg=name) | ast.withitem(optional_vars=ast.Name(id=name)):
            return {name}
        case _:
            return set()


def _changes(node: ast.AST, functions: set[str]) -> set[str]:
    """Names whose values may be others after a statement or a call than before it."""
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=method)) if _MUTATING.fullmatch(method):
            return _loaded(value)
        case ast.AugAssign(target=value) | ast.Call(func=ast.Name(id="next"), args=[value, *_]):
            return _loaded(value)
        case ast.Call(func=ast.Name(id=name)):
            return {name} & functions
        case ast.Assign(targets=targets, value=value):
            stored = {name for target in targets for name in _loaded(target)}
            read = {name for target in targets for name in _indexes(target)} | _loaded(value)
            return stored & read
        case ast.Delete(targets=targets):
            return {name for target in targets for name in _loaded(target)}
        case _:
            return set(getattr(node, "names", ())) if isinstance(node, ast.Global | ast.Nonlocal) else set()


def _loaded(node: ast.AST) -> set[str]:
    """The names in an expression, or in a target."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _indexes(target: ast.AST) -> set[str]:
    """The names in the index of a target like `found[len(found)]`."""
    return _loaded(target.slice) if isinstance(target, ast.Subscript) else set()
