"""A thread is a conversation: a question finds the REPL, the variables and the contexts of those before it."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    JournalError,
    Limits,
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


@pytest.mark.parametrize("then", [None, "and?"])
def test_the_receipts_that_a_kill_after_the_answer_has_left_are_removed(ask, home, then):
    held: dict[Any, bytes] = {}

    def leaf(prompt: str) -> str:
        held.update({path: path.read_bytes() for path in (home / "receipts").iterdir()})
        return prompt

    rlm = create_rlm(script("FINAL(llm_query('x'))", leaf=leaf), sandbox="monty", checkpointer=InMemorySaver())
    ask(rlm, "q")
    for path, receipts in held.items():  # as they were before its process could remove them
        path.write_bytes(receipts)
    assert ask(rlm, then)["answer"] == "x"
    assert [path for path in held if path.exists()] == []
    assert held


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
    abandoned = [record for record in output["trajectory"] if record["type"] == "output"][1]
    assert "abandoned" in abandoned["text"]


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


def prompts_of(*turns: str, heard: list[str]) -> FunctionModel:
    """A model that plays its turns, one for each prompt, and keeps the last message of each."""

    def play(messages):
        heard.append(str(messages[-1].content))
        turn = turns[sum(message.type == "ai" for message in messages)]
        return turn if turn.startswith("=") else f"```repl\n{turn}\n```"

    return FunctionModel(function=play)


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_follow_up_question_finds_what_was_asked_and_answered_before(ask, sandbox):
    heard: list[str] = []
    turns = (
        "FINAL('It sank' + ' in 1912.')",
        "FINAL({'shorter': earlier[0]['answer'][:7], 'n': len(earlier)})",
        "FINAL([[one['question'], one['answer'], one['status']] for one in earlier])",
    )
    rlm = create_rlm(prompts_of(*turns, heard=heard), sandbox=sandbox, checkpointer=InMemorySaver())
    ask(rlm, {"query": "What happened?", "context": "a text"})
    assert "earlier" not in heard[0]
    assert ask(rlm, "Make that shorter.")["answer"] == {"shorter": "It sank", "n": 1}
    assert "It sank in 1912." in heard[1]
    assert "What happened?" in heard[1]
    assert "`earlier`" in heard[1]
    assert ask(rlm, "List it all.")["answer"] == [
        ["What happened?", "It sank in 1912.", "complete"],
        ["Make that shorter.", {"shorter": "It sank", "n": 1}, "complete"],
    ]
    assert '{"shorter": "It sank", "n": 1}' in heard[2]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_earlier_questions_are_as_they_were_when_cells_are_run_again(sandbox, tmp_path):
    """In a process that is new, on a fork, and after a cell that changed the list: each cell sees what it saw."""
    turns = (
        "FINAL('one')",
        "n = len(earlier)\nword = llm_query(f'said {n}')\nearlier.append('mine')\nFINAL([n, word])",
        "FINAL([n, word, len(earlier), earlier[1]['answer']])",
        "FINAL([n, len(earlier)])",
    )
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return f"<{prompt}>"

    def new() -> Any:
        return create_rlm(talker(*turns, leaf=leaf), sandbox=sandbox, checkpointer=saver, home=tmp_path)

    saver = InMemorySaver()
    new().invoke({"query": "1", "context": "text"}, THREAD)
    assert new().invoke("2", THREAD)["answer"] == [1, "<said 1>"]
    third = [1, "<said 1>", 2, [1, "<said 1>"]]
    assert new().invoke("3", THREAD)["answer"] == third
    rlm = new()
    assert rlm.invoke(None, rlm.fork(THREAD, at=3))["answer"] == third
    assert rlm.invoke("4", rlm.fork(THREAD))["answer"] == [1, 3]
    assert asked == ["said 1"]


def test_a_long_answer_is_whole_in_the_repl_and_its_length_is_told(ask, tmp_path):
    heard: list[str] = []
    turns = (
        "FINAL('start ' + 'x' * 3_000_000 + ' end')",
        "FINAL([len(earlier[0]['answer']), earlier[0]['answer'][-3:]])",
    )
    rlm = create_rlm(prompts_of(*turns, heard=heard), checkpointer=InMemorySaver(), limits=Limits(value=10_000_000))
    ask(rlm, "Long, please.")
    assert ask(rlm, "How long?")["answer"] == [3_000_010, "end"]
    assert "3,000,010 characters" in heard[1]
    assert len(heard[1]) < 10_000
    records = rlm.graph.get_state(THREAD).values["trajectory"]
    [_, question] = [record for record in records if record["type"] == "question"]
    assert len(str(question)) < 20_000


def test_questions_without_a_whole_answer_say_so(ask):
    heard: list[str] = []
    statuses = "[[one['answer'], one['status']] for one in earlier]"
    saver = InMemorySaver()
    some = ("print(1)", "print(2)", "=some of it")
    turns = ("FINAL(None)", "FINAL(None)", *some, f"FINAL({statuses})")
    rlm = create_rlm(prompts_of(*turns, heard=heard), checkpointer=saver, budget=Budget(iterations=2))
    assert ask(rlm, "none?")["status"] == "failed"
    assert ask(rlm, "some?")["status"] == "partial"
    assert "`earlier[0]`, failed, without an answer" in heard[2]
    assert ask(rlm, "so?")["answer"] == [[None, "failed"], ["=some of it", "partial"]]
    assert "`earlier[1]`, partial" in heard[5]


def test_a_question_that_was_given_up_is_told_as_such(ask):
    turns = ("x = llm_query_batched(['a', 'b'])", "FINAL([[one['answer'], one['status']] for one in earlier])")
    rlm = create_rlm(talker(*turns), budget=Budget(approve_above_calls=1), checkpointer=InMemorySaver())
    assert "__interrupt__" in ask(rlm, "1")
    assert ask(rlm, "2")["answer"] == [[None, "given up"]]


def test_a_variable_that_is_called_earlier_is_left_alone(ask):
    turns = ("earlier = 'mine'\nFINAL(1)", "FINAL([earlier, earlier_1[0]['answer']])")
    rlm = create_rlm(talker(*turns), checkpointer=InMemorySaver())
    ask(rlm, "1")
    assert ask(rlm, "2")["answer"] == ["mine", 1]
