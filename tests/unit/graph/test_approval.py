"""A person is asked before a fan-out that costs more than was agreed. Nothing is paid twice, whatever is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Interrupt

from rlm_langchain import (
    Budget,
    ConfigurationError,
    InputError,
    Price,
    RLMRunnable,
    create_rlm,
    create_rlm_graph,
)
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.graph.nodes.approve import answered, questions
from rlm_langchain.testing.models import FunctionModel, script

CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    """Both ways to ask."""

    def go(rlm: RLMRunnable, input: Any) -> Any:
        return rlm.invoke(input, CONFIG) if request.param == "invoke" else asyncio.run(rlm.ainvoke(input, CONFIG))

    return go


class Leaves:
    """Leaf calls: what was asked, how often."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, prompt: str) -> str:
        self.asked[prompt] += 1
        return prompt.upper()


def forgetful(rlm: RLMRunnable) -> RLMRunnable:
    """The same RLM in a new process: it has the saver, and nothing else."""
    return rlm.model_copy()


def test_below_what_was_agreed_nobody_is_asked(ask):
    leaves = Leaves()
    model = script("FINAL(llm_query_batched(['a', 'b', 'c']))", leaf=leaves)
    output = ask(create_rlm(model, budget=Budget(approve_above_calls=4), checkpointer=InMemorySaver()), "q")
    assert (output["answer"], questions(output)) == (["A", "B", "C"], [])


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "new process"])
def test_a_run_goes_on_in_the_middle_of_the_cell_and_pays_nothing_twice(ask, restart):
    leaves = Leaves()
    code = "a = llm_query('a')\nprint('seen', a)\nb = llm_query_batched(['b', 'c'])\nFINAL([a] + b)"
    rlm = create_rlm(script(code, leaf=leaves), budget=Budget(approve_above_calls=3), checkpointer=InMemorySaver())
    paused = ask(rlm, "q")
    (question,) = questions(paused)
    assert (question["calls"], question["spent_calls"], question["path"]) == (2, 2, "")
    assert leaves.asked == {"a": 1}
    output = ask(forgetful(rlm) if restart else rlm, answered(paused, lambda _: True))
    assert output["answer"] == ["A", "B", "C"]
    assert leaves.asked == {"a": 1, "b": 1, "c": 1}
    assert output["usage"]["root"]["calls"] == 1
    assert output["sub_calls"] == 3


def test_what_was_granted_lasts_until_as_much_again_is_spent(ask):
    code = "r = [llm_query_batched([f'{i} {k}' for k in range(2)]) for i in range(6)]\nFINAL(len(r))"
    rlm = create_rlm(script(code), budget=Budget(approve_above_calls=4), checkpointer=InMemorySaver())
    output, spent = ask(rlm, "q"), []
    while asked := questions(output):
        spent.append((asked[0]["spent_calls"], asked[0]["until"]["calls"]))
        output = ask(rlm, answered(output, lambda _: True))
    assert output["answer"] == 6
    assert spent == [(3, 9), (9, 15)]


def test_who_is_declined_sees_an_error_and_may_go_on_without(ask):
    code = """
a = llm_query('a')
try:
    b = llm_query('b')
except LLMError as e:
    b = str(e)
FINAL([a, b])
"""
    rlm = create_rlm(script(code), budget=Budget(approve_above_calls=2), checkpointer=InMemorySaver())
    output = ask(rlm, answered(ask(rlm, "q"), lambda _: False))
    assert output["answer"] == ["<a>", "a person declined this call"]
    assert (output["sub_calls"], output["status"], output["degraded"]) == (1, "partial", {"declined": 1})


def test_dollars_are_told_and_counted(ask):
    def play(messages: Any) -> str:
        if messages[0].type != "system":
            return "word " * 100
        return "```repl\nFINAL(len(llm_query_batched([str(i) for i in range(10)])))\n```"

    rlm = create_rlm(
        FunctionModel(function=play),
        budget=Budget(approve_above_usd=0.5, output_tokens=200),
        prices={"function": Price(input=0.0, output=1_000.0)},
        checkpointer=InMemorySaver(),
    )
    paused = ask(rlm, "q")
    (question,) = questions(paused)
    assert question["estimated_usd"] == pytest.approx(10 * 200 / 1_000)
    assert 0 < question["spent_usd"] < 0.5
    output = ask(rlm, answered(paused, lambda _: True))
    assert (output["answer"], output["sub_calls"]) == (10, 10)


