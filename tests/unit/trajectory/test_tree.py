from __future__ import annotations

import pytest

from rlm_langchain.cli.commands.show import in_order
from rlm_langchain.records import Record
from rlm_langchain.trajectory.tree import (
    CallView,
    RunView,
    Trajectory,
    TurnView,
    flatten,
    without_child,
)
from rlm_langchain.types import Usage
from tests.records import RecordBuilder, nested


def test_records_of_a_child_run_are_taken_out_before_the_call_they_answered() -> None:
    told = list(flatten(nested()))
    assert [(r["type"], r["path"]) for r in told][5:14] == [
        ("question", "1"),
        ("turn", "1"),
        ("cell", "1"),
        ("wave", "1"),
        ("call", "1"),
        ("output", "1"),
        ("answer", "1"),
        ("call", ""),
        ("output", ""),
    ]
    assert all("child" not in record for record in told)
    assert list(flatten(told)) == told


def test_a_turn_that_was_lost_is_spent() -> None:
    top = RecordBuilder().question().turn(0, "x").note("no reply came", "reader")
    top.records[-1].update(usage=Usage(1, 9, 0, 1, 0.25).record())
    assert Trajectory.of(top.records).spent.root == Usage(2, 109, 0, 11, 0.75)


def test_flattening_leaves_the_result_as_it_was() -> None:
    records = nested()
    list(flatten(records))
    assert records == nested()
    assert any("child" in record for record in records)


def test_records_become_a_tree_of_runs_turns_cells_and_calls() -> None:
    told = Trajectory.of(nested())
    top = told.runs[""]
    assert [turn.record["turn"] for turn in top.turns] == [0, 1]
    cell = top.turns[0].cells[0]
    assert cell.record["code"] == "ask()"
    assert [wave["count"] for wave in cell.waves] == [2]
    assert cell.output is not None
    assert cell.output["outcome"] == "completed"
    assert cell.calls[0].run is None
    child = cell.calls[1].run
    assert child is told.runs["1"]
    assert child is not None
    assert child.answer is not None
    assert child.answer["answer"] == 7
    assert cell.calls[1].record is not None
    assert cell.calls[1].record["value"] == 7


def test_every_model_call_is_counted_once() -> None:
    spent = Trajectory.of(nested()).spent
    assert spent.root == Usage(2, 200, 0, 20, 1.0)
    assert spent.sub == Usage(3, 200, 0, 20, pytest.approx(0.7))  # two leaves and a turn of the child
    assert spent.total.calls == 5


def test_what_a_child_run_has_spent_counts_while_it_goes_on() -> None:
    told = Trajectory()
    for record in flatten(nested()):
        told.add(record)
        if record["type"] == "output" and record["path"] == "1":
            break
    assert told.spent.sub.calls == 3
    assert told.runs[""].cells[0].calls[1] == CallView(None, told.runs["1"])


def test_notes_stand_between_the_turns_they_came_between() -> None:
    records = RecordBuilder().question().turn(0, "words").note("code, please").turn(1, "more").records
    kinds = ["turn" if isinstance(s, TurnView) else s["text"] for s in Trajectory.of(records).runs[""].steps]
    assert kinds == ["turn", "code, please", "turn"]


def test_a_conversation_has_all_its_questions_each_before_its_turns_and_answer() -> None:
    told = RecordBuilder().question("first").turn(0, "a").answer(1).question("second", None).turn(1, "b")
    run = Trajectory.of(told.records).runs[""]
    assert list(in_order(run)) == told.records
    assert run.answer is None, "the second question is open"
    told.answer(2)
    assert list(in_order(Trajectory.of(told.records).runs[""])) == told.records


def test_a_call_that_was_asked_afresh_counts_twice_and_stands_with_its_last_answer() -> None:
    told = RecordBuilder().turn(0, "t", "c").cell(0, "c").wave(0, 0, 1).call(0, 0, "old").wave(0, 0, 1)
    tree = Trajectory.of(told.call(0, 0, "new").records)
    assert tree.spent.sub.calls == 2
    record = tree.runs[""].cells[0].calls[0].record
    assert record is not None
    assert record["value"] == "new"


def test_a_trace_that_begins_in_the_middle_still_makes_a_tree() -> None:
    child = RecordBuilder("4/2").question("lost").answer(1)
    stray = RecordBuilder().call(9, 9, "whose?").output(9, "none")
    tree = Trajectory.of([*child.records, *stray.records])
    assert set(tree.runs) == {"4/2", "4", ""}
    assert tree.runs[""] == RunView("")
    assert tree.spent.sub.calls == 1


def test_a_price_that_is_unknown_makes_the_cost_unknown() -> None:
    told = RecordBuilder().turn(0, "a", used=Usage(1, 5, 0, 5, None)).turn(1, "b")
    assert Trajectory.of(told.records).spent.total.cost is None


def test_only_a_call_has_something_to_take_out() -> None:
    note = RecordBuilder().note("n").records[0]
    assert without_child(note) is note
    call: Record = RecordBuilder().call(0, 0).records[0]
    assert without_child(call) is call
