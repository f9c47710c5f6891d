"""A long piece of a context goes to a child run by its place: it need not fit into a frame, nor into memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, Price, create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.sandboxes import wire
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.trajectory.journal import fingerprint
from rlm_langchain.types import (
    Call,
    ContextFile,
    Excerpt,
    Limits,
    Reply,
    Suspended,
)

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox

LINE = "a line with an ä and a 😀 in it, number %07d\n"
LONG = "".join(LINE % n for n in range(60_000))
"""Almost three million characters, and more bytes."""


@pytest.fixture(params=["real", "lazy"])
def limits(request: pytest.FixtureRequest) -> Limits:
    return Limits() if request.param == "real" else Limits(loaded=1 << 10)


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(tmp_path)


def asked(store: ContextStore, limits: Limits, code: str, text: str = LONG) -> Call:
    session = CPythonSandbox().open(store.open(store.reference(text)), "", limits)
    try:
        step = session.run(code)
    finally:
        session.close()
    assert isinstance(step, Suspended), step
    return step.calls[0]


@pytest.mark.parametrize(
    ("code", "start", "stop"),
    [
        ("rlm_query('q', context[:2_000_000])", 0, 2_000_000),
        ("rlm_query('q', context[700_001:2_500_003])", 700_001, 2_500_003),
        ("rlm_query_batched([('q', context[1_000:1_200_000])])", 1_000, 1_200_000),
        ("recursive_lm('q', context)", 0, len(LONG)),
    ],
)
def test_a_child_gets_the_piece_that_the_code_cut(store, limits, code, start, stop):
    call = asked(store, limits, code)
    assert isinstance(call.context, Excerpt)
    assert (call.context.start, call.context.stop) == (len(LONG[:start].encode()), len(LONG[:stop].encode()))
    assert store.load(store.reference_from_repl(call.context)) == LONG[start:stop]


@pytest.mark.parametrize("code", ["rlm_query('q', context[:1000])", "llm_query('q', context[:1_200_000])"])
def test_what_is_short_or_for_a_model_goes_as_it_is(store, limits, code):
    assert LONG.startswith(asked(store, limits, code).context)


def test_what_stands_in_no_context_goes_as_it_is(store, limits):
    assert asked(store, limits, "rlm_query('q', 'x' * 1_500_000)").context == "x" * 1_500_000


def test_a_piece_too_long_for_any_frame_can_be_asked_about_all_the_same(store, limits):
    text = "0123456789abcdef" * (1 << 20)
    call = asked(store, limits, "rlm_query('q', context[16:])", text)
    assert store.load(store.reference_from_repl(call.context)) == text[16:]


def test_a_call_is_known_by_the_text_and_the_place_and_not_by_the_folder(tmp_path):
    homes = [ContextStore(tmp_path / name) for name in ("a", "b")]
    marks = [fingerprint(asked(home, Limits(), "rlm_query('q', context[5:2_000_000])")) for home in homes]
    others = [fingerprint(asked(homes[0], Limits(), f"rlm_query('q', context[{at}:2_000_000])")) for at in (5, 6)]
    assert marks[0] == marks[1] == others[0] != others[1]


@pytest.mark.parametrize(
    "place",
    ['["context",0,9]', '["context",-1,2]', '["context",2,1]', '["other",0,1]', '["list",0,1]', '["context",0]'],
)
def test_a_place_that_is_not_there_is_a_broken_protocol(tmp_path, place):
    texts = {"context": ContextFile(tmp_path, "text", 8, 8), "list": ContextFile(tmp_path, "json", 1, 8)}
    frame = f'["calls",1,[["rlm","q",null,{place}]]]'.encode()
    with pytest.raises(wire.BrokenProtocol):
        wire.parsed(frame, texts)


def test_only_a_child_run_may_be_given_a_place(tmp_path):
    texts = {"context": ContextFile(tmp_path, "text", 8, 8)}
    with pytest.raises(wire.BrokenProtocol):
        wire.parsed(b'["calls",1,[["llm","q",null,["context",0,1]]]]', texts)


CUT = """
half = len(context) // 2
lines = rlm_query_batched(['{kind} one', '{kind} two'], [context[:half], context[half:]])
FINAL(sum(map(int, lines)))
"""


def test_runs_below_each_other_count_in_the_pieces_of_a_piece(limits, tmp_path):
    plays = {"MID": (CUT.format(kind="LOW"),), "LOW": ("FINAL(context.count('\\n'))",)}
    model = script(CUT.format(kind="MID"), children=plays)
    rlm = create_rlm(model, sandbox="cpython", budget=Budget(depth=3), limits=limits, home=tmp_path)
    output = rlm.invoke({"query": "How many lines?", "context": LONG * 2})
    assert output["answer"] == 120_000
    assert all(len(str(record.get("value"))) < 20 for record in output["trajectory"])


def test_with_the_depth_used_up_a_leaf_is_told_that_it_is_too_long(tmp_path):
    code = "try:\n    rlm_query('q', context[16:])\nexcept LLMError as e:\n    FINAL(str(e))"
    rlm = create_rlm(script(code), sandbox="cpython", home=tmp_path)
    answer = rlm.invoke({"query": "q", "context": "0123456789abcdef" * (1 << 20)})["answer"]
    assert re.search(r"not asked: about 4,194,\d+ tokens, and .* reads", answer)


def test_a_leaf_reads_a_piece_that_fits(tmp_path):
    heard: list[Any] = []

    def play(messages: list[Any]) -> str:
        if messages[0].type == "system":
            return "```repl\nFINAL(rlm_query('What is this?', context[:1_100_000]))\n```"
        heard.append(messages[0].content)
        return "lines"

    rlm = create_rlm(FunctionModel(function=play), sandbox="cpython", home=tmp_path)
    assert rlm.invoke({"query": "q", "context": LONG})["answer"] == "lines"
    assert LONG[:1_100_000] in heard[0]


@pytest.mark.parametrize("begins", ["%PDF-1.7 it says", "PK\x03\x04", "\ufeffwith a mark", "\x7fELF"])
def test_a_piece_is_text_whatever_it_begins_with(store, begins):
    text = "x" * 1000 + begins + LONG
    call = asked(store, Limits(), "rlm_query('q', context[1000:])", text)
    assert store.load(store.reference_from_repl(call.context)) == text[1000:]


def test_an_estimate_counts_what_a_leaf_reads_of_a_piece(tmp_path):
    code = "FINAL(rlm_query('q', context[:1_100_000]))"
    budget = Budget(approve_above_usd=0.5, output_tokens=10)
    rlm = create_rlm(
        script(code),
        sandbox="cpython",
        budget=budget,
        prices={"function": Price(1.0, 1.0)},
        home=tmp_path,
        checkpointer=InMemorySaver(),
    )
    paused = rlm.invoke({"query": "q", "context": LONG}, {"configurable": {"thread_id": "t"}})
    assert paused["__interrupt__"][0].value["estimated_usd"] > 0.5


def test_a_reply_of_the_child_comes_back_into_the_cell(store, limits):
    session = CPythonSandbox().open(store.open(store.reference(LONG)), "", limits)
    assert isinstance(session.run("print(rlm_query('q', context[:2_000_000]))"), Suspended)
    assert session.resume([Reply("there")]).stdout == "there\n"
    session.close()