KIDS = {
    "ROOT": "FINAL(rlm_query_batched(['KID a', 'KID b', 'KID c'], ['a', 'b', 'c']))",
    "KID": "x = llm_query('first ' + context)\ny = llm_query_batched([context + str(i) for i in range(3)])\n"
    "FINAL([x] + y)",
}


def family(leaves: Leaves, **options: Any) -> RLMRunnable:
    def play(messages: Any) -> str:
        if messages[0].type != "system":
            return leaves(messages[0].content)
        return f"```repl\n{KIDS['KID' if 'KID' in messages[1].content else 'ROOT']}\n```"

    return create_rlm(
        FunctionModel(function=play),
        budget=Budget(depth=2, approve_above_calls=10),
        checkpointer=InMemorySaver(),
        **options,
    )


def decision(*kinds: str, **more: Any) -> dict[str, Any]:
    """As LangChain's middleware writes what a person has decided."""
    return {"decisions": [{"type": kind, **more} for kind in kinds]}


YES = [True, {"approve": True}, decision("approve"), decision("approve", "approve")]
NO = [False, {"approve": False}, decision("reject"), decision("reject", message="too dear")]
NEITHER = [
    None,
    "yes",
    "no",
    1,
    0,
    "",
    [],
    [True],
    {},
    {"approve": "yes"},
    {"approve": 1},
    {"approved": True},
    {"approve": True, "decisions": []},
    decision(),
    decision("edit"),
    decision("approve", "reject"),
    decision("approve", edited_action={}),
    {"decisions": [True]},
    {"decisions": {"type": "approve"}},
    {"type": "approve"},
]


@pytest.mark.parametrize(
    ("said", "answer"), [*((said, "A") for said in YES), *((said, "a person declined this call") for said in NO)]
)
@pytest.mark.parametrize("by_id", [False, True], ids=["plain", "by id"])
def test_what_a_person_may_say(ask, said, answer, by_id):
    code = "try:\n    a = llm_query('a')\nexcept LLMError as e:\n    a = str(e)\nFINAL(a)"
    model = script(code, leaf=Leaves())
    rlm = create_rlm(model, budget=Budget(approve_above_calls=1), checkpointer=InMemorySaver(), sandbox="monty")
    paused = ask(rlm, "q")
    resume = answered(paused, lambda _: said) if by_id else Command(resume=said)
    output = ask(rlm, resume)
    assert output["answer"] == answer
    (note,) = [one["text"] for one in output["trajectory"] if one["type"] == "note"]
    word = "approved" if answer == "A" else "declined"
    assert note == f"a person {word} 1 calls{': too dear' if 'message' in str(said) else ''}"


def plain(said: Any, question: dict[str, Any]) -> Command[Any]:
    return Command(resume=said)


def by_id(said: Any, question: dict[str, Any]) -> Command[Any]:
    return Command(resume={question["id"]: said})


@pytest.mark.parametrize("resume", [plain, by_id])
@pytest.mark.parametrize("below", [False, True], ids=["root", "child run"])
def test_what_is_neither_a_yes_nor_a_no_is_an_error_and_the_run_goes_on_waiting(ask, resume, below):
    leaves = Leaves()
    code = "FINAL(rlm_query('KID a', 'a'))" if below else "FINAL(llm_query('a'))"
    model = script(code, children={"KID": ["FINAL(llm_query('a'))"]}, leaf=leaves)
    budget = Budget(depth=2, approve_above_calls=2 if below else 1)
    rlm = create_rlm(model, budget=budget, checkpointer=InMemorySaver(), sandbox="monty")
    (question,) = questions(ask(rlm, "q"))
    assert question["path"] == ("0" if below else "")
    for said in NEITHER:
        with pytest.raises(InputError, match=r"resume with True or False, .*decisions"):
            ask(rlm, resume(said, question))
        with pytest.raises(InputError, match="resume with True or False"):
            answered({"__interrupt__": [Interrupt({"ask": "approve"}, id="1")]}, lambda _, said=said: said)
    assert leaves.asked == {}
    assert ask(forgetful(rlm), resume(True, question))["answer"] == "A"
    assert leaves.asked == {"a": 1}


