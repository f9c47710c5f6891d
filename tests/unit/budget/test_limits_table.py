"""One table of limits: to add a limit is to add its field and its row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import rlm_langchain
from rlm_langchain import Budget, ConfigurationError
from rlm_langchain.batch.questions import ROW_LIMITS
from rlm_langchain.budget.limits import LEDGER_LIMITS, LIMITS, STOPS

ROOT = Path(rlm_langchain.__file__).parent
FIELD = '    words: int | None = None\n    """Tokens that models write, in all."""\n'
ROW = """
    Limit(
        "words",
        "models fall silent",
        least=3,
        whole=True,
        of_row=True,
        option=Option("--words", "Limit: tokens written."),
        stop=Stop("words", "there are no words left", "no words were left", measure=attrgetter("output")),
    ),
"""
VIEWS = """
import json, sys
sys.path.insert(0, "docs")
import generate
from typer.testing import CliRunner
from rlm_langchain import Budget, BudgetExhausted, ConfigurationError, create_rlm
from rlm_langchain.batch.questions import ROW_LIMITS
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.cli.app import app
from rlm_langchain.cli.commands.inputs import build_from
from rlm_langchain.cli.options import Setup, read_setup, write_setup
from rlm_langchain.trajectory.degradation import STOP_SENTENCES
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.types import Usage

said, views = [], {}
def play(messages):
    said.append(str(messages[-1].content))
    code = f"```repl\\nprint(len(llm_query('{len(said)}')))\\n```"
    if "no words left" in said[-1]:
        return "what was seen"
    return code if messages[0].type == "system" else "word " * 600

def error(make):
    try:
        make()
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"

views["check"] = error(lambda: Budget(words=2))
views["remaining"] = Ledger(Budget(words=8), spent=Usage(output=7)).remaining()
views["running low"] = Ledger(Budget(words=8), spent=Usage(output=7)).running_low()
rlm = create_rlm(FunctionModel(function=play), sandbox="monty", budget=Budget(words=9_000, output_tokens=4_000))
output = rlm.invoke("q")
views["run"] = [output["status"], output["stop_reason"]]
views["model"] = said[-1]
views["raised"] = error(lambda: rlm.model_copy(update={"on_budget": "raise"}).invoke("q"))
views["people"] = STOP_SENTENCES["words"]
views["flag"] = build_from(Setup(model="openai:x", sandbox="monty", words=7)).budget.words
views["kept"] = read_setup(write_setup(Setup(words=7))).words
views["help"] = CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "200"}).output
views["rows"] = ROW_LIMITS
views["docs"] = generate.budget() + generate.outcomes()
print(json.dumps(views))
"""


def test_every_field_of_a_budget_has_one_row() -> None:
    assert sorted(limit.field for limit in LIMITS) == sorted(field.name for field in fields(Budget))


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.field)
def test_a_number_that_a_limit_cannot_be_is_refused(limit: Any) -> None:
    for wrong in (limit.least - 1, float("nan"), True, "5", *([limit.least + 0.5] if limit.whole else [])):
        with pytest.raises(ConfigurationError, match=limit.field):
            Budget(**{limit.field: wrong})
    assert getattr(Budget(**{limit.field: limit.least}), limit.field) == limit.least


def test_a_stop_reason_belongs_to_one_limit() -> None:
    assert len(STOPS) == sum(limit.stop is not None for limit in LIMITS)
    assert [limit.field for limit, _ in LEDGER_LIMITS] == ["calls", "tokens", "usd", "seconds"]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each part of the package makes of a limit that was added to a copy of it."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT, copy / "rlm_langchain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT.parent / "docs", copy / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, added in (
        ("budget/budget.py", "    usd: float", FIELD),
        ("budget/limits.py", '\n    Limit(\n        "tokens"', ROW.rstrip("\n")),
        ("types.py", '    "usd",\n    "seconds"', '    "words",\n'),
    ):
        path = copy / "rlm_langchain" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, name
        path.write_text(text.replace(before, added + before), encoding="utf-8")
    env = {**os.environ, "OPENAI_API_KEY": "none"}
    run = [sys.executable, "-c", VIEWS]
    done = subprocess.run(run, cwd=copy, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        ("check", "ConfigurationError: Budget(words=2): words must not be less than 3"),
        ("remaining", {"calls": 1000, "words": 1, "tokens": None, "usd": None, "seconds": None}),
        ("running low", {"words": 1}),
        ("run", ["partial", "words"]),
        ("flag", 7),
        ("rows", [ROW_LIMITS[0], "words", *ROW_LIMITS[1:]]),
        ("kept", 7),
        ("people", "no words were left"),
    ],
)
def test_a_new_limit_needs_a_field_and_a_row(views: dict[str, Any], view: str, shown: Any) -> None:
    assert views[view] == shown


@pytest.mark.parametrize(
    ("view", "part"),
    [
        ("model", "there are no words left"),
        ("raised", "BudgetExhausted: the budget is used up (words)"),
        ("help", "--words N"),
        ("help", "Limit: tokens written.  [x>=3]"),
        ("docs", "| `words` | `--words` | `None` | Tokens that models write, in all. |"),
        ("docs", "| `words` | models fall silent |"),
    ],
)
def test_a_new_limit_is_told_and_shown_everywhere(views: dict[str, Any], view: str, part: str) -> None:
    assert part in views[view]
