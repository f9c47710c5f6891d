"""What else can go wrong in the middle of a run: its worker, its disk, its provider, its files."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.durable.crash_harness import CrashHarness, RunProcess, crash_harness, received, story
from tests.durable.scripted_run import WIDE, mark, query
from tests.processes import children
from tests.servers.openai import SERVER_ERROR, Reply, failure
from tests.servers.server import Request

MODES = ("sync", "async")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHarness]:
    with crash_harness(tmp_path_factory.mktemp("faults")) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(harness: CrashHarness) -> dict[int, dict[str, Any]]:
    """What runs say that nothing happens to, by their width."""
    return {wide: harness.run_undisturbed(harness.program(query=query(wide))) for wide in (10, WIDE)}


def kill_a_worker(process: RunProcess) -> bool:
    """SIGKILL to the first sandbox there is."""
    for worker in children(process.pid)[:1]:
        os.kill(worker, signal.SIGKILL)
        return True
    return False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("calls", [8, 12, 20, 30, 44])
def test_a_worker_that_is_killed_alone_is_not_missed(harness, undisturbed, mode, calls):
    since = harness.server.calls
    process = harness.fork_server.start(harness.program(mode=mode))
    harness.server.wait(lambda server: server.calls >= since + calls)
    kill_a_worker(process)
    output = process.end()["output"]
    assert story(output) == story(undisturbed[10]["output"])
    assert output["usage"] == undisturbed[10]["output"]["usage"]
    assert len(harness.asked(since)) == len(set(harness.asked(since)))


@pytest.mark.parametrize("mode", MODES)
def test_a_run_killed_while_a_cell_computes_repeats_the_cell_and_no_request(harness, mode):
    since = harness.server.calls
    program = harness.program(mode=mode, query="SPIN: a word")
    process = harness.fork_server.start(program)
    harness.server.wait(lambda server: server.calls >= since + 2 and server.requests[-1].state == "sent")
    assert not process.wait(0.2)
    process.kill()
    had = received(program)
    before = harness.asked(since)
    assert len(had) == len(before) == 2
    output = harness.run_undisturbed(replace(program, resume=True))["output"]
    assert output["status"] == "complete"
    assert len(harness.asked(since)) == len(set(harness.asked(since))) == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("largest", [150_000, 400_000, 2_300_000])
def test_a_disk_that_is_full_is_our_error_and_with_room_the_run_goes_on_unpaid(harness, undisturbed, mode, largest):
    since = harness.server.calls
    program = harness.program(mode=mode, query=query(WIDE), largest=largest)
    first = harness.run_undisturbed(program)
    assert first["error"] == "JournalError"
    assert "resume the run" in first["text"]
    assert "nothing that was paid for is lost" in first["text"]
    had = received(program)
    asked = harness.asked(since)
    assert set(asked) == had
    second = harness.run_undisturbed(replace(program, resume=True, largest=0))
    assert story(second["output"]) == story(undisturbed[WIDE]["output"])
    assert second["output"]["usage"] == undisturbed[WIDE]["output"]["usage"]
    assert len(harness.asked(since)) == len(set(harness.asked(since)))


class Outage:
    """A provider that fails for a while: whom it sends away, and whom it has answered."""

    def __init__(self, harness: CrashHarness, reply: Reply, fails: Callable[[Request], bool]) -> None:
        self.harness, self.reply, self.fails = harness, reply, fails
        self.failed = 0
        self.answered: list[str] = []

    def __enter__(self) -> Outage:
        self.harness.server.rule = self
        return self

    def __exit__(self, *_: object) -> None:
        self.harness.server.rule = lambda _: None

    def __call__(self, request: Request) -> Reply | None:
        if self.fails(request):
            self.failed += 1
            return self.reply
        self.answered.append(mark(request.messages))
        return None


@pytest.mark.parametrize("mode", MODES)
def test_a_provider_that_fails_for_a_while_is_asked_again_and_nothing_is_answered_twice(harness, undisturbed, mode):
    since, tries = harness.server.calls, Counter[str]()

    def is_early(request: Request) -> bool:
        tries[mark(request.messages)] += 1
        return since + 8 <= request.number < since + 30 and tries[mark(request.messages)] <= 2

    with Outage(harness, SERVER_ERROR, is_early) as outage:
        output = harness.run_undisturbed(harness.program(mode=mode))["output"]
    assert outage.failed > 10
    assert story(output) == story(undisturbed[10]["output"])
    assert len(outage.answered) == len(set(outage.answered))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turns", [0, 2, 4])
def test_a_provider_that_is_down_ends_the_run_and_when_it_is_back_the_run_goes_on(
    harness, undisturbed, mode, turns
):
    def is_late(request: Request) -> bool:
        roles = [message["role"] for message in request.messages]
        root = len(roles) > 1 and "ROOT:" in str(request.messages[1]["content"])
        return root and roles.count("assistant") >= turns

    program = harness.program(mode=mode)
    with Outage(harness, failure(401), is_late) as outage:
        first = harness.run_undisturbed(program)
        assert first["error"] == "ModelError"
        outage.fails = lambda _: False
        second = harness.run_undisturbed(replace(program, resume=True))
    assert story(second["output"]) == story(undisturbed[10]["output"])
    assert second["output"]["usage"] == undisturbed[10]["output"]["usage"]
    assert len(outage.answered) == len(set(outage.answered))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system here; RLIMIT_FSIZE takes its place in other tests")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_small_file_system_that_is_full_loses_no_reply(harness, undisturbed, small_disk, mode):
    since = harness.server.calls
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    program = harness.program(mode=mode, query=query(WIDE), home=str(small_disk))
    first = harness.run_undisturbed(program)
    assert first["error"] == "JournalError"
    assert set(harness.asked(since)) == received(program)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    second = harness.run_undisturbed(replace(program, resume=True))
    assert "error" not in second, second
    assert second["output"]["answer"] == undisturbed[WIDE]["output"]["answer"]
    assert len(harness.asked(since)) == len(set(harness.asked(since)))