def test_a_pause_says_what_is_asked_in_which_run_and_about_what(ask):
    long = "What is it? " * 1_000
    code = f"FINAL(rlm_query({'KID ' + long!r}, 'a'))"
    model = script(code, children={"KID": ["FINAL(llm_query_batched(['a', 'b']))"]})
    rlm = create_rlm(model, budget=Budget(depth=2, approve_above_calls=2), checkpointer=InMemorySaver())
    paused = ask(rlm, "q")
    (question,) = questions(paused)
    assert (question["path"], question["calls"]) == ("0", 2)
    assert question["about"] == [{"kind": "llm", "prompt": "a"}, {"kind": "llm", "prompt": "b"}]
    assert question["query"].startswith("KID What is it?")
    assert len(question["query"]) < 2_100, "a pause is in the checkpoint"
    assert question["question"] == (
        "2 sub-calls are about to be made (by the child run 0), for an unknown price; "
        "so far there were 2 model calls. Continue?"
    )


@pytest.mark.parametrize(
    ("limits", "pauses"),
    [
        ({"approve_above_calls": 3}, [{"calls": 11 + 3, "usd": None}]),
        ({"approve_above_usd": 1.0}, [{"calls": None, "usd": pytest.approx(2 + 0.2 + 1, abs=0.2)}]),
        ({"approve_above_usd": 1}, [{"calls": None, "usd": pytest.approx(2 + 0.2 + 1, abs=0.2)}]),
        ({"approve_above_calls": 3, "approve_above_usd": 50}, [{"calls": 11 + 3, "usd": 50}]),
        ({"approve_above_calls": 30, "approve_above_usd": 1}, [{"calls": 30, "usd": pytest.approx(3.2, abs=0.2)}]),
        ({"approve_above_calls": 30, "approve_above_usd": 50}, []),
    ],
)
def test_calls_and_dollars_are_two_limits_and_either_asks(ask, limits, pauses):
    def play(messages: Any) -> str:
        if messages[0].type != "system":
            return "word " * 100
        return "```repl\nFINAL(len(llm_query_batched([str(i) for i in range(10)])))\n```"

    rlm = create_rlm(
        FunctionModel(function=play),
        budget=Budget(**limits, output_tokens=200),
        prices={"function": Price(input=0.0, output=1_000.0)},
        checkpointer=InMemorySaver(),
    )
    output, asked = ask(rlm, "q"), []
    while one := questions(output):
        asked.append(one[0]["until"])
        output = ask(rlm, answered(output, lambda _: True))
    assert asked == pauses
    assert output["answer"] == 10


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "new process"])
def test_several_child_runs_ask_at_once_and_each_gets_its_own_answer(ask, restart):
    leaves = Leaves()
    rlm = family(leaves)
    paused = ask(rlm, "ROOT")
    asked = questions(paused)
    assert len(asked) >= 2  # three runs want three calls each, and at most three are left
    paths = sorted(question["path"] for question in asked)
    assert set(paths) <= {"0", "1", "2"}
    before = leaves.asked.copy()
    assert all(times == 1 for times in before.values())
    refused = paths[0]
    output = ask(forgetful(rlm) if restart else rlm, answered(paused, lambda one: one["path"] != refused))
    while more := questions(output):
        assert refused not in {one["path"] for one in more}
        output = ask(rlm, answered(output, lambda _: True))
    assert all(times == 1 for times in leaves.asked.values())
    answers = [json.loads(answer) for answer in output["answer"]]
    for number, (name, answer) in enumerate(zip("abc", answers, strict=True)):
        rest = [None] * 3 if str(number) == refused else [f"{name}{i}".upper() for i in range(3)]
        assert answer == [f"FIRST {name.upper()}", *rest]
    assert output["sub_calls"] == 3 + 3 + 6


