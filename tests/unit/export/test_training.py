"""Training data are what models have read and replied, word for word, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, ConfigurationError, InputError, create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.export.training import DataSet, Filters, FinishedRun, data_set, write
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.trajectory.tree import flatten
from tests.records import RecordBuilder, nested

ROLES = {"system": "system", "human": "user", "ai": "assistant"}
CELLS = (
    "x = llm_query('short')\nprint(x)",
    "llm_query_batched(['long ' * 100 + str(i) for i in range(3)])\nz = rlm_query('child of it?', 'text')\n1/0",
    "FINAL([x, z])",
)


def scripted_run(query: Any = "What is asked?", **options: Any) -> tuple[list[tuple[Any, ...]], Any]:
    """Run a scripted RLM. Returns what its models have read and replied, and its output."""
    heard = []
    model = script(*CELLS, children={"child of it?": ["print(context)", "FINAL(llm_query('below'))"]})

    def reply(messages: list[BaseMessage]) -> str:
        said = str(model.function(messages))
        heard.append((*((ROLES[one.type], str(one.content)) for one in messages), ("assistant", said)))
        return said

    rlm = create_rlm(FunctionModel(function=reply), budget=Budget(depth=2), **options)
    return heard, rlm.invoke(query, {"configurable": {"thread_id": "t"}})


def conversations(data: DataSet, *kinds: str) -> list[tuple[Any, ...]]:
    found = [one for (kind, _), all_of_it in data.lines.items() if kind in kinds for one in all_of_it.values()]
    return [tuple((message["role"], message["content"]) for message in one["messages"]) for one in found]


@pytest.mark.parametrize("query", ["What is asked?", "What is asked? " * 3_000, {"query": "?", "context": "short"}])
def test_each_reply_is_an_example_with_the_messages_before_it(query: Any) -> None:
    heard, output = scripted_run(query, checkpointer=InMemorySaver())
    data = data_set([FinishedRun(output["trajectory"])], store=ContextStore())
    assert sorted(conversations(data, "turns", "sub_calls")) == sorted(set(heard))
    assert data.left_out == {}
    longest = max(heard, key=len)
    assert longest in conversations(data, "rollouts")
    flat = data_set([FinishedRun([*flatten(output["trajectory"])])], store=ContextStore())
    assert sorted(conversations(flat, "turns", "sub_calls")) == sorted(set(heard)), "a trace is as good as a result"


def test_examples_with_missing_text_are_left_out_and_counted() -> None:
    _, output = scripted_run("What is asked? " * 3_000)
    data = data_set([FinishedRun(output["trajectory"])])
    assert data.left_out["sub_calls: the full prompt is missing"] == 3
    assert data.left_out["turns: a text that they refer to is missing"] == 3
    assert all("..." not in content for line in conversations(data, "sub_calls") for _, content in line)


def test_bad_replies_and_calls_that_were_not_made_are_left_out() -> None:
    run = RecordBuilder().question().turn(0, "")
    run.records[-1]["flaw"] = "empty"  # type: ignore[typeddict-unknown-key]
    run.turn(1, "Go.", "ask()").cell(0, "ask()", 1).wave(0, 0, 5)
    run.call(0, 4, kind="vision", images=["a.png"])
    run.call(0, 0, error="no").call(0, 1, flaw="cut", prompt_chars=9).call(0, 2, memo=True).call(
        0, 3, prompt_chars=9
    )
    data = data_set([FinishedRun(run.output(0, "").answer("yes").records)])
    assert len(conversations(data, "turns")) == len(conversations(data, "sub_calls")) == 1
    assert sum(data.left_out.values()) == 5
    assert data.left_out["sub_calls: about pictures, which no record has"] == 1


def test_filters_choose_runs_by_status_cost_and_reward() -> None:
    runs = [
        FinishedRun(RecordBuilder().question(f"Number {i}?").turn(0, f"turn {i}").answer(i, status).records)
        for i, status in enumerate(["complete", "partial", "failed", "complete"])
    ]
    runs.append(FinishedRun(RecordBuilder().question().turn(0, "never ended").records))

    def chosen(score: Any = None, **filters: Any) -> list[str]:
        data = data_set(runs, filters=Filters(**filters), score=score)
        assert data.runs + sum(data.left_out.values()) == len(runs)
        return sorted(line[-1][1] for line in conversations(data, "turns"))

    assert chosen() == ["turn 0", "turn 3"]
    assert chosen(only_complete=False) == ["turn 0", "turn 1", "turn 3"]
    assert chosen(lambda question, answer: answer["answer"] / 3, min_reward=0.5) == ["turn 3"]
    assert chosen(max_usd=0.5) == ["turn 0", "turn 3"]
    assert chosen(max_usd=0.49) == []
    with pytest.raises(ConfigurationError, match="min_reward needs a scorer"):
        chosen(min_reward=1)
    with pytest.raises(ConfigurationError, match="held_out=2 is not a share"):
        data_set([], held_out=2)


@given(st.lists(st.text(max_size=20), max_size=30), st.floats(0, 1))
def test_no_question_is_in_both_splits(questions: list[str], share: float) -> None:
    data = DataSet(share)
    for question in questions:
        assert data.split_of(question) == data.split_of(f" {question}\n")
        assert share > 0 or data.split_of(question) == "train"
        assert share < 1 or data.split_of(question) == "held_out"


def test_equal_examples_are_written_once_and_the_card_counts_them(tmp_path: Path) -> None:
    runs = [FinishedRun(nested())] * 2
    data = data_set(runs, held_out=0, score=lambda question, answer: 1.0)
    files = write(data, tmp_path / "neutral", "neutral")
    assert [path.name for path in files] == [
        "rollouts.train.jsonl",
        "sub_calls.train.jsonl",
        "turns.train.jsonl",
        "README.md",
    ]
    turns = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert [(turn["path"], turn["model"], turn["reward"]) for turn in turns] == [
        ("", "root", 1.0),
        ("", "root", 1.0),
        ("1", "root", 1.0),
    ]
    card = files[-1].read_text()
    assert "| turns | train | 3 |" in card
    assert "- 3 turns: duplicate" in card
    assert "Rewards: 1 to 1" in card
    files = write(data, tmp_path / "openai")
    assert all(json.loads(line).keys() == {"messages"} for line in files[2].read_text().splitlines())
    with pytest.raises(InputError, match="is not empty"):
        write(data, tmp_path / "openai")
