"""`make demo`, with the local model played by a server on loopback: all else is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlm_langchain.cli import demo, run_safely
from rlm_langchain.errors import MissingDependency
from rlm_langchain.models import registry
from tests.servers.openai import Message, Reply
from tests.servers.scripted import rlm, serve

Play = Callable[[str], None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Lets the local model write this code."""
    scripts = [rlm("FINAL('nothing')")]

    def last(messages: list[Message]) -> str | Reply | None:
        return scripts[-1](messages)

    with serve(last) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        local = registry.resolve("openai:local", "root")
        monkeypatch.setattr("rlm_langchain.models.local.model", lambda _: local)
        yield lambda code: scripts.append(rlm(code))


def test_a_right_answer_stands_beside_the_count(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(f"FINAL(max(context, key=lambda path: context[path].count({demo.WORD!r})))")
    assert run_safely(demo.main) == 0
    shown = capsys.readouterr()
    answer = next(line for line in shown.out.splitlines() if line.endswith(".py"))
    assert f"counted without a model: {answer}" in shown.out
    assert "The answer is right." in shown.out
    assert demo.QUESTION in shown.err
    assert "% as many" in shown.err


def test_a_wrong_answer_is_said_to_be_wrong(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play("FINAL('antigravity.py')")
    assert run_safely(demo.main) == 1
    assert "The answer is wrong" in capsys.readouterr().out


def test_a_model_that_cannot_be_had_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(role: str) -> registry.Model:
        raise MissingDependency("the weights cannot be reached: set RLM_LOCAL_MODEL")

    monkeypatch.setattr("rlm_langchain.models.local.model", missing)
    assert run_safely(demo.main) == 2
    assert "rlm: the weights cannot be reached" in capsys.readouterr().err


def test_the_library_is_copied_without_its_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a.py", "json/b.py", "test/c.py", "site-packages/d.py", "idlelib/idle_test/e.py", "f.so"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(demo.WORD)
    target = demo.copied(source, tmp_path / "target")
    copied = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert copied == ["a.py", "json/b.py"]


def test_files_that_are_even_are_both_right(tmp_path: Path) -> None:
    for name, text in {"a.py": "lambda lambda", "b.py": "lambda", "c.py": "lambda\nlambda"}.items():
        (tmp_path / name).write_text(text)
    assert demo.most_often("lambda", tmp_path) == ["a.py", "c.py"]
