"""The wire format of a session: parses the messages of a possibly hostile worker, and writes the host's."""

from __future__ import annotations

import json
import marshal
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from rlm_langchain.types import (
    Call,
    ContextFile,
    Excerpt,
    Plain,
    Reply,
)

ENVELOPE = 256 << 10
"""Bytes that a frame may have in addition to its value: output, a traceback, punctuation."""

MAX_VALUES = 120_000
"""Most values in one frame. Each takes up to a few hundred bytes of the host's memory."""

MAX_DEPTH = 36
"""Maximum nesting of lists: the deepest value, and the message around it."""

MAX_CALLS = 10_000
"""Most calls in one frame."""


class BrokenProtocol(Exception):
    """The worker sent something that only a forged frame can contain."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The prelude has run; or, when it is sent again, all modules that the first cell needs are loaded."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A piece of the cell's output."""

    text: str


@dataclass(frozen=True, slots=True)
class CallsRequested:
    """The cell waits for the replies to these calls."""

    turn: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The cell ended without an answer."""

    turn: int
    error: str | None


@dataclass(frozen=True, slots=True)
class EndedWithAnswer:
    """The cell ended with an answer."""

    turn: int
    value: Plain
    error: str | None


Message = Ready | Printed | CallsRequested | Ended | EndedWithAnswer

Texts = Mapping[str, ContextFile]
"""The contexts of a session, by their names in its REPL."""


def parsed(frame: bytes, texts: Texts = MappingProxyType({})) -> Message:
    """Return the message in a frame, which may refer to parts of these texts. Raises only `BrokenProtocol`."""
    return _message(plain(frame), texts)


def plain(frame: bytes) -> Any:
    """Return the JSON in a frame: plain values, few and flat enough. Raises only `BrokenProtocol`."""
    _measure(frame)
    try:
        value = _DECODER.decode(frame.decode())
    except (ValueError, RecursionError) as error:
        raise BrokenProtocol(f"a frame is no plain JSON: {type(error).__name__}") from None
    if b"\\ud" in frame or b"\\uD" in frame:
        _refuse_surrogates(value)
    return value


def _measure(frame: bytes) -> None:
    """Refuse a frame that is small in the pipe but would be huge in memory, or too deep."""
    if _values(frame) <= MAX_DEPTH:
        return
    bones = _STRING.sub(b"", frame)
    if _values(bones) > MAX_VALUES:
        raise BrokenProtocol("a frame holds too many values")
    depth = 0
    for mark in _STRUCTURE.findall(bones):
        depth += _DEEPER.get(mark, 0)
        if depth > MAX_DEPTH:
            raise BrokenProtocol("a frame is nested too deeply")


def _values(frame: bytes) -> int:
    """Return an upper bound of the number of values: texts with commas make it too high."""
    return sum(map(frame.count, (b",", b"[", b"{")))


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_STRUCTURE = re.compile(rb"[][{}]")

_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("an integer over 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number over all bounds")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_constant)


def _refuse_surrogates(value: Any) -> None:
    match value:
        case str():
            if not value.isascii() and _SURROGATE.search(value):
                raise BrokenProtocol("a frame holds half a surrogate pair")
        case list():
            for item in value:
                _refuse_surrogates(item)
        case dict():
            _refuse_surrogates([*value.keys(), *value.values()])


_SURROGATE = re.compile("[\ud800-\udfff]")


def _message(message: Any, texts: Texts) -> Message:
    match message:
        case ["ready"]:
            return Ready()
        case ["out", str(text)] if text:  # empty output would count against no limit
            return Printed(text)
        case ["calls", int(turn), [_, *_] as calls] if len(calls) <= MAX_CALLS:
            return CallsRequested(turn, tuple(_call(call, texts) for call in calls))
        case ["done", int(turn), str() | None as error]:
            return Ended(turn, error)
        case ["answer", int(turn), value, str() | None as error]:
            return EndedWithAnswer(turn, value, error)
    raise BrokenProtocol("a frame is none of the messages there are")


def _call(call: Any, texts: Texts) -> Call:
    match call:
        case [str(kind), str(prompt), None | str() | list() | dict() as context] if _KIND.fullmatch(kind):
            return Call(kind, prompt, context)
        case ["rlm", str(prompt), None, [str(name), int(start), int(stop)]]:
            return Call("rlm", prompt, _excerpt(texts.get(name), start, stop))
    raise BrokenProtocol("a frame asks for something that is no call")


def _excerpt(text: ContextFile | None, start: int, stop: int) -> Excerpt:
    if text is None or text.kind != "text" or not 0 <= start <= stop <= text.size:
        raise BrokenProtocol("a frame names a part of a text that is not there")
    return Excerpt(text, start, stop)


_KIND = re.compile("[a-z][a-z0-9_]{0,31}")


def framed(message: Sequence[Any]) -> bytes:
    """Return a message as a frame."""
    body = marshal.dumps(_replace_surrogates(message))
    return len(body).to_bytes(4, "big") + body


def run_frame(turn: int, code: str) -> bytes:
    """Return the frame of a cell. The worker ends the turn with the same number; earlier output cannot end it."""
    return framed(["run", turn, code])


def replies_frame(turn: int, replies: Sequence[Reply]) -> bytes:
    """Return the frame of replies to a batch of calls: the next turn of the same cell."""
    return framed(["replies", turn, [[reply.value, reply.error] for reply in replies]])


def _replace_surrogates(value: Any) -> Any:
    """Return the value with lone surrogates replaced by U+FFFD, because they could not be sent back."""
    match value:
        case str():
            return value if value.isascii() else _without_surrogates(value)
        case list() | tuple():
            return [_replace_surrogates(item) for item in value]
        case dict():
            return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
