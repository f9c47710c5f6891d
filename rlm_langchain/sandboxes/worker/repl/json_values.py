"""Converts outgoing values to JSON. What the host would refuse is an error here, where the program sees it."""

from __future__ import annotations

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

DEEPEST = 32
"""Most levels of lists and dicts."""

MOST = 100_000
"""Most items of one value, over all levels. A nested list counts twice, because the host counts its brackets."""

HINTS = {
    "set": "Use sorted(...) or list(...).",
    "frozenset": "Use sorted(...) or list(...).",
    "bytes": "Use .decode().",
    "bytearray": "Use .decode().",
    "generator": "Use list(...).",
    "map": "Use list(...).",
    "filter": "Use list(...).",
    "range": "Use list(...).",
    "zip": "Use list(...).",
    "dict_keys": "Use list(...).",
    "dict_values": "Use list(...).",
    "dict_items": "Use dict(...).",
    "function": "Call it first.",
    "complex": "Use str(...).",
}


def dumped(value: Any, what: str, room: int) -> str:
    """Return `value` as JSON of at most `room` bytes. Raises `TypeError` or `ValueError` that names `what`."""
    text = Plain(what, room).of(value, 0)
    if len(text) * 4 > room and len(text.encode()) > room:
        raise ValueError(_too_big(what, room))
    return text


def quoted(text: str) -> str:
    """Return a text without lone surrogates, as JSON."""
    from _json import encode_basestring

    return encode_basestring(text)


def whole(text: str) -> str:
    """Return the text with lone surrogates replaced, because UTF-8 cannot represent them."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _too_big(what: str, room: int) -> str:
    return f"{what} is bigger than {room:,} bytes, the most that can leave the REPL at once"


class Plain:
    """Converts one value to JSON and counts its parts.

    Instances of subclasses are written as their base type, tuples as lists.
    """

    def __init__(self, what: str, room: int) -> None:
        self._what, self._room = what, room
        self._left, self._items = room, MOST

    def of(self, value: Any, depth: int) -> str:
        """Convert any value."""
        if value is None or value is True or value is False:
            return _CONSTANTS[value]
        kind = type(value)
        for base, write in _WRITERS:
            if issubclass(kind, base):
                return write(self, value, depth)  # type: ignore[no-any-return]
        hint = HINTS.get(kind.__name__, "")
        raise TypeError(
            f"{self._what} holds a value of type {kind.__name__}; only text, numbers, True, False, None, and "
            f"lists and dicts of them can leave the REPL. {hint}".rstrip()
        )

    def text(self, value: str, depth: int) -> str:
        """Convert a text, without lone surrogates."""
        self._left -= str.__len__(value)
        if self._left < 0:
            raise ValueError(_too_big(self._what, self._room))
        return quoted(whole(str.__str__(value)))

    def integer(self, value: int, depth: int) -> str:
        """Convert a 64-bit integer."""
        if -(2**63) <= value < 2**63:
            return int.__repr__(value)
        raise ValueError(f"{self._what} holds an integer over 64 bits; use str(...)")

    def number(self, value: float, depth: int) -> str:
        """Convert a finite number."""
        if abs(value) < float("inf"):
            return float.__repr__(value)
        raise ValueError(f"{self._what} holds {float.__repr__(value)}; use None or text for it")

    def sequence(self, value: list[Any] | tuple[Any, ...], depth: int) -> str:
        """Convert a list."""
        self._enter(len(value), depth)
        return f"[{','.join([self.of(item, depth + 1) for item in value])}]"

    def mapping(self, value: dict[Any, Any], depth: int) -> str:
        """Convert a dict with text keys."""
        self._enter(len(value), depth)
        pairs = [f"{self._key(key)}:{self.of(item, depth + 1)}" for key, item in value.items()]
        return f"{{{','.join(pairs)}}}"

    def _key(self, key: Any) -> str:
        if issubclass(type(key), str):
            return self.text(key, 0)
        raise TypeError(
            f"{self._what} holds a dict with a key of type {type(key).__name__}; keys must be text: "
            "{str(k): v for k, v in d.items()}"
        )

    def _enter(self, items: int, depth: int) -> None:
        self._items -= items + (depth > 0)
        if depth >= DEEPEST:
            raise ValueError(f"{self._what} is nested deeper than {DEEPEST} levels, or holds itself")
        if self._items < 0:
            raise ValueError(f"{self._what} holds more than {MOST:,} items, or holds the same ones many times")


_CONSTANTS = {None: "null", True: "true", False: "false"}

_WRITERS: tuple[tuple[type, Any], ...] = (
    (str, Plain.text),
    (int, Plain.integer),
    (float, Plain.number),
    (list, Plain.sequence),
    (tuple, Plain.sequence),
    (dict, Plain.mapping),
)
