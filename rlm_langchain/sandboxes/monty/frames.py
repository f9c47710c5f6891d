"""What the program prints, and the frames between it: counted as it comes, checked before anything uses it.

The arguments of a host call and the value of a cell arrive as object graphs that can be shared, cyclic or huge,
and turning them into Python objects, or hashing one, can take for ever. So they are never looked at. A message
is text on the print channel between two calls without arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal


class Printed:
    """Collects the text of one cell, and the frame that is being sent. Too much of either stops the worker."""

    def __init__(self, output: int, frame: int, stop: Callable[[Literal["output", "protocol"]], None]) -> None:
        self._text = _Capped(output)
        self._frame = _Capped(frame)
        self._framing = False
        self._stop = stop

    def __call__(self, stream: str, text: str) -> None:
        """What Monty calls with each piece of output."""
        if self._framing:
            if not self._frame.add(text):
                self._stop("protocol")
        elif not self._text.add(text):
            self._stop("output")

    def begin(self) -> None:
        """What comes now is a frame."""
        self._frame.take()
        self._framing = True

    def end(self) -> str:
        """The frame."""
        self._framing = False
        return self._frame.take()

    def take(self) -> str:
        """What the cell has printed; the next one starts empty."""
        self._framing = False
        return self._text.take()


class _Capped:
    """Text up to a number of bytes; what is over is dropped."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._pieces: list[str] = []

    def add(self, text: str) -> bool:
        """Whether it fitted."""
        fits = len(text) <= self._left and (size := len(text.encode("utf-8", "replace"))) <= self._left
        if not fits:
            text = text[: self._left].encode("utf-8", "replace")[: self._left].decode("utf-8", "ignore")
            size = self._left
        self._left -= size
        self._pieces.append(text)
        return fits

    def take(self) -> str:
        text = "".join(self._pieces)
        self._pieces, self._left = [], self._most
        return text


def clean(value: Any) -> Any:
    """The value with every half of a surrogate pair replaced: Monty would do it silently, we do it first."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list() | tuple():
            return [clean(item) for item in value]
        case dict():
            return {clean(key): clean(item) for key, item in value.items()}
    return value
