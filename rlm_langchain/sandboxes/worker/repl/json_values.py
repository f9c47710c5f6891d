"""Converts outgoing values to JSON. What the host would refuse is an error here, where the program sees it."""

from __future__ import annotations

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEEPEST = 32
"""Most levels of lists and dicts."""

MOST = 100_000
"""Most items of one value, over all levels. A nested list counts twice, because the host counts its brackets."""

HINTS = {
    "bytes": "It is no UTF-8 text: use .hex(), or decode it as what it is.",
    "bytearray": "It is no UTF-8 text: use .hex(), or decode it as what it is.",
    "memoryview": "Use bytes(...).",
    "array": "Use list(...).",
    "UserList": "Use list(...).",
    "generator": "Use list(...).",
    "async_generator": "Collect its items: [item async for item in ...].",
    "coroutine": "Await it first.",
    "map": "Use list(...).",
    "filter": "Use list(...).",
    "zip": "Use list(...).",
    "list_iterator": "Use list(...).",
    "mappingproxy": "Use dict(...).",
    "UserDict": "Use dict(...).",
    "ChainMap": "Use dict(...).",
    "SimpleNamespace": "Use vars(...).",
    "function": "Call it first.",
    "method": "Call it first.",
    "builtin_function_or_method": "Call it first.",
    "type": "Make an instance, or use its __name__.",
    "complex": "Use str(...), or its parts .real and .imag.",
    "Match": "Use .group(), or .groupdict().",
    "UserString": "Use str(...).",
}
"""What to write instead, by the name of a type."""


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

    Instances of subclasses are written as their base type, tuples as lists, and what has one form in JSON in that:
    see `plain_form`.
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
        return self.of(self._simpler(value), depth)

    def _simpler(self, value: Any) -> Any:
        try:
            return plain_form(value)
        except TypeError as error:
            raise TypeError(f"{self._what} holds {error}") from None

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
        raise ValueError(
            f"{self._what} holds {float.__repr__(value)}, which is no number in JSON; use None or text"
        )

    def sequence(self, value: list[Any] | tuple[Any, ...], depth: int) -> str:
        """Convert a list."""
        self._enter(len(value), depth)
        return f"[{','.join([self.of(item, depth + 1) for item in value])}]"

    def mapping(self, value: dict[Any, Any], depth: int) -> str:
        """Convert a dict with keys that are texts, or have the form of one, such as dates."""
        self._enter(len(value), depth)
        pairs = {self._key(key): self.of(item, depth + 1) for key, item in value.items()}
        if len(pairs) < len(value):
            raise ValueError(f"{self._what} holds a dict with two keys that are the same as text")
        return f"{{{','.join([f'{key}:{item}' for key, item in pairs.items()])}}}"

    def _key(self, key: Any) -> str:
        if issubclass(type(key), str):
            return self.text(key, 0)
        try:
            form = plain_form(key)
        except TypeError:
            form = None
        if type(form) is str:
            return self.text(form, 0)
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


def plain_form(value: Any) -> Any:
    """Return the form that a value of the standard library has in JSON, whose parts may need the same.

    Dates and times as ISO 8601 writes them, spans in seconds, sets sorted, dataclasses as dicts, enums by their
    value. Raises `TypeError` for what has no such form: "a value of type ...", and what to write instead.
    """
    for base in type(value).__mro__:
        if (form := _FORMS.get(f"{base.__module__}.{base.__qualname__}")) is not None:
            return form(value)
        if "__dataclass_fields__" in base.__dict__:
            return _fields(value)
    raise _formless(value)


def _formless(value: Any) -> TypeError:
    kind = type(value).__name__
    hint = HINTS.get(kind, "Use str(...), or a dict of what matters in it.")
    return TypeError(
        f"a value of type {kind}; only text, numbers, True, False, None, and lists and dicts of them can leave the "
        f"REPL. {hint}"
    )


def _fields(value: Any) -> dict[str, Any]:
    from dataclasses import fields

    return {field.name: getattr(value, field.name) for field in fields(value)}


def _decoded(value: bytes | bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _formless(value) from None


def _decimal(value: Any) -> float | str:
    """Return a number, or the text of one that a float would change."""
    from decimal import Decimal

    number = float(value)
    return number if not value.is_finite() or value == Decimal(repr(number)) else str(value)


def _in_order(value: Any) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=repr)


def _iso(value: Any) -> str:
    return value.isoformat()  # type: ignore[no-any-return]


_FORMS: dict[str, Callable[[Any], Any]] = {
    "datetime.datetime": _iso,
    "datetime.date": _iso,
    "datetime.time": _iso,
    "datetime.timedelta": lambda value: value.total_seconds(),
    "decimal.Decimal": _decimal,
    "fractions.Fraction": str,
    "uuid.UUID": str,
    "pathlib.PurePath": str,
    "pathlib._local.PurePath": str,  # of Python 3.13
    "enum.Enum": lambda value: value.value,
    "builtins.bytes": _decoded,
    "builtins.bytearray": _decoded,
    "builtins.set": _in_order,
    "builtins.frozenset": _in_order,
    "builtins.range": list,
    "builtins.dict_keys": list,
    "builtins.dict_values": list,
    "builtins.dict_items": list,
    "collections.deque": list,
}
"""By the names of types, so that none of their modules is loaded."""
