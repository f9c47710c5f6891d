"""The lease of a thread: one at a time, and no file of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from rlm_langchain.durability.thread_lock import (
    _lock_path,
    is_held,
    oldest_lock_time,
    thread_lock,
)
from rlm_langchain.errors import ThreadBusy
from rlm_langchain.runnable.garbage import Reachable, collect


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "leases").glob("*"))


def test_a_lease_leaves_no_file(tmp_path: Path):
    for number in range(5):
        with thread_lock(tmp_path, f"thread {number}"):
            assert len(files(tmp_path)) == 2
    assert files(tmp_path) == []


def test_a_lease_that_ends_in_an_error_leaves_no_file(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), thread_lock(tmp_path, "t"):
        raise ZeroDivisionError
    assert files(tmp_path) == []


def test_who_does_not_get_it_leaves_it_as_it_is(tmp_path: Path):
    with thread_lock(tmp_path, "t"):
        before = files(tmp_path)
        with pytest.raises(ThreadBusy, match=rf"process {os.getpid()} on "), thread_lock(tmp_path, "t"):
            pass
        assert is_held(tmp_path, "t")
        assert oldest_lock_time(tmp_path) is not None
        assert files(tmp_path) == before
    assert not is_held(tmp_path, "t")


@pytest.mark.parametrize("look", ["lease", "lease of another thread", "is_held", "collect"])
def test_what_a_killed_process_left_goes_when_somebody_looks(tmp_path: Path, look: str):
    code = "import sys\nfrom pathlib import Path\nfrom rlm_langchain.durability.thread_lock import thread_lock\n"
    code += f"with thread_lock(Path({str(tmp_path)!r}), 't'):\n    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_held(tmp_path, "t")
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
    assert len(files(tmp_path)) == 2
    match look:
        case "lease":
            with thread_lock(tmp_path, "t"):
                pass
        case "lease of another thread":
            with thread_lock(tmp_path, "u"):
                pass
        case "is_held":
            assert not is_held(tmp_path, "t")
        case "collect":
            collect(tmp_path, Reachable(), older_than=0)
    assert files(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_locks_of_another_user_are_left_alone(tmp_path: Path):
    foreign = tmp_path / "leases" / f"{'0' * 32}.lock"
    foreign.parent.mkdir()
    foreign.touch()
    os.chown(foreign, 12345, -1)
    with thread_lock(tmp_path, "t"):
        assert foreign.name in files(tmp_path)


def test_a_lock_on_a_file_that_was_removed_is_no_lease(tmp_path: Path):
    """Somebody has opened the file when its holder lets go of it: they and the next one must not both hold it."""
    with thread_lock(tmp_path, "t"):
        stale = _lock_path(tmp_path, "t").open("r+")
    with stale, thread_lock(tmp_path, "t"):
        assert os.fstat(stale.fileno()).st_ino != _lock_path(tmp_path, "t").stat().st_ino or os.name == "nt"
        with pytest.raises(ThreadBusy), thread_lock(tmp_path, "t"):
            pass


def test_many_who_want_it_never_hold_it_together(tmp_path: Path):
    inside, most, got = 0, 0, 0
    counting = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most, got
        for _ in range(20):
            try:
                with thread_lock(tmp_path, "t"):
                    with counting:
                        inside, got = inside + 1, got + 1
                        most = max(most, inside)
                    os.sched_yield() if hasattr(os, "sched_yield") else None
                    with counting:
                        inside -= 1
            except ThreadBusy:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most == 1
    assert got
    assert files(tmp_path) == []


def test_the_control_a_plain_lock_file_stays(tmp_path: Path):
    (tmp_path / "leases").mkdir()
    with FileLock(_lock_path(tmp_path, "t"), thread_local=False):
        pass
    assert len(files(tmp_path)) == (os.name != "nt")