def test_runs_that_fan_out_at_once_do_not_each_find_room_for_themselves(ask):
    """Twelve calls are agreed to, nine root turns are needed: of eight calls, one per run, three may go."""
    leaves = Leaves()

    def play(messages: Any) -> str:
        if messages[0].type != "system":
            return leaves(messages[0].content)
        kids = "FINAL(rlm_query_batched([f'KID {i}' for i in range(8)]))"
        return f"```repl\n{'FINAL(llm_query(str(context)))' if 'KID' in messages[1].content else kids}\n```"

    budget = Budget(depth=2, approve_above_calls=12)
    rlm = create_rlm(FunctionModel(function=play), budget=budget, checkpointer=InMemorySaver(), memo=False)
    paused = ask(rlm, "ROOT")
    assert sum(leaves.asked.values()) <= 12 - 9
    assert len(questions(paused)) == 8 - sum(leaves.asked.values())


def test_the_child_runs_of_a_fan_out_that_was_granted_need_not_ask_for_what_it_covers(ask):
    leaves = Leaves()
    rlm = family(leaves)
    wide = rlm.model_copy(update={"budget": Budget(depth=2, approve_above_calls=3)})
    paused = ask(wide, "ROOT")
    (question,) = questions(paused)
    assert (question["path"], question["calls"], question["until"]["calls"]) == ("", 3, 7)
    paused = ask(wide, answered(paused, lambda _: True))
    assert {one["path"] for one in questions(paused)} <= {"0", "1", "2"}
    assert leaves.asked.total() == 3  # "first a", "first b" and "first c" were within the seven


@pytest.mark.parametrize("above", [1, 5])
def test_without_a_saver_there_is_an_error_before_anything_is_asked(ask, above):
    asked: list[int] = []
    model = FunctionModel(function=lambda messages: asked.append(1) or "x")
    with pytest.raises(ConfigurationError, match="needs a checkpointer"):
        ask(create_rlm(model, budget=Budget(approve_above_calls=above)), "q")
    assert not asked


def test_the_saver_of_a_parent_graph_will_do():
    graph = create_rlm_graph(
        script("FINAL(llm_query_batched(['a', 'b']))"), budget=Budget(approve_above_calls=1)
    ).compile()
    parent = StateGraph(dict)
    parent.add_node("answer", lambda state: graph.invoke({"query": state["query"]}))
    parent.add_edge(START, "answer")
    parent.add_edge("answer", END)
    compiled = parent.compile(checkpointer=InMemorySaver())
    paused = compiled.invoke({"query": "q"}, CONFIG)
    assert len(questions(paused)) == 1
    assert compiled.invoke(answered(paused, lambda _: True), CONFIG)["answer"] == ["<a>", "<b>"]


def test_a_plain_resume_answers_a_single_question(ask):
    rlm = create_rlm(
        script("FINAL(llm_query('a'))"), budget=Budget(approve_above_calls=1), checkpointer=InMemorySaver()
    )
    ask(rlm, "q")
    assert ask(rlm, Command(resume=True))["answer"] == "<a>"


@pytest.mark.parametrize("way", ["runnable", "served graph"])
async def test_receipts_are_never_read_on_the_event_loop(way, monkeypatch):
    """They may be many, and others use the loop."""
    saver, readers, read = InMemorySaver(), [], Receipts._read

    def noted(self):
        readers.append((threading.get_ident(), self.path.exists()))
        return read(self)

    monkeypatch.setattr(Receipts, "_read", noted)
    options = {
        "root_model": script(
            "FINAL(llm_query('a') + llm_query('b') + rlm_query('KID', 'd'))",
            children={"KID": ["FINAL('C')"]},
            leaf=Leaves(),
        ),
        "budget": Budget(depth=2, approve_above_calls=1),
    }

    def anew():
        """The same in a new process."""
        if way == "runnable":
            return create_rlm(**options, checkpointer=saver)
        return create_rlm_graph(**options).compile(checkpointer=saver)

    asked = {"query": "q", "context": None}
    while "__interrupt__" in (output := await anew().ainvoke(asked, CONFIG)):
        asked = Command(resume=True)
    assert output["answer"] == "ABC"
    assert [there for _, there in readers].count(True) >= 2
    assert threading.get_ident() not in {thread for thread, _ in readers}
