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

from tests.durable.arena import Arena, Life, arena, received, story
from tests.durable.play import WIDE, mark, query
from tests.processes import children
from tests.servers.openai import SERVER_ERROR, Reply, failure
from tests.servers.server import Request

MODES = ("sync", "async")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("faults")) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(field: Arena) -> dict[int, dict[str, Any]]:
    """What runs say that nothing happens to, by their width."""
    return {wide: field.whole(field.program(query=query(wide))) for wide in (10, WIDE)}


def kill_a_worker(life: Life) -> bool:
    """SIGKILL to the first sandbox there is."""
    for worker in children(life.pid)[:1]:
        os.kill(worker, signal.SIGKILL)
        return True
    return False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("calls", [8, 12, 20, 30, 44])
def test_a_worker_that_is_killed_alone_is_not_missed(field, whole, mode, calls):
    since = field.server.calls
    life = field.nursery.bear(field.program(mode=mode))
    field.server.wait(lambda server: server.calls >= since + calls)
    kill_a_worker(life)
    output = life.end()["output"]
    assert story(output) == story(whole[10]["output"])
    assert output["usage"] == whole[10]["output"]["usage"]
    assert len(field.asked(since)) == len(set(field.asked(since)))


@pytest.mark.parametrize("mode", MODES)
def test_killed_while_a_cell_computes_it_computes_again_and_asks_nothing_twice(field, mode):
    since = field.server.calls
    program = field.program(mode=mode, query="SPIN: a word")
    life = field.nursery.bear(program)
    field.server.wait(lambda server: server.calls >= since + 2 and server.requests[-1].state == "sent")
    assert not life.wait(0.2)
    life.kill()
    had = received(program)
    before = field.asked(since)
    assert len(had) == len(before) == 2
    output = field.whole(replace(program, resume=True))["output"]
    assert output["status"] == "complete"
    assert len(field.asked(since)) == len(set(field.asked(since))) == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("largest", [150_000, 400_000, 2_300_000])
def test_a_disk_that_is_full_is_our_error_and_with_room_the_run_goes_on_unpaid(field, whole, mode, largest):
    since = field.server.calls
    program = field.program(mode=mode, query=query(WIDE), largest=largest)
    first = field.whole(program)
    assert first["error"] == "JournalError"
    assert "resume the run" in first["text"]
    assert "nothing that was paid for is lost" in first["text"]
    had = received(program)
    asked = field.asked(since)
    assert set(asked) == had
    second = field.whole(replace(program, resume=True, largest=0))
    assert story(second["output"]) == story(whole[WIDE]["output"])
    assert second["output"]["usage"] == whole[WIDE]["output"]["usage"]
    assert len(field.asked(since)) == len(set(field.asked(since)))


class Outage:
    """A provider that fails for a while: whom it sends away, and whom it has answered."""

    def __init__(self, field: Arena, reply: Reply, fails: Callable[[Request], bool]) -> None:
        self.field, self.reply, self.fails = field, reply, fails
        self.failed = 0
        self.answered: list[str] = []

    def __enter__(self) -> Outage:
        self.field.server.rule = self
        return self

    def __exit__(self, *_: object) -> None:
        self.field.server.rule = lambda _: None

    def __call__(self, request: Request) -> Reply | None:
        if self.fails(request):
            self.failed += 1
            return self.reply
        self.answered.append(mark(request.messages))
        return None


@pytest.mark.parametrize("mode", MODES)
def test_a_provider_that_fails_for_a_while_is_asked_again_and_nothing_is_answered_twice(field, whole, mode):
    since, tries = field.server.calls, Counter[str]()

    def is_early(request: Request) -> bool:
        tries[mark(request.messages)] += 1
        return since + 8 <= request.number < since + 30 and tries[mark(request.messages)] <= 2

    with Outage(field, SERVER_ERROR, is_early) as outage:
        output = field.whole(field.program(mode=mode))["output"]
    assert outage.failed > 10
    assert story(output) == story(whole[10]["output"])
    assert len(outage.answered) == len(set(outage.answered))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turns", [0, 2, 4])
def test_a_provider_that_is_down_ends_the_run_and_when_it_is_back_the_run_goes_on(field, whole, mode, turns):
    def is_late(request: Request) -> bool:
        roles = [message["role"] for message in request.messages]
        root = len(roles) > 1 and "ROOT:" in str(request.messages[1]["content"])
        return root and roles.count("assistant") >= turns

    program = field.program(mode=mode)
    with Outage(field, failure(401), is_late) as outage:
        first = field.whole(program)
        assert first["error"] == "ModelError"
        outage.fails = lambda _: False
        second = field.whole(replace(program, resume=True))
    assert story(second["output"]) == story(whole[10]["output"])
    assert second["output"]["usage"] == whole[10]["output"]["usage"]
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
def test_a_small_file_system_that_is_full_loses_no_reply(field, whole, small_disk, mode):
    since = field.server.calls
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    program = field.program(mode=mode, query=query(WIDE), home=str(small_disk))
    first = field.whole(program)
    assert first["error"] == "JournalError"
    assert set(field.asked(since)) == received(program)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    second = field.whole(replace(program, resume=True))
    assert "error" not in second, second
    assert second["output"]["answer"] == whole[WIDE]["output"]["answer"]
    assert len(field.asked(since)) == len(set(field.asked(since)))
