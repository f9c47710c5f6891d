"""Values across the boundary: plain values arrive exactly; all others are refused with an error in the program."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    answered,
    echo,
    fault,
    finish,
    output,
)
from rlm_langchain.types import Call, Completed, Suspended

ALLOWED: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    0.5,
    -1e300,
    "",
    "text",
    'żółć 日本 😀 "\\ \x00\x1b\u202e\u2028',
    [],
    [1, "a", None, [2.5, [True]]],
    {},
    {"a": {"b": [1, {"": None}]}, "ż": "ó"},
    {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
)

REFUSED = {
    "nan": "FINAL(float('nan'))",
    "infinity": "FINAL([1.0, float('inf')])",
    "an integer over 64 bits": "FINAL(2 ** 70)",
    "a negative integer over 64 bits": "FINAL(-2 ** 63 - 1)",
    "a complex number": "FINAL(complex(1, 2))",
    "bytes that are no text": "FINAL(b'a\\xff')",
    "an object": "class Thing:\n    pass\nFINAL(Thing())",
    "a function": "def f():\n    pass\nFINAL(f)",
    "a module": "import json\nFINAL(json)",
    "a key that is no text": "FINAL({1: 'a'})",
    "two keys of one text": "import datetime\nFINAL({datetime.date(2024, 1, 2): 1, '2024-01-02': 2})",
    "a cycle": "x = []\nx.append(x)\nFINAL(x)",
    "a cycle through a dict": "x = {}\nx['x'] = [x]\nFINAL(x)",
    "too deep": "x = []\nfor _ in range(40):\n    x = [x]\nFINAL(x)",
    "far too deep": "x = []\nfor _ in range(100000):\n    x = [x]\nFINAL(x)",
    "too big": "FINAL('x' * 1_100_000)",
    "too big in pieces": "FINAL(['x' * 1000] * 1100)",
    "a shared graph": "x = ['a']\nfor _ in range(30):\n    x = [x, x]\nFINAL(x)",
    "too many items": "FINAL([0] * 500_000)",
}

CONVERTED: dict[str, object] = {
    "datetime.date(2024, 1, 2)": "2024-01-02",
    "datetime.datetime(2024, 1, 2, 3, 4, 5)": "2024-01-02T03:04:05",
    "datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)": "2024-01-02T00:00:00+00:00",
    "datetime.time(3, 4)": "03:04:00",
    "datetime.timedelta(minutes=1, seconds=30)": 90.0,
    "decimal.Decimal('1.10')": 1.1,
    "decimal.Decimal('0.12345678901234567890')": "0.12345678901234567890",
    "decimal.Decimal('1e400')": "1E+400",
    "{3, 1, 2}": [1, 2, 3],
    "frozenset('ba')": ["a", "b"],
    "b'ab'": "ab",
    "range(3)": [0, 1, 2],
    "{'a': 1}.keys()": ["a"],
    "{'a': 1}.values()": [1],
    "{'a': 1}.items()": [["a", 1]],
    "collections.deque([1])": [1],
    "collections.Counter('aab')": {"a": 2, "b": 1},
    "collections.OrderedDict(a=1)": {"a": 1},
    "collections.defaultdict(int, a=1)": {"a": 1},
    "pathlib.Path('a/b')": "a/b",
    "{datetime.date(2024, 1, 2): 1, 'a': 2}": {"2024-01-02": 1, "a": 2},
    "Pair(1, 'a')": [1, "a"],
    "Item(1, [datetime.date(2024, 1, 2)])": {"x": 1, "y": ["2024-01-02"]},
}
"""What has one form in JSON, and that form."""

_IMPORTS = """import collections, datetime, decimal, pathlib
from dataclasses import dataclass
@dataclass
class Item:
    x: int
    y: list
Pair = collections.namedtuple('Pair', 'x y')
"""


class ValueClauses(Clauses):
    """Values across the boundary."""

    @pytest.mark.parametrize("value", ALLOWED, ids=repr)
    def test_final_gives_back(self, session: SandboxSession, value: object) -> None:
        got = answered(session, f"FINAL({value!r})")
        assert got == value
        assert type(got) is type(value)

    def test_an_integer_stays_one_and_a_bool_too(self, session: SandboxSession) -> None:
        assert repr(answered(session, "FINAL([1, True, 1.0])")) == "[1, True, 1.0]"

    def test_a_tuple_arrives_as_a_list(self, session: SandboxSession) -> None:
        assert answered(session, "FINAL({'pair': (1, ('a', 2))})") == {"pair": [1, ["a", 2]]}

    def test_what_has_one_form_in_json_arrives_in_that(self, session: SandboxSession) -> None:
        assert answered(session, f"{_IMPORTS}FINAL([{', '.join(CONVERTED)}])") == [*CONVERTED.values()]

    def test_such_values_arrive_alone_and_within_others_and_in_calls(self, session: SandboxSession) -> None:
        output(session, _IMPORTS)
        assert answered(session, "FINAL(Item(1, {2}))") == {"x": 1, "y": [2]}
        assert answered(session, "answer = {'content': {'day': datetime.date(2024, 1, 2)}, 'ready': True}") == {
            "day": "2024-01-02"
        }
        step = session.run("llm_query('p', {'days': {datetime.date(2024, 1, 2)}})")
        assert step == Suspended((Call("llm", "p", {"days": ["2024-01-02"]}),))
        assert finish(session, step, echo) == Completed("'<p>'\n")

    def test_a_shared_list_arrives_twice(self, session: SandboxSession) -> None:
        assert answered(session, "x = [1]\nFINAL([x, x])") == [[1], [1]]

    def test_a_lone_surrogate_arrives_as_a_replacement_character(self, session: SandboxSession) -> None:
        assert answered(session, "FINAL(['\\udfff', {'\\ud800k': 'a\\ud83d'}])") == [
            "\ufffd",
            {"\ufffdk": "a\ufffd"},
        ]

    @pytest.mark.parametrize("what", REFUSED)
    def test_final_refuses(self, open_session: Opener, what: str) -> None:
        session = open_session(value=1 << 20)
        error = fault(session, "keep = 1\n" + REFUSED[what])
        assert any(kind in error for kind in ("TypeError", "ValueError", "RecursionError")), error
        assert output(session, "print(keep)") == "1\n"

    def test_a_refused_answer_can_be_caught_and_mended(self, session: SandboxSession) -> None:
        code = "try:\n    FINAL(print)\nexcept TypeError:\n    FINAL([1, 2])"
        assert answered(session, code) == [1, 2]

    @pytest.mark.parametrize(
        "code",
        [
            "llm_query('x' * 1_100_000)",
            "llm_query('p', context='x' * 1_100_000)",
            "rlm_query('p', {1, 2})",
            "rlm_query('p', {1: 2})",
            "x = ['a' * 1000]\nfor _ in range(25):\n    x = [x, x]\nllm_query(x)",
            "x = ['a' * 1000]\nfor _ in range(25):\n    x = [x, x]\nrlm_query('p', x)",
            "llm_query_batched(['x', 2])",
        ],
    )
    def test_a_call_that_cannot_cross_is_an_error_in_the_cell(self, open_session: Opener, code: str) -> None:
        session = open_session(value=1 << 20)
        assert fault(session, "keep = 1\n" + code)
        assert output(session, "print(keep)") == "1\n"
