"""Determinism: the same cells with the same replies take the same steps, so a lost REPL can be rebuilt."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    echo,
    output,
)
from rlm_langchain.types import Step, Suspended

CELLS = (
    "import random\nprint([random.random() for _ in range(3)])",
    "import time\nprint(time.time())",
    "from datetime import datetime\nprint(datetime.now())",
    "print({'a', 'b', 'c', 'd', 'e', 'f'})",
    "notes = []\nfor n in range(3):\n    notes.append(llm_query(f'{n} {random.randint(0, 9999)}'))",
    "print(notes, llm_query_batched([f'{s}' for s in {'x', 'y', 'z'}]))",
    "1 / 0",
    "random.shuffle(notes)\nprint(notes, time.time(), datetime.now())",
    "FINAL([str(n) for n in {'p', 'q', 'r', 's'}])",
)

CPYTHON_CELLS = (
    "import uuid, secrets, os\nprint(uuid.uuid4(), secrets.token_hex(4), os.urandom(4))",
    "print(hash('text'), time.monotonic(), time.perf_counter(), time.process_time())",
    "print(object(), [id(notes)], os.getpid())",
    "import tempfile, threading\nprint(threading.get_ident(), time.localtime(), time.strftime('%H:%M:%S'))",
    "print(datetime.utcnow().isoformat(), __import__('datetime').date.today())",
)


def steps_of(session: SandboxSession, cells: tuple[str, ...]) -> list[Step]:
    """Return all the steps of a session that runs these cells."""
    steps: list[Step] = []
    for cell in cells:
        steps.append(session.run(cell))
        while isinstance(step := steps[-1], Suspended):
            steps.append(session.resume([echo(call) for call in step.calls]))
    return steps


class DeterminismClauses(Clauses):
    """Replay."""

    def test_the_same_cells_make_the_same_steps(self, open_session: Opener) -> None:
        assert steps_of(open_session(), CELLS) == steps_of(open_session(), CELLS)

    def test_the_same_cells_make_the_same_steps_in_all_of_python(self, open_session: Opener) -> None:
        self.needs("cpython")
        cells = CELLS[:6] + CPYTHON_CELLS
        assert steps_of(open_session(), cells) == steps_of(open_session(), cells)

    def test_the_clock_is_the_one_of_the_limits(self, open_session: Opener) -> None:
        session = open_session(clock=1_500_000_000.0)
        assert output(session, "import time\nprint(int(time.time()) // 1000)") == "1500000\n"

    @pytest.mark.parametrize("clock", [1_500_000_000.0, 1_700_000_000.0])
    def test_the_date_is_the_one_of_the_limits(self, open_session: Opener, clock: float) -> None:
        from datetime import UTC, datetime

        session = open_session(clock=clock)
        shown = output(session, "from datetime import datetime\nprint(datetime.now().strftime('%Y-%m-%d'))")
        assert shown.strip() == f"{datetime.fromtimestamp(clock, UTC):%Y-%m-%d}"

    def test_another_seed_draws_other_numbers(self, open_session: Opener) -> None:
        code = "import random\nprint(random.random())"
        assert output(open_session(seed=1), code) != output(open_session(seed=2), code)
