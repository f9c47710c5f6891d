"""A context that fits the root model's window with ease is read, not programmed about: by the same machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from rlm_langchain import (
    Budget,
    Price,
    Strategy,
    create_rlm,
)
from rlm_langchain.models.registry import resolve
from rlm_langchain.testing.models import FunctionModel

TEXT = "The lease was signed by Ada Byrne.\n```\nIt was the year 1931.\n" + " ".join(
    f"Then came day {n}, and nothing else happened." for n in range(20)
)

SIZE = 2_000
"""Tokens of a text."""


class Reader:
    """Answers what it is told to, and remembers what it was shown."""

    def __init__(self, *says: str) -> None:
        self.says, self.seen = says, []
        self.chat = FunctionModel(function=self)

    def __call__(self, messages):
        self.seen.append([str(message.content) for message in messages])
        return self.says[min(len(self.seen), len(self.says)) - 1]

    def model(self, window=None, profile="default"):
        return replace(resolve(self.chat, "root"), window=window, profile=profile)


def test_a_short_context_is_in_the_prompt_and_words_are_the_answer():
    reader = Reader("Ada Byrne")
    output = create_rlm(reader.model(128_000), strategies="auto").completion("Who signed?", TEXT)
    assert (output["answer"], output["status"], output["stop_reason"]) == ("Ada Byrne", "complete", "prose")
    assert (output["iterations"], output["sub_calls"], output["usage"]["root"]["calls"]) == (1, 0, 1)
    assert TEXT.strip() in reader.seen[0][1]
    assert output["usage"]["root"]["input"] > len(TEXT.split())


def test_the_trajectory_says_so_and_does_not_hold_the_text():
    output = create_rlm(Reader("Ada").model(128_000), strategies="auto").completion("Who signed?", TEXT)
    question = output["trajectory"][0]
    assert (question["strategies"], question["chosen"], question["whole"]) == (["direct"], True, True)
    assert TEXT[300:600] not in json.dumps(output["trajectory"])


def test_code_still_works_and_its_prompts_are_a_prefix_chain():
    reader = Reader("```repl\nprint(context.count('day'))\n```", "```repl\nFINAL('20')\n```")
    output = create_rlm(reader.model(128_000), strategies="auto").completion("How often 'day'?", TEXT)
    assert (output["answer"], output["stop_reason"]) == ("20", "answer")
    first, second = reader.seen
    assert second[: len(first)] == first
    assert "20" in second[-1]


@pytest.mark.parametrize(
    ("window", "profile", "budget", "whole"),
    [
        (128_000, "default", Budget(), True),
        (None, "default", Budget(), True),
        (4 * SIZE, "default", Budget(), True),
        (4 * SIZE - 8, "default", Budget(), False),
        (None, "default", Budget(tokens=60_000), True),
        (128_000, "default", Budget(tokens=60_000), True),
        (128_000, "default", Budget(tokens=4 * SIZE - 8), False),
        (128_000, "default", Budget(usd=0.06), True),
        (128_000, "default", Budget(usd=4e-6 * (SIZE - 2)), False),
    ],
)
def test_it_takes_a_small_share_of_the_window_and_of_the_budget(window, profile, budget, whole):
    reader, text = Reader("```repl\nFINAL(1)\n```"), "x" * 4 * SIZE
    rlm = create_rlm(
        reader.model(window, profile), strategies="auto", budget=budget, prices={"function": Price(1.0, 1.0)}
    )
    output = rlm.completion("q", text)
    assert (text in reader.seen[0][1]) is whole
    assert output["trajectory"][0].get("whole", False) is whole


@pytest.mark.parametrize(("profile", "tokens"), [("default", 16_384), ("compact", 2_048)])
def test_a_long_text_is_never_read_whole_however_wide_the_window(profile, tokens):
    for size, whole in ((4 * tokens, True), (4 * tokens + 8, False)):
        reader = Reader("```repl\nFINAL(1)\n```")
        create_rlm(reader.model(1_000_000, profile), strategies="auto").completion("q", "x" * size)
        assert ("x" * size in "".join(reader.seen[0])) is whole


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ({"a.txt": "one\ntwo", "b.txt": "three"}, "### a.txt\none\ntwo\n\n### b.txt\nthree"),
        (["one", "two"], "### 0\none\n\n### 1\ntwo"),
        ([{"id": 7, "name": "Köln"}], '"name": "Köln"'),
    ],
)
def test_any_kind_of_context_is_shown_as_it_is_read_best(context, shown):
    reader = Reader("done")
    create_rlm(reader.model(128_000), strategies="direct").completion("q", context)
    assert shown in reader.seen[0][1]


def test_it_is_asked_for_by_name_too_and_left_out_where_the_context_is_longer():
    reader = Reader("```repl\nFINAL(count('x'))\n```")
    output = create_rlm(reader.model(128_000), strategies=["direct", "grep"]).completion("q", "x" * 200_000)
    assert output["answer"] == 200_000
    assert output["trajectory"][0]["strategies"] == ["grep"]
    assert "all of it" not in reader.seen[0][1]


def test_without_it_nothing_is_shown():
    reader = Reader("```repl\nFINAL(1)\n```")
    output = create_rlm(reader.model(128_000), strategies=["grep"]).completion("q", TEXT)
    assert TEXT[400:] not in reader.seen[0][1]
    assert "whole" not in output["trajectory"][0]


def test_a_strategy_of_ones_own_may_want_the_context_whole():
    own = Strategy("skim", "Short texts.", "Skim it.", whole=0.01)
    for window, whole in ((128_000, True), (10_000, False)):
        reader = Reader("```repl\nFINAL(1)\n```")
        create_rlm(reader.model(window), strategies=own).completion("q", TEXT)
        assert (TEXT.strip() in reader.seen[0][1]) is whole
        assert ("Skim it." in reader.seen[0][1]) is whole


def test_a_typed_answer_is_an_instance_of_its_type():
    class Signer(BaseModel):
        name: str

    reader = Reader("Ada it was", '{"name": "Ada"}')
    output = create_rlm(reader.model(128_000), strategies="auto", output_schema=Signer).completion("q", TEXT)
    assert output["answer"] == Signer(name="Ada")
    assert output["iterations"] == 2


def test_a_child_run_reads_its_short_piece():
    child, root = Reader("Ada"), Reader("```repl\nFINAL(rlm_query('Who?', context[:500]))\n```")
    rlm = create_rlm(
        root.model(600), recursive_model=child.model(128_000), strategies="auto", budget=Budget(depth=2)
    )
    output = rlm.completion("q", TEXT)
    assert output["answer"] == "Ada"
    assert TEXT[:500].strip() in child.seen[0][1]
    assert TEXT[600:] not in "".join(root.seen[0])


def test_a_thread_that_goes_on_shows_it_once():
    reader = Reader("Ada", "```repl\nFINAL(len(context))\n```")
    rlm = create_rlm(reader.model(128_000), strategies="auto", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    rlm.invoke({"query": "Who?", "context": TEXT}, config)
    assert rlm.invoke({"query": "How long?", "context": TEXT}, config)["answer"] == len(TEXT)
    assert reader.seen[1][: len(reader.seen[0])] == reader.seen[0]
    assert sum(message.count("Then came day 19") for message in reader.seen[1]) == 1


def test_a_resumed_run_is_asked_the_same_again():
    turns = iter(["```repl\nn = len(context)\n```", RuntimeError("down"), "```repl\nFINAL(n)\n```"])
    seen = []

    def play(messages):
        seen.append([str(message.content) for message in messages])
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    rlm = create_rlm(FunctionModel(function=play), strategies="auto", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke({"query": "q", "context": TEXT}, config)
    assert rlm.invoke(None, config)["answer"] == len(TEXT)
    assert seen[1] == seen[2]
    assert TEXT.strip() in seen[2][1]
