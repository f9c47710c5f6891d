"""What was changed or cut off on disk is refused, or does no harm: it never makes another answer.

`RLM_KILLS` is how often; `RLM_SEED` repeats what a failed test has drawn.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.durable.crash_harness import CrashHarness, crash_harness, story
from tests.durable.damage import copied, harm, harm_a_row
from tests.durable.program import Program

TIMES = 3 * int(os.environ.get("RLM_KILLS", "4"))


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHarness]:
    with crash_harness(tmp_path_factory.mktemp("damage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(harness: CrashHarness) -> dict[str, Any]:
    return harness.run_undisturbed(harness.program())


@pytest.fixture(scope="module")
def killed(harness: CrashHarness, undisturbed: dict[str, Any]) -> list[Program]:
    """Programs that were killed: while children were at work, after them, and near the end."""
    programs = [harness.program(mode=mode, kill_at=at) for mode, at in (("sync", 40), ("async", 75), ("sync", 100))]
    for program in programs:
        assert harness.fork_server.start(program).wait()
    return [replace(program, kill_at=0, resume=True) for program in programs]


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("RLM_SEED") or str(random.randrange(10**6))
    print(f"RLM_SEED={seed}")
    return random.Random(seed)


def check(result: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    """It is refused with our error, or it is what it would have been."""
    if "error" in result:
        assert result["error"] == "JournalError", result
    else:
        assert story(result["output"]) == story(undisturbed["output"])
        assert result["output"]["answer"] == undisturbed["output"]["answer"]


def test_a_damaged_row_of_the_database_never_makes_another_answer(harness, undisturbed, killed, chance, tmp_path):
    refused = 0
    for i in range(TIMES):
        program = copied(killed[i % len(killed)], tmp_path / str(i))
        print(harm_a_row(program, chance))
        result = harness.run_undisturbed(program)
        check(result, undisturbed)
        refused += "error" in result
    print(f"{refused} of {TIMES} were refused")


def test_damaged_receipts_are_refused_and_a_torn_end_is_none(harness, undisturbed, killed, chance, tmp_path):
    for i in range(TIMES // 2):
        program = copied(killed[i % len(killed)], tmp_path / str(i))
        [path] = (program.keep / "receipts").glob("*.jsonl")
        path.write_bytes(harm(path.read_bytes().rstrip(b"\0"), chance))
        check(harness.run_undisturbed(program), undisturbed)


def test_a_damaged_context_is_refused(harness, killed, chance, tmp_path):
    program = copied(killed[0], tmp_path / "copy")
    blob = max((path for path in (program.keep / "contexts").rglob("*") if path.is_file()), key=os.path.getsize)
    blob.chmod(0o600)
    blob.write_bytes(harm(blob.read_bytes(), chance))
    result = harness.run_undisturbed(program)
    assert result["error"] == "JournalError"
    assert blob.name in result["text"]


def test_a_context_that_was_removed_is_refused_by_its_name(harness, killed, tmp_path):
    program = copied(killed[0], tmp_path / "copy")
    blob = max((path for path in (program.keep / "contexts").rglob("*") if path.is_file()), key=os.path.getsize)
    blob.unlink()
    result = harness.run_undisturbed(program)
    assert result["error"] == "JournalError"
    assert blob.name in result["text"]


def test_a_file_that_is_no_database_is_refused(harness, killed, tmp_path):
    program = copied(killed[0], tmp_path / "copy")
    for path in Path(program.folder).glob("threads.sqlite*"):
        path.unlink()
    program.database.write_bytes(b"this is no database" * 1000)
    assert harness.run_undisturbed(program)["error"] == "JournalError"
