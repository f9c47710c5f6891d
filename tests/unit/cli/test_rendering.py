from __future__ import annotations

import io
from typing import cast

import pytest
from rich.console import Console

from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.rendering.plain import (
    Lines,
    NoView,
    PlainWithTicker,
    cost_suffix,
    spending,
)
from rlm_langchain.cli.rendering.progress import Waves
from rlm_langchain.cli.rendering.records import (
    Part,
    as_text,
    clip,
    narrate,
    one_line,
)
from rlm_langchain.cli.rendering.rich import Drawing, ScrollView, render_part
from rlm_langchain.records import Record
from rlm_langchain.trajectory.tree import Trajectory, flatten
from rlm_langchain.types import Usage
from tests.records import CONTEXT, RecordBuilder, nested

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\u202e[bold]not bold[/bold][/] :smile:"


def lines_of(records: list[Record], full: bool = False) -> str:
    file = io.StringIO()
    view = Lines(file, full=full)
    for record in records:
        view.write(record)
    view.close()
    return file.getvalue()


def ticks_of(records: list[Record]) -> str:
    file = io.StringIO()
    view = PlainWithTicker(file)
    for record in records:
        view.write(record)
    return file.getvalue()


def terminal(**more: object) -> Console:
    settings = {"file": io.StringIO(), "force_terminal": True, "width": 100, "highlight": False, **more}
    return Console(**settings)  # type: ignore[arg-type]


def test_a_turn_is_shown_without_the_code_that_is_shown_when_it_runs() -> None:
    text = "I count.\n\n```repl\nprint(1)\n```\n\nThen:\n~~~python\nprint(2)\n~~~\nDone."
    parts = narrate(RecordBuilder().turn(0, text, "print(1)\n", "print(2)\n").records[0])
    assert parts[0].text == "turn 1 · root · 2.0 s · read 100 tokens, wrote 10"
    assert parts[1] == Part("prose", "I count.\n\nThen:\n\nDone.")


def test_a_turn_says_how_often_it_was_tried() -> None:
    [record] = RecordBuilder().turn(0, "").records
    assert record["type"] == "turn"
    record["retries"] = 2
    assert narrate(record)[0].text.endswith("tried 3 times")


def test_output_is_shown_without_its_fence() -> None:
    [record] = RecordBuilder().output(0, "a\n``\nb").records
    assert narrate(record) == [Part("printed", "a\n``\nb")]


def test_the_note_on_blocks_that_were_not_run_follows_the_output() -> None:
    [record] = RecordBuilder().output(0, "Traceback", error=True).records
    assert record["type"] == "output"
    record["text"] += "\n\nSo 2 later blocks were not run."
    assert narrate(record) == [Part("error", "Traceback"), Part("note", "So 2 later blocks were not run.")]


def test_empty_output_is_noted_unless_the_cell_answered() -> None:
    assert narrate(RecordBuilder().output(0, "").records[0]) == [Part("note", "(nothing was printed)")]
    assert narrate(RecordBuilder().output(0, "", outcome="answered").records[0]) == []


def test_a_question_says_what_it_is_about() -> None:
    assert narrate(RecordBuilder().question("Who?").records[0])[1].text == f"context: {CONTEXT['about']}"
    assert narrate(RecordBuilder().question("Who?", None).records[0])[1].text == "no context"
    follow_up = {**RecordBuilder().question("Who?", None).records[0], "follows": True}
    assert narrate(cast(Record, follow_up))[1].text == "context: as before"


@pytest.mark.parametrize(
    "record",
    [
        RecordBuilder().question(HOSTILE).records[0],
        RecordBuilder().turn(0, HOSTILE).records[0],
        RecordBuilder().cell(0, HOSTILE).records[0],
        RecordBuilder().output(0, HOSTILE).records[0],
        RecordBuilder().note(HOSTILE).records[0],
        RecordBuilder().answer(HOSTILE).records[0],
        RecordBuilder().answer({"a": HOSTILE}).records[0],
    ],
    ids=lambda record: record["type"],
)
def test_no_escape_sequence_and_no_markup_reaches_a_terminal(record: Record) -> None:
    parts = narrate(record)
    assert not any(set(part.text) & set("\x1b\x07\r\u202e") for part in parts)
    console = terminal(color_system=None)
    for part in parts:
        console.print(render_part(part))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert "[bold]not bold[/bold][/] :smile:" in shown.replace("\n", "")


