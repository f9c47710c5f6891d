"""A thread is a conversation: a question finds the REPL, the variables and the contexts of those before it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    JournalError,
    ModelError,
    RLMOutput,
    Strategy,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

THREAD: Any = {"configurable": {"thread_id": "talk"}}
SANDBOXES = ("cpython", "monty")


def talker(*turns: str, leaf=lambda prompt: f"<{prompt}>"):
    """Plays its cells over all questions of a thread, one for each turn."""
    return script(*turns, leaf=leaf)


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    def go(rlm: Any, input: Any) -> RLMOutput:
        return rlm.invoke(input, THREAD) if request.param == "invoke" else asyncio.run(rlm.ainvoke(input, THREAD))

    return go


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_the_next_question_finds_the_variables_and_the_context(ask, sandbox):
    saver = InMemorySaver()
    cells = ("n = len(context)\nword = llm_query('a')\nFINAL(n)", "FINAL([n, word, context[:3]])")
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return prompt.upper()

    rlm = create_rlm(talker(*cells, leaf=leaf), sandbox=sandbox, checkpointer=saver)
    assert ask(rlm, {"query": "one", "context": "abcdef"})["answer"] == 6
    second = ask(rlm, "two")
    assert second["answer"] == [6, "A", "abc"]
    assert (second["iterations"], second["sub_calls"], asked) == (1, 0, ["a"])
    assert second["usage"]["root"]["calls"] == 1


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_new_context_adds_to_the_first_one(ask, sandbox):
    cells = ("FINAL(context)", "FINAL([context, context_1])", "FINAL([context, context_1, context_2])")
    rlm = create_rlm(talker(*cells), sandbox=sandbox, checkpointer=InMemorySaver())
    assert ask(rlm, {"query": "1", "context": "first"})["answer"] == "first"
    assert ask(rlm, {"query": "2", "context": ["second"]})["answer"] == ["first", ["second"]]
    assert ask(rlm, {"query": "3", "context": "third"})["answer"] == ["first", ["second"], "third"]


def test_a_context_that_is_there_is_not_added_again(ask):
    cells = ("FINAL(1)", "FINAL(['context_1' in globals(), context])")
    rlm = create_rlm(talker(*cells), sandbox="cpython", checkpointer=InMemorySaver())
    ask(rlm, {"query": "1", "context": "same"})
    assert ask(rlm, {"query": "2", "context": "same"})["answer"] == [False, "same"]


def test_a_name_that_the_cells_use_is_not_taken_from_them(ask):
    cells = ("context_1 = 'mine'\nFINAL(1)", "FINAL([context_1, context_2])")
    rlm = create_rlm(talker(*cells), sandbox="cpython", checkpointer=InMemorySaver())
    ask(rlm, {"query": "1", "context": "first"})
    assert ask(rlm, {"query": "2", "context": "second"})["answer"] == ["mine", "second"]


def test_the_first_context_may_come_with_a_later_question(ask):
    rlm = create_rlm(talker("x = 1\nFINAL([context])", "FINAL([x, context])"), checkpointer=InMemorySaver())
    assert ask(rlm, "1")["answer"] == [None]
    assert ask(rlm, {"query": "2", "context": "late"})["answer"] == [1, "late"]


def test_each_root_prompt_of_a_conversation_begins_with_the_one_before(ask):
    prompts: list[list[tuple[str, str]]] = []

    def play(messages):
        prompts.append([(m.type, m.content) for m in messages])
        return "```repl\nprint(1)\nFINAL(2)\n```"

    rlm = create_rlm(FunctionModel(function=play), checkpointer=InMemorySaver())
    for question in ("first?", "second?", "third?"):
        ask(rlm, {"query": question, "context": "a novel"})
    for before, after in itertools.pairwise(prompts):
        assert after[: len(before)] == before
        assert len(after) > len(before)
    assert "third?" in prompts[-1][-1][1]
    assert "a novel" not in prompts[-1][-1][1]


def test_a_question_in_the_place_of_a_resume_gives_the_unfinished_cell_up(ask):
    def play(messages):
        if messages[0].type != "system":
            raise ValueError("down")
        turns = sum(m.type == "ai" for m in messages)
        if turns == 1 and "down" not in state:
            raise ValueError("down")
        return f"```repl\n{cells[turns]}\n```"

    state: set[str] = set()
    cells = ["x = 1\nllm_query('lost')\ny = 2", "FINAL([x, 'y' in globals()])"]
    seen: list[Any] = []
    saver = InMemorySaver()
    rlm = create_rlm(FunctionModel(function=play), sandbox="cpython", checkpointer=saver)
    with pytest.raises(ModelError):
        ask(rlm, "1")
    state.add("down")
    output = ask(rlm, "2")
    seen = [record["text"] for record in output["trajectory"] if record["type"] == "output"]
    assert output["answer"] == [1, False]
    assert "LLMError" in seen[0]


def test_a_cell_that_waits_when_another_question_comes_leaves_nothing_behind(ask):
    from rlm_langchain import Budget

    code = "x = 1\ny = llm_query_batched(['a', 'b'])"
    rlm = create_rlm(
        talker("before = 0", code, "FINAL([before, 'x' in globals(), 'y' in globals()])"),
        sandbox="cpython",
        budget=Budget(approve_above_calls=3),
        checkpointer=InMemorySaver(),
    )
    assert "__interrupt__" in ask(rlm, "1")
    output = ask(rlm, "2")
    assert output["answer"] == [0, False, False]
    given_up = [record for record in output["trajectory"] if record["type"] == "output"][1]
    assert "given up" in given_up["text"]


def test_strategies_that_come_with_a_later_question_are_told_of(ask):
    shout = Strategy("shout", "loud", "Use `shout(text)`.", "def shout(text):\n    return text.upper() + '!'")
    saver, heard = InMemorySaver(), []

    def play(messages):
        heard.append([str(message.content) for message in messages])
        return "```repl\nFINAL(shout(a))\n```" if len(heard) > 1 else "```repl\na = 'one'\nFINAL(a)\n```"

    ask(create_rlm(FunctionModel(function=play), checkpointer=saver), "1")
    louder = create_rlm(FunctionModel(function=play), checkpointer=saver, strategies=shout)
    assert ask(louder, "2")["answer"] == "ONE!"
    assert ask(louder, "3")["answer"] == "ONE!"
    assert sum("Use `shout(text)`." in text for text in heard[-1]) == 1, "once"
    assert heard[1][: len(heard[0])] == heard[0]


def test_a_context_that_changed_between_two_questions_is_refused(ask, tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("once upon a time")
    rlm = create_rlm(talker("FINAL(len(context))", "FINAL(context)"), checkpointer=InMemorySaver())
    assert ask(rlm, {"query": "1", "context": file})["answer"] == 16
    file.write_text("once upon a crime")
    with pytest.raises(JournalError, match=r"book\.txt"):
        ask(rlm, "2")
