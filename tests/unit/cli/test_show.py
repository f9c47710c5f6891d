"""What `rlm show` and `rlm compare` find and say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_langchain.cli.commands.compare import compare_runs
from rlm_langchain.cli.commands.show import show_run, write_page
from rlm_langchain.cli.options import Setup
from rlm_langchain.cli.session.threads import Threads, config
from rlm_langchain.errors import InputError
from rlm_langchain.runnable.create import create_rlm
from rlm_langchain.testing.models import script
from rlm_langchain.trajectory.jsonl import write_trace
from tests.records import nested


def keep(name: str, *cells: str, setup: Setup | None = None) -> None:
    """A run on a thread of the command."""
    with Threads().opened() as saver:
        create_rlm(script(*cells), checkpointer=saver).invoke({"query": f"What is {name}?"}, config(name, setup))


def test_without_a_name_the_last_run_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no run to show"):
        show_run(None, full=False)
    keep("one", "FINAL(1)")
    keep("two", "FINAL(2)")
    show_run(None, full=False)
    said = capsys.readouterr()
    assert "What is two?" in said.out
    assert "What is one?" not in said.out
    assert said.err == "the last run: two\n"


def test_a_page_is_written_of_a_thread_and_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep("one", "FINAL(1)", setup=Setup(usd=0.5))
    write_trace(tmp_path / "steps.jsonl", nested())
    for what in ("one", str(tmp_path / "steps.jsonl"), None):
        write_page(what, tmp_path / "run.html")
        assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out.count("wrote") == 3
    with pytest.raises(InputError, match="no run and no file"):
        write_page("three", tmp_path / "run.html")


def test_two_runs_are_compared(tmp_path: Path) -> None:
    keep("one", "x = 1\nprint(x)", "FINAL(x)")
    keep("two", "x = 1\nprint(x)", "x += 1\nFINAL(x)")
    keep("three", "FINAL('\u202ex')")
    said = "\n".join(compare_runs("one", "two"))
    for line in ("answer       1", "The code is the same up to turn 1.", "--- one, turn 2", "+x += 1"):
        assert line in said
    assert [*compare_runs("one", "one")][-1] == "The code of all 2 turns is the same."
    said = "\n".join(compare_runs("three", "one"))
    assert "The code differs from the first turn." in said
    assert "\u202e" not in said
    write_trace(tmp_path / "steps.jsonl", nested())
    assert "child runs" in "\n".join(compare_runs(str(tmp_path / "steps.jsonl"), "one"))
