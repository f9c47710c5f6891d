"""Values that a program makes up go unharmed through state, checkpoints, traces and terminals, or are refused."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import create_rlm
from rlm_langchain.cli.rendering.plain import Lines
from rlm_langchain.cli.rendering.summary import RunResult
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.trajectory.jsonl import read_trace, write_trace
from rlm_langchain.trajectory.tree import flatten

CONFIG: Any = {"configurable": {"thread_id": "t"}}
LC = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain_core", "messages", "HumanMessage"],
    "kwargs": {"content": "x"},
}

UNHARMED = {
    "a class of LangChain": LC,
    "one within a list": [{"a": [LC]}],
    "a secret of LangChain": {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
    "what is not implemented": {"lc": 2, "type": "not_implemented", "id": ["os", "system"], "repr": "x"},
    "an interrupt": {"__interrupt__": [{"value": 1}], "__type__": "Send", "__pydantic__": "os.system"},
    "a record": {"type": "answer", "path": "", "seal": "0" * 16},
    "the greatest integers": [2**63 - 1, -(2**63), 0, -1],
    "floats": [1.5, -0.0, 1e308, 5e-324],
    "truth": [True, False, None, 1, 0, "", [], {}],
    "controls": "\x00\x01\x1b[31m\x07\x08\r\n\t\x7f\x85\x9b",
    "directions": "a\u202e\u2066\u200f\ufeff\u200b\u2028\u2029",
    "planes": "😀\U000e0041\U0010ffff é e\u0301",
    "keys": {"": 1, " ": 2, "\x00": 3, "__class__": 4, "a.b": 5, "$ref": 6},
    "depth": [[[[[[[[[[1]]]]]]]]]],
}


def spelled(value: Any) -> str:
    """As code that makes it."""
    return ascii(value)


def ran(code: str, sandbox: str, home: Path) -> tuple[Any, Any, list[Any]]:
    saver = InMemorySaver()
    rlm = create_rlm(script(code, "FINAL('refused')"), sandbox=sandbox, checkpointer=saver, home=home)
    output = rlm.invoke("q", CONFIG)
    return output, rlm.graph.get_state(CONFIG).values, [*flatten(output["trajectory"])]


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is dict and type(other) is dict:
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if type(one) is list and type(other) is list:
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", UNHARMED)
def test_a_value_is_what_it_was(name: str, sandbox: str, home: Path, tmp_path: Path) -> None:
    value = UNHARMED[name]
    output, state, records = ran(f"FINAL({spelled(value)})", sandbox, home)
    assert same(output["answer"], value)
    assert same(state["answer"], value)
    write_trace(tmp_path / "trace", output["trajectory"])
    kept = [record for record in read_trace(tmp_path / "trace") if record["type"] in ("answer", "output")]
    assert all(same(record.get("answer", record.get("value")), value) for record in kept)
    assert same(json.loads(RunResult(output, None, 1.0).json())["answer"], value)
    shown = RunResult(output, None, 1.0).answer(terminal=True)
    lines = StringIO()
    for record in records:
        Lines(lines, full=True).write(record)
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ufeff"} & set(shown + lines.getvalue())


REFUSED = {
    "an integer over 64 bits": "2 ** 64",
    "one of many digits": "10 ** 4000",
    "a cycle": "x",
    "no number": "float('nan')",
    "no end": "float('inf')",
    "a set of functions": "{len}",
    "bytes that are no text": "b'\\xff'",
    "a function": "len",
    "depth without end": "y",
}
MADE = "x = []\nx.append(x)\ny = 1\nfor _ in range(200): y = [y]\n"


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_cannot_be_kept_is_an_error_of_the_cell(name: str, sandbox: str, home: Path) -> None:
    output, _, records = ran(f"{MADE}FINAL({REFUSED[name]})", sandbox, home)
    first = next(record for record in records if record["type"] == "output")
    assert (output["answer"], first["outcome"], first["error"]) == ("refused", "completed", True)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_halves_of_pairs_are_mended_wherever_they_come_from(sandbox: str, home: Path) -> None:
    """In a reply of a model, in a context, in an answer: no UTF-8 could hold them, and no checkpoint."""

    def reply(messages: list[Any]) -> str:
        if messages[0].type != "system":
            return "a\ud800b"
        return f"So \udc80:\n\n```repl\n{code}\n```"

    code = "r = llm_query('x\\ud800' + context)\nFINAL([r, context, '\\udfff', len(r)])"
    rlm = create_rlm(FunctionModel(function=reply), sandbox=sandbox, checkpointer=InMemorySaver(), home=home)
    output = rlm.invoke({"query": "q", "context": "c\udc00"}, CONFIG)
    assert output["answer"] == ["a\ufffdb", "c\ufffd", "\ufffd", 3]
    json.dumps(output["trajectory"], ensure_ascii=False).encode()
