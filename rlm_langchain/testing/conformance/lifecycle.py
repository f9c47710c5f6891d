"""Opening and closing sessions: nothing is left behind."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rlm_langchain.protocols import Sandbox, SandboxSession
from rlm_langchain.testing.conformance.base import Clauses, Opener, output
from rlm_langchain.testing.hostile.judge import children
from rlm_langchain.types import (
    Completed,
    Died,
    Limits,
    Reply,
    Step,
    Suspended,
)


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counted through /proc")


class LifecycleClauses(Clauses):
    """Sessions come and go."""

    def test_it_has_a_name_and_is_complete_here(self, sandbox: Sandbox) -> None:
        assert sandbox.name
        assert isinstance(sandbox.guidance, str)
        assert sandbox.missing() is None

    def test_closing_twice_is_safe(self, session: SandboxSession) -> None:
        session.close()
        session.close()

    def test_a_closed_session_is_dead(self, session: SandboxSession) -> None:
        session.close()
        assert isinstance(session.run("print(1)"), Died)

    def test_a_session_can_be_closed_while_it_waits(self, session: SandboxSession) -> None:
        assert isinstance(session.run("llm_query('a')"), Suspended)
        session.close()
        assert isinstance(session.run("print(1)"), Died)

    def test_a_session_can_be_closed_from_another_thread_while_it_runs(self, open_session: Opener) -> None:
        session = open_session(seconds=30)
        steps: list[Step] = []
        session.run("llm_query('a')\nwhile True:\n    pass")
        thread = threading.Thread(target=lambda: steps.append(session.resume([Reply("go on")])))
        thread.start()
        session.close()
        thread.join(10)
        assert isinstance(steps[0], Died)

    def test_sessions_run_side_by_side_in_threads(self, open_session: Opener) -> None:
        sessions = [open_session() for _ in range(4)]
        shown: dict[int, str] = {}

        def work(n: int) -> None:
            shown[n] = output(sessions[n], f"print(sum(range({n} * 1000)))")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert shown == {n: f"{sum(range(n * 1000))}\n" for n in range(4)}

    def test_a_paused_session_can_be_resumed_in_another_thread(self, session: SandboxSession) -> None:
        steps: list[Step] = []
        assert isinstance(session.run("print(llm_query('a'))"), Suspended)
        thread = threading.Thread(target=lambda: steps.append(session.resume([Reply("r")])))
        thread.start()
        thread.join(10)
        assert steps == [Completed("r\n")]

    def test_a_session_outlives_the_thread_that_opened_it(self, open_session: Opener) -> None:
        sessions: list[SandboxSession] = []
        thread = threading.Thread(target=lambda: sessions.append(open_session()))
        thread.start()
        thread.join(30)
        assert output(sessions[0], "print('alive')") == "alive\n"

    @needs_proc
    def test_nothing_is_left_behind(self, sandbox: Sandbox) -> None:
        sandbox.open(None, "", Limits()).close()  # resources that are opened once and kept are no leak
        fds, processes = descriptors(), children()
        for end in ("x = 1", "llm_query('a')", "1 / 0", "FINAL(1)"):
            session = sandbox.open(None, "", Limits())
            session.run(end)
            session.close()
        assert descriptors() <= fds
        assert children() <= processes