def test_invisible_characters_in_failures_and_values_are_escaped() -> None:
    told = RecordBuilder().cell(0, "c").wave(0, 0, 2).call(0, 0, HOSTILE, preview=HOSTILE).call(0, 1, error=HOSTILE)
    text = lines_of(told.records)
    assert not set(text) & set("\x1b\x07\r\u202e")


def test_a_long_part_is_cut_in_the_middle_and_says_how_much_is_left_out() -> None:
    cut = clip(Part("printed", "\n".join(map(str, range(100)))))
    assert cut.split("\n") == [*map(str, range(9)), "… 87 more lines …", "96", "97", "98", "99"]
    assert clip(Part("printed", "x" * 5_000)) == "x" * 1_000 + " …"


def test_one_line_joins_and_cuts_a_text() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 300, 10) == "x" * 9 + "…"


def test_short_json_stays_on_one_line() -> None:
    assert as_text({"a": [1, "é"]}) == '{"a": [1, "é"]}'
    assert as_text(list(range(100))).count("\n") == 101
    assert as_text("as it is") == "as it is"


def test_a_run_with_a_child_reads_from_top_to_bottom() -> None:
    text = lines_of(list(flatten(nested())))
    order = ["question: How many?", "turn 1", "| ask()", "[1] question: Below?", "[1]     | FINAL(7)", "> 7"]
    assert [text.index(piece) for piece in order] == sorted(text.index(piece) for piece in order)
    assert "2 sub-calls: answered" in text
    assert "[1] complete: the model gave its answer" in text


def test_the_answer_of_the_top_run_is_left_to_the_caller() -> None:
    assert lines_of(RecordBuilder().answer("42").records) == ""


def test_full_lines_are_not_cut() -> None:
    records = RecordBuilder().output(0, "\n".join(map(str, range(100)))).records
    assert "more lines" in lines_of(records)
    assert "more lines" not in lines_of(records, full=True)


def test_a_few_calls_are_shown_one_by_one_and_many_are_counted() -> None:
    few = RecordBuilder().cell(0, "c").wave(0, 0, 1).call(0, 0, "yes")
    assert "→ yes" in lines_of(few.records)
    many = RecordBuilder().cell(0, "c").wave(0, 0, 20)
    for number in range(20):
        many.call(0, number, error="no luck" if number % 2 else None)
    text = lines_of(many.records)
    assert text.count("no luck") == 3
    assert "20 sub-calls: 10 answered, 10 failed" in text
    assert "→" not in text


def test_without_a_terminal_each_quarter_of_a_fan_out_is_reported() -> None:
    told = RecordBuilder().cell(0, "c").wave(0, 0, 100)
    for number in range(100):
        told.call(0, number)
    text = ticks_of(told.records)
    assert [line.strip() for line in text.splitlines() if "back" in line or "asking" in line] == [
        "asking 100 sub-calls",
        "25 of 100 are back",
        "50 of 100 are back",
        "75 of 100 are back",
    ]
    assert "100 sub-calls: answered" in text


def test_a_resumed_fan_out_that_asks_only_for_the_rest_ends_with_its_cell() -> None:
    waves = Waves()
    told = RecordBuilder().wave(0, 0, 10).call(0, 8).call(0, 9).output(0, "done")
    parts = [part for record in told.records for part in waves.take(record)]
    assert [part.text for part in parts] == ["10 sub-calls: answered · 2.0 s"]
    assert not waves.open


def test_replies_from_memory_are_counted() -> None:
    told = RecordBuilder().cell(0, "c").wave(0, 0, 5)
    for number in range(5):
        told.call(0, number, memo=number > 2)
    assert "5 sub-calls: answered, 2 from memory" in lines_of(told.records)


def test_a_summary_is_not_shown_as_a_turn() -> None:
    [record] = RecordBuilder().turn(3, "So far: nothing.").records
    assert record["type"] == "turn"
    record["summary"] = True
    assert [part.text for part in narrate(record)] == [
        "summary of the history · root · 2.0 s · read 100 tokens, wrote 10",
        "So far: nothing.",
    ]


