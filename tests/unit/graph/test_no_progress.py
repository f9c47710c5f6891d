"""A root model that only repeats itself is warned, then stopped; a flawed reply is asked for again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, RLMOutput, create_rlm
from rlm_langchain.errors import JournalError
from rlm_langchain.graph.progress import (
    MAX_REPEATS,
    MAX_SAME_ERRORS,
    MAX_SILENT_REPEATS,
    MAX_SIMILAR_TURNS,
    SAME_ERRORS_TO_WARN,
    SIMILAR_TURNS_TO_WARN,
)
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.testing.models import FunctionModel, script

both_sandboxes = pytest.mark.parametrize("sandbox", ["cpython", "monty"])
WARNING = "You have done this before"


def player(cells: Sequence[str] | Callable[[int], str], leaf: Callable[[str], str | AIMessage]) -> FunctionModel:
    """A model whose turns are these cells, over and over, and whose last words are `known`."""

    def play(messages: list[BaseMessage]) -> str | AIMessage:
        if messages[0].type != "system":
            return leaf(str(messages[0].content))
        if "The run has to end now" in str(messages[-1].content):
            return "known"
        turn = sum(message.type == "ai" for message in messages)
        cell = cells(turn) if callable(cells) else cells[turn % len(cells)]
        return cell[6:] if cell.startswith("prose:") else f"```repl\n{cell}\n```"

    return FunctionModel(function=play)


def ran(
    cells: Sequence[str] | Callable[[int], str],
    sandbox: str = "cpython",
    leaf: Callable[[str], str | AIMessage] = lambda prompt: f"<{prompt}>",
    **options: Any,
) -> RLMOutput:
    return create_rlm(player(cells, leaf), sandbox=sandbox, **options).invoke("q")


def warnings(output: RLMOutput) -> list[int]:
    """The turns before which the model was warned, counted from 1."""
    turn, found = 0, []
    for record in output["trajectory"]:
        turn += record["type"] == "turn"
        if record["type"] == "note" and WARNING in record["text"]:
            found.append(turn + 1)
    return found


@both_sandboxes
@pytest.mark.parametrize(
    ("cells", "before"),
    [
        (["print(len('abc'))"], 1),
        (["x = 1"], 1),
        (["print(undefined)"], 1),
        (["x = (1"], 1),
        (["def f():\n    return undefined\nf()"], 1),
        (["print(1)", "print(1)  # again", "# so\nprint( 1 )", "print(\n    1\n)"], 1),
        (["1 / 0", "# once more\n1 / 0"], 1),
        (["print(1)", "print(2)"], 2),
        (["print(1)", "undefined", "x = 3"], 3),
        (["found = []\nfor n in range(3):\n    found.append(n)\nprint(found)"], 1),
        (["print(llm_query('a'))"], 1),
        (["print(1)\n```\n\n```repl\nprint(2)"], 1),
        (["prose:"], 1),
        (["prose: \n", "prose:"], 1),
    ],
)
def test_a_model_that_goes_round_in_circles_is_warned_and_then_asked_for_its_answer(sandbox, cells, before):
    output = ran(cells, sandbox)
    assert (output["status"], output["stop_reason"], output["answer"]) == ("partial", "no_progress", "known")
    assert output["iterations"] == before + MAX_REPEATS + 1
    assert warnings(output) == [*range(before + 2, before + MAX_REPEATS + 1)]


@both_sandboxes
@pytest.mark.parametrize(
    "play",
    [
        lambda turn: f"x{turn} = {turn}",
        lambda turn: f"print('done')\nx{turn} = {turn}",
        lambda turn: "print(budget())" if turn % 2 else f"llm_query('{turn}')",
        lambda turn: "n = 0" if not turn else "n += 1\nprint(n)",
        lambda turn: "n = 0" if not turn else "n += 1\nreply = llm_query(str(n))",
        lambda turn: "print(1)" if turn % 3 == 0 else f"print({turn}, 'seen')",
        lambda turn: f"raise ValueError('{'abcdefghijklmnop'[turn]} is wrong')",
        lambda turn: f"print('part {turn}')\nundefined",
        lambda turn: f"llm_query('part {turn}')\nundefined",
        lambda turn: f"prose:Thought {turn}." if turn % 2 else f"x = {turn}",
    ],
)
def test_a_run_that_gets_on_is_not_ended(sandbox, play):
    turns = MAX_SAME_ERRORS + 3
    output = ran(lambda turn: play(turn) if turn < turns else "FINAL('done')", sandbox)
    assert (output["answer"], output["status"], output["iterations"]) == ("done", "complete", turns + 1)


@pytest.mark.parametrize(
    ("first", "cell"),
    [
        ("n = 0", "n += 1"),
        ("n = [0]", "n[0] = n[0] + 1"),
        ("n = []", "n.append(1)"),
        ("n = iter(range(99))", "m = next(n)"),
        ("n = 0\ndef step():\n    global n\n    n = n + 1", "step()"),
        ("n, m = 0, 1", "n, m = m, n + m\nprint('ok')"),
    ],
)
def test_a_cell_that_may_move_something_on_in_silence_has_more_patience_but_not_for_ever(first, cell):
    output = ran(lambda turn: cell if turn else first)
    assert output["stop_reason"] == "no_progress"
    assert output["iterations"] == 2 + MAX_SILENT_REPEATS + 1
    done = ran(lambda turn: first if not turn else cell if turn <= MAX_SILENT_REPEATS else "FINAL('done')")
    assert (done["answer"], done["status"]) == ("done", "complete")


def test_a_tool_that_is_polled_has_more_patience_and_another_reply_is_progress():
    asked: list[int] = []

    def job(name: str) -> str:
        """The state of a job."""
        asked.append(1)
        return "pending" if len(asked) % MAX_SILENT_REPEATS else f"at {len(asked)}"

    turns = 3 * MAX_SILENT_REPEATS
    output = ran(lambda turn: "print(job('a'))" if turn < turns else "FINAL('done')", tools=[job])
    assert (output["answer"], len(asked)) == ("done", turns)


def test_other_code_with_the_same_error_is_warned_later_and_ended_later():
    output = ran(lambda turn: f"x = {turn}\nundefined")
    assert (output["stop_reason"], output["iterations"]) == ("no_progress", MAX_SAME_ERRORS + 1)
    told = [r for r in output["trajectory"] if r["type"] == "note" and "in this same error" in r["text"]]
    assert len(told) == MAX_SAME_ERRORS - SAME_ERRORS_TO_WARN


@both_sandboxes
@pytest.mark.parametrize(
    "play",
    [
        lambda turn: f"undefined{turn}",
        lambda turn: "abcdefghijk"[turn] * 3,
        lambda turn: f"raise ValueError('attempt {turn} failed at 0x7f{turn}a after {turn}.5 s')",
        lambda turn: f"print('loading')\n{{}}['key{turn}']",
        lambda turn: f"x = '{turn}'\nx.part{turn}",
        lambda turn: f"import package_{turn}",
        lambda turn: f"reply = llm_query('the same')\nint(f'x{turn}')",
        lambda turn: "\n" * turn + f"raise ValueError('no  {' ' * turn}such')  # {turn}",
    ],
)
def test_an_error_that_differs_by_a_number_or_a_name_is_the_same_error(sandbox, play):
    output = ran(play, sandbox)
    assert (output["stop_reason"], output["iterations"]) == ("no_progress", MAX_SAME_ERRORS + 1)


@both_sandboxes
@pytest.mark.parametrize(
    "play",
    [
        lambda turn: f"x{turn} = {turn}",
        lambda turn: f"attempt = {turn}\nprint('done')  # attempt {turn}",
        lambda turn: f"{'abcdefghijklmnop'[turn]}_text = context[:10]",
        lambda turn: f"reply_{turn} = llm_query('the same')\nprint(reply_{turn})",
    ],
)
def test_programs_that_are_alike_and_bring_the_same_are_warned_late_and_ended_late(sandbox, play):
    rlm = create_rlm(player(play, lambda prompt: "yes"), sandbox=sandbox)
    output = rlm.invoke({"query": "q", "context": "x" * 20_000})
    assert (output["stop_reason"], output["iterations"]) == ("no_progress", MAX_SIMILAR_TURNS + 2)
    assert warnings(output) == [*range(SIMILAR_TURNS_TO_WARN + 2, MAX_SIMILAR_TURNS + 2)]


@both_sandboxes
@pytest.mark.parametrize(
    "play",
    [
        lambda turn: f"print('needle' in context[{turn}000:{turn + 1}000])",
        lambda turn: f"start = {turn}000\nprint('needle' in context[start:start + 1000])",
        lambda turn: f"part_{turn} = context[{turn} * 1000:]",
        lambda turn: f"print(llm_query('Is it in part {turn}?'))",
        lambda turn: f"print('10:00:{10 + turn} all is well')",
        lambda turn: "at = 0" if not turn else "at += 1\nprint('line', at)",
    ],
)
def test_a_run_that_pages_through_its_context_is_not_ended(sandbox, play):
    turns = MAX_SIMILAR_TURNS + 3
    rlm = create_rlm(
        player(lambda turn: play(turn) if turn < turns else "FINAL('done')", lambda prompt: "no"), sandbox=sandbox
    )
    output = rlm.invoke({"query": "q", "context": "x" * 20_000})
    assert (output["answer"], output["status"], output["iterations"]) == ("done", "complete", turns + 1)
    assert not warnings(output)


@pytest.mark.parametrize(
    "cell", ["import time\nprint(time.time())", "import datetime\nprint(datetime.datetime.now())"]
)
def test_the_time_that_a_clock_shows_is_no_progress(cell):
    assert ran([cell])["iterations"] == 1 + MAX_REPEATS + 1


def test_the_warning_is_what_the_model_reads_next_and_one_that_heeds_it_goes_on():
    def play(messages: list[BaseMessage]) -> str:
        heard = WARNING in str(messages[-1].content)
        return f"```repl\n{'FINAL(1)' if heard else 'print(0)'}\n```"

    output = create_rlm(FunctionModel(function=play)).invoke("q")
    assert (output["answer"], output["status"], output["iterations"]) == (1, "complete", 3)


def test_each_question_of_a_conversation_begins_afresh():
    rlm = create_rlm(player(["print(0)", "FINAL('done')"], str), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    outputs = [rlm.invoke("q", config) for _ in range(4)]
    assert [output["answer"] for output in outputs] == ["done"] * 4
    assert not any(warnings(output) for output in outputs)


def test_a_child_run_that_repeats_itself_is_ended_too_and_its_answer_is_not_remembered():
    def play(messages: list[BaseMessage]) -> str:
        if "KID" in str(messages[1].content):
            return "so far" if "has to end" in str(messages[-1].content) else "```repl\nprint(0)\n```"
        return "```repl\nFINAL([rlm_query('KID'), rlm_query('KID')])\n```"

    output = create_rlm(FunctionModel(function=play), budget=Budget(depth=2)).invoke("q")
    kids = [r["child"][-1] for r in output["trajectory"] if r["type"] == "call"]
    assert [(kid["status"], kid["stop_reason"]) for kid in kids] == [("partial", "no_progress")] * 2
    assert output["answer"] == ["so far", "so far"]
    assert output["sub_calls"] == 2 * (MAX_REPEATS + 2)


def said(text: str, finish: str = "stop") -> AIMessage:
    return AIMessage(content=text, response_metadata={"finish_reason": finish})


class Flawed:
    """A leaf whose first reply to a prompt is flawed, and whose later ones are not."""

    def __init__(self, first: AIMessage) -> None:
        self.first, self.asked = first, list[str]()
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> AIMessage:
        with self._lock:
            self.asked.append(prompt)
            return self.first if self.asked.count(prompt) == 1 else said(f"good {prompt}")


FLAWS = [
    (said(""), "empty"),
    (said(" \n"), "empty"),
    (said("<think>So the</think>"), "empty"),
    (said("<think>So the answer"), "cut"),
    (said("[THINK]So the answer"), "cut"),
    (said("◁think▷So the answer"), "cut"),
    (said("<|channel|>analysis<|message|>So the answer"), "cut"),
    (said("\u200b\ufeff\n"), "empty"),
    (said("half of", "length"), "cut"),
    (said("half of", "max_tokens"), "cut"),
    (said("half of", "MAX_TOKENS"), "cut"),
    (said("half of", "content_filter"), "filtered"),
    (said("", "SAFETY"), "filtered"),
]


@pytest.mark.parametrize(("reply", "flaw"), FLAWS)
@both_sandboxes
def test_a_flawed_reply_answers_its_wave_only_and_the_same_prompt_is_asked_again_later(sandbox, reply, flaw):
    leaf = Flawed(reply)
    cells = "a = llm_query_batched(['x', 'x'])\nb = llm_query('x')", "FINAL([a[0] == a[1], b, llm_query('x')])"
    output = ran(cells, sandbox, leaf)
    assert output["answer"] == [True, "good x", "good x"]
    assert leaf.asked == ["x", "x"]
    calls = [record for record in output["trajectory"] if record["type"] == "call"]
    assert [call.get("flaw") for call in calls] == [flaw, flaw, None, None]
    assert output["sub_calls"] == 2


@pytest.mark.parametrize(
    "finish", [None, "stop", "STOP", "end_turn", "stop_sequence", "COMPLETE", "eos_token", "tool_calls"]
)
def test_a_reply_that_ended_by_itself_is_not_flawed(finish):
    assert flaw_of("fine", finish) is None
    assert flaw_of("about <think> tags", finish) is None


@pytest.mark.parametrize("reply", [said(""), said("half", "length")])
def test_a_crash_neither_asks_again_what_had_a_flawed_reply_nor_gives_that_to_others(reply):
    leaf, broken = Flawed(reply), [True]

    def ask(prompt: str) -> AIMessage:
        if prompt == "breaks" and broken and len(leaf.asked) >= 3:
            broken.clear()
            raise JournalError("the disk is full")
        return leaf(prompt)

    cell = "a = llm_query('x')\nb = llm_query_batched(['x', 'y', 'y', 'breaks'])\nFINAL([a, *b, llm_query('y')])"
    model = player([cell], ask)
    rlm = create_rlm(model, checkpointer=InMemorySaver(), budget=Budget(concurrency=1))
    config: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(JournalError):
        rlm.invoke("q", config)
    output = create_rlm(model, checkpointer=rlm.checkpointer).invoke(None, config)
    flawed, last = reply.content, output["answer"][4]
    assert output["answer"] == [flawed, "good x", flawed, flawed, last, "good y"]
    assert sorted(leaf.asked) == ["breaks", "x", "x", "y", "y"]


def test_a_cell_that_asks_until_a_reply_has_words_does_not_pay_for_ever():
    output = ran(["while not llm_query('x'):\n    pass", "FINAL('gave up')"], leaf=lambda prompt: said(""))
    assert (output["answer"], output["sub_calls"]) == ("gave up", 5)


def test_samples_may_be_cut_as_often_as_they_like():
    cells = ["FINAL(len([llm_query('x') for _ in range(8)]))"]
    output = ran(cells, leaf=lambda prompt: said("cut", "length"), memo=False)
    assert (output["answer"], output["sub_calls"]) == (8, 8)


@pytest.mark.parametrize("nothing", ["None", "''"])
def test_a_child_run_without_an_answer_does_not_answer_for_others(nothing):
    def ask(times):
        cell = f"""
for _ in range({times}):
    try:
        rlm_query('KID')
    except LLMError:
        pass
FINAL('asked')"""
        model = script(cell, children={"KID": [f"FINAL({nothing})"]})
        return create_rlm(model, budget=Budget(depth=2)).invoke("q")

    twice, once = ask(2), ask(1)
    assert not any(record.get("memo") for record in twice["trajectory"] if record["type"] == "call")
    assert twice["sub_calls"] == 2 * once["sub_calls"] > 0
