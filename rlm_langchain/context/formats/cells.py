"""Values of tables as JSON: dates become text, and what JSON cannot hold is replaced and counted."""

from __future__ import annotations

import datetime
from collections import Counter
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any

from rlm_langchain.context.describe import count


class Cells:
    """Converts values, and counts those that it had to change."""

    def __init__(self) -> None:
        self._changed: Counter[str] = Counter()

    def plain(self, value: Any) -> Any:  # noqa: PLR0911 - one for each type
        """Return a value as JSON holds it."""
        if isinstance(value, str | int | NoneType):
            return value
        if isinstance(value, float):
            return value if isfinite(value) else self._replaced("NaN or Infinity", None)
        if isinstance(value, datetime.datetime | datetime.date | datetime.time):
            return value.isoformat()
        if isinstance(value, datetime.timedelta):
            return value.total_seconds()
        if isinstance(value, Decimal):
            return self._number(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value))
        if isinstance(value, dict):
            return {str(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        return str(value)

    def _number(self, value: Decimal) -> Any:
        if not value.is_finite():
            return self._replaced("NaN or Infinity", None)
        if value == value.to_integral_value():
            return int(value)
        near = float(value)
        return near if Decimal(repr(near)) == value else self._replaced("decimal with too many digits", str(value))

    def _text(self, value: bytes) -> Any:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return self._replaced("binary value", value.hex())

    def _replaced(self, what: str, by: Any) -> Any:
        self._changed[what] += 1
        return by

    def notes(self) -> list[str]:
        """Return what was changed."""
        by = {"NaN or Infinity": "None", "binary value": "hexadecimal text"}
        return [
            f"replaced: {count(number, what)} by {by.get(what, 'text')}" for what, number in self._changed.items()
        ]