def test_free_calls_are_not_shown() -> None:
    assert (
        lines_of(RecordBuilder().cell(0, "budget()").call(0, 0, {"calls": 3}, kind="budget").records).count("\n")
        == 1
    )


def test_a_drawing_shows_the_activity_below_the_steps() -> None:
    console, told, now = terminal(color_system=None), Trajectory(), iter(range(100))
    view = Drawing(console, told, clock=lambda: float(next(now)))
    for record in RecordBuilder().question().turn(0, "t", "c").cell(0, "ask()").wave(0, 0, 10).call(0, 0).records:
        told.add(record)
        view.write(record)
    console.print(view.now())
    view.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 10 sub-calls" in shown
    assert "waiting for sub-calls" in shown
    assert "2 model calls · 165 tokens · $0.6000" in shown
    assert shown.index("ask()") < shown.rindex("1 of 10")


def test_a_drawing_leaves_the_cursor_as_it_was() -> None:
    console = terminal()
    view = Drawing(console, Trajectory())
    view.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_scroll_draws_code_and_output_with_the_child_further_in() -> None:
    console = terminal(color_system=None)
    view = ScrollView(console)
    for record in flatten(nested()):
        view.write(record)
    view.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\n  [1] question: Below?" in shown
    assert "\n      FINAL(7)" in shown
    assert "│ 7" in shown


def test_no_view_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    view = NoView()
    view.write(RecordBuilder().note("n").records[0])
    view.close()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_whole_words_and_whole_commands() -> None:
    text = f"    {'word ' * 30}\nsay `{'rlm ' * 40}`"
    assert streams.for_stream(text, io.StringIO()) == text
    lines = streams.for_stream(text, Terminal()).split("\n")
    assert all(len(line) <= 80 and line.startswith("    word") for line in lines[:2])
    assert f"`{'rlm ' * 40}`" in lines


def test_no_line_at_the_bottom_of_a_drawing_takes_two() -> None:
    console = terminal(color_system=None, width=30)
    view = Drawing(console, Trajectory())
    for record in RecordBuilder().question().turn(0, "t", "c").cell(0, "ask()").wave(0, 0, 10).records:
        view._trajectory.add(record)
        view.write(record)
    assert len(console.render_lines(view.now(), pad=False)) == 2
    view.close()


def test_spending_names_calls_tokens_and_cost() -> None:
    assert spending(Usage(1, 1_000, 0, 234, 0.0)) == "1 model call · 1,234 tokens"
    assert spending(Usage(2, 0, 0, 0, 1.5)) == "2 model calls · 0 tokens · $1.5000"
    assert cost_suffix(None) == " · price unknown"


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"),
        (1e-9, "less than 0.01 %"),
        (0.00034, "0.034 %"),
        (0.034, "3.4 %"),
        (0.341, "34 %"),
        (0.994, "99 %"),
        (0.996, "over 99 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_shown_as_a_percentage(share: float, shown: str) -> None:
    assert numbers.percent(share) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_500, "1.5 kB"),
        (3_400_000, "3.4 MB"),
        (2.5e12, "2,500.0 GB"),
    ],
)
def test_a_size_is_shown_in_a_unit_that_suits_it(number: float, shown: str) -> None:
    assert numbers.size(number) == shown


def test_a_small_cost_is_never_shown_as_zero() -> None:
    assert [numbers.dollars(cost) for cost in (0.00001, 0.0012, 1_234.5)] == [
        "less than $0.0001",
        "$0.0012",
        "$1,234.5000",
    ]


def test_an_answer_is_shown_with_where_its_quotes_stand():
    [record] = RecordBuilder().answer("Ada").records
    older = {"quote": "rent", "source": "0.text", "start": 0, "end": 4}
    cited = {"quote": "the\nrent", "source": "a.pdf.2.text", "start": 0, "end": 8}
    record["citations"] = [{**cited, "place": {"file": "a.pdf", "page": 3}}, older]
    assert narrate(record)[-1] == Part("printed", '"the rent" (a.pdf, page 3)\n"rent" (0.text)')
