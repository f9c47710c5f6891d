"""What leaves the REPL is plain: exact types, bounded, and what is not is an error that helps."""

from __future__ import annotations

import enum
import json
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.sandboxes.worker.repl.json_values import (
    DEEPEST,
    MOST,
    dumped,
    whole,
)

ROOM = 1 << 20

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\x00ż", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(plain_values)
def test_plain_values_cross_unchanged(value):
    assert json.loads(dumped(value, "it", ROOM)) == value


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "a lie"


class Colour(enum.IntEnum):
    RED = 1


class Shade(enum.Enum):
    DARK = "dark"


class Moment(datetime):
    pass


@dataclass(frozen=True, slots=True)
class Measured:
    x: int
    days: list[date]
    unit: ClassVar[str] = "m"


class Scalar:
    """Like one of an array library, which no sandbox has."""

    def item(self) -> int:
        return 1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "crosses_as"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Word("truth"), "truth"),
        ({Word("key"): 1}, {"key": 1}),
        (Colour.RED, 1),
        (Shade.DARK, "dark"),
        (Fraction(1, 3), "1/3"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Moment(2024, 1, 2, 3), "2024-01-02T03:00:00"),
        (Decimal(5), 5),
        (Decimal("-1e400"), "-1E+400"),
        ({1, "a", None}, ["a", 1, None]),
        (bytearray("ż".encode()), "ż"),
        ({"a": deque([{Shade.DARK: 1}.keys()])}, {"a": [["dark"]]}),
        (Measured(1, [date(2024, 1, 2)]), {"x": 1, "days": ["2024-01-02"]}),
        ("a\ud800b\udc00", "a\ufffdb\ufffd"),
        ("\ud83d\ude00", "😀"),
        ({"\udfff": "\udfff"}, {"\ufffd": "\ufffd"}),
        ({date(2024, 1, 2): 1, UUID(int=1): 2}, {"2024-01-02": 1, "00000000-0000-0000-0000-000000000001": 2}),
    ],
)
def test_what_is_nearly_plain_becomes_plain(value, crosses_as):
    assert json.loads(dumped(value, "it", ROOM)) == crosses_as


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


def cyclic() -> list:
    value: list = []
    value.append(value)
    return value


def shared(levels: int) -> list:
    value: list = ["a"]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (b"\xff", TypeError, "of type bytes.*hex"),
        ([bytearray(b"\xff")], TypeError, "of type bytearray.*hex"),
        (memoryview(b""), TypeError, "of type memoryview.*bytes"),
        (map(str, ()), TypeError, "of type map.*list"),
        (MappingProxyType({}), TypeError, "of type mappingproxy.*dict"),
        (SimpleNamespace(), TypeError, "of type SimpleNamespace.*vars"),
        (Decimal("nan"), ValueError, "holds nan"),
        ({"a": {print}}, TypeError, "of type builtin_function_or_method.*Call it first"),
        (Scalar(), TypeError, "of type Scalar.*str"),
        ((n for n in "ab"), TypeError, "of type generator.*list"),
        (print, TypeError, "of type builtin_function_or_method"),
        (object(), TypeError, "of type object"),
        ([1, [{"a": 1j}]], TypeError, "of type complex.*str"),
        ({1: 2}, TypeError, "key of type int.*str"),
        ({(1, 2): 2}, TypeError, "key of type tuple.*str"),
        ({date(2024, 1, 2): 1, "2024-01-02": 2}, ValueError, "two keys that are the same"),
        (dict.fromkeys("\ud800\ud801"), ValueError, "two keys that are the same"),
        (2**63, ValueError, "over 64 bits"),
        (-(2**63) - 1, ValueError, "over 64 bits"),
        (float("nan"), ValueError, "holds nan"),
        ([float("-inf")], ValueError, "holds -inf"),
        (nested(DEEPEST + 1), ValueError, "nested deeper than 32"),
        (cyclic(), ValueError, "holds itself"),
        (shared(25), ValueError, "more than 100,000 items"),
        ([0] * (MOST + 1), ValueError, "more than 100,000 items"),
        ("x" * (ROOM + 1), ValueError, "bigger than 1,048,576 bytes"),
        (["x" * 1000] * 1100, ValueError, "bigger than"),
        ("ż" * (ROOM // 2 + 10), ValueError, "bigger than"),
    ],
)
def test_what_is_not_plain_is_refused_with_a_hint(value, error, says):
    with pytest.raises(error, match=f"(?s)the answer .*{says}"):
        dumped(value, "the answer", ROOM)


def test_the_deepest_value_crosses():
    assert json.loads(dumped(nested(DEEPEST), "it", ROOM)) == nested(DEEPEST)


@settings(deadline=None)
@given(st.text(st.characters()))
def test_whole_text_encodes_and_keeps_its_good_characters(text):
    mended = whole(text)
    mended.encode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert mended == text
