"""Wrongs that are planted in the code, one after the other, and the checks that find them.

    python -m tests.durable.mutants                all of them, as a table for docs/explanation/verified.md
    python -m tests.durable.mutants NAME ...       these, with what each check says

Each is a text in a file of the package that stands for another one. It is replaced in a copy of the package, in a
folder for temporary files, and the copy is checked there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rlm_langchain"
CHECK = "--check"
SEEDS = 60
"""Seeds that are simulated for each wrong."""
PATIENCE = 400
"""Seconds for a check. A wrong that has it go on for ever is found, too."""


@dataclass(frozen=True)
class Mutant:
    """One text that stands for another."""

    name: str
    """What is wrong, as the table says it."""
    file: str
    right: str
    wrong: str

    def planted(self, text: str) -> str:
        """The file with the wrong in it. Raises `ValueError` unless the right text is there, and once."""
        if text.count(self.right) != 1:
            raise ValueError(
                f"{self.file} has the text of {self.name!r} {text.count(self.right)} times: {self.right!r}"
            )
        return text.replace(self.right, self.wrong)


LEDGER, TREE, RECEIPTS = "budget/ledger.py", "run/run_tree.py", "durability/receipts.py"
ASK, REPL = "run/ask_model.py", "run/repl.py"
SCOPE, SAVER = "runnable/run_scope.py", "durability/checkpointer.py"
MUTANTS = (
    Mutant(
        "a settlement is skipped",
        LEDGER,
        "            self._release(entry)\n            self.spent = self.spent.plus(used)\n",
        "            self._release(entry)\n",
    ),
    Mutant(
        "a lost request is free",
        LEDGER,
        "lost = self.wanted._replace(estimated=True)",
        "lost = Usage(estimated=True)",
    ),
    Mutant(
        "a request that was cut off is not lost",
        LEDGER,
        "            if entry.in_flight:  # cut off\n                entry.lose()\n",
        "",
    ),
    Mutant(
        "a request is sent before its line is written",
        LEDGER,
        "self.key = self.log.sent(self.call_path, self.wanted)",
        'self.key = "sent"',
    ),
    Mutant(
        "a failure leaves its line open",
        LEDGER,
        "if self.log and was_in_flight:",
        "if self.log and self.in_flight:",
    ),
    Mutant(
        "reservations are not counted",
        LEDGER,
        "self._refusal(entry.wanted, self.spent, self._reserved, last=entry.last)",
        "self._refusal(entry.wanted, self.spent, last=entry.last)",
    ),
    Mutant(
        "a reservation is released twice",
        LEDGER,
        "entry.wanted)\n            entry.admitted = False\n",
        "entry.wanted)\n",
    ),
    Mutant(
        "a reservation is kept for ever",
        LEDGER,
        "            self._reserved = _subtract(self._reserved, entry.wanted)\n",
        "",
    ),
    Mutant(
        "what earlier processes have spent is forgotten",
        TREE,
        "                self.ledger.add_spent(used)\n                if tools:",
        "                if tools:",
    ),
    Mutant(
        "the journal is added to the receipts",
        TREE,
        "                if call_path not in self._spent and call_path not in self._below\n",
        "",
    ),
    Mutant(
        "a fork has spent nothing",
        TREE,
        "            self.note(call_path, usage)\n            self.ledger.add_spent(usage)\n",
        "            self.note(call_path, usage)\n",
    ),
    Mutant(
        "a fork forgets the paths of what it has spent",
        TREE,
        "            self.note(call_path, usage)\n            self.ledger.add_spent(usage)\n",
        "            self.ledger.add_spent(usage)\n",
    ),
    Mutant(
        "a call is not counted for the runs above it",
        TREE,
        "            for path in _runs_above(call_path):\n",
        "            for path in [*_runs_above(call_path)][1:]:\n",
    ),
    Mutant(
        "a reply does not settle its request",
        TREE,
        '{**self._request(call_path, used), **reply.fields, "settles": key}',
        "{**self._request(call_path, used), **reply.fields}",
    ),
    Mutant(
        "a reply settles the first request",
        TREE,
        '**reply.fields, "settles": key}',
        '**reply.fields, "settles": "sent 0"}',
    ),
    Mutant(
        "a resumed run does not say that requests were lost",
        TREE,
        "                if is_lost:\n",
        "                if False:\n",
    ),
    Mutant(
        "a number of a request is used again",
        RECEIPTS,
        'key = f"{SENT}{self._end}"',
        'key = f"{SENT}{self._end // 2000}"',
    ),
    Mutant(
        "lost requests are dropped when a run is resumed",
        RECEIPTS,
        "for one in [*self._settled.values(), *self._requests.values()]",
        'for one in [*self._settled.values(), *self._requests.values()] if not one.get("open")',
    ),
    Mutant(
        "a settled request counts, too",
        RECEIPTS,
        '                self._requests.pop(reply["settles"], None)\n',
        "",
    ),
    Mutant(
        "a line that is there twice counts twice",
        RECEIPTS,
        'self._settled[reply["settles"]] = reply',
        "self._settled[str(len(self._settled))] = reply",
    ),
    Mutant(
        "lines are written after half a line",
        RECEIPTS,
        "self._end = len(whole) + len(newline)",
        "self._end = len(data)",
    ),
    Mutant(
        "half a line is damage",
        RECEIPTS,
        'whole, newline, _ = data.rpartition(b"\\n")',
        'whole, newline = data, b""',
    ),
    Mutant(
        "a reply on disk is not found",
        RECEIPTS,
        "return self._replies.get(key)",
        "return None",
    ),
    Mutant(
        "a reply is used and never kept",
        ASK,
        "entry.book(used, Receipt(_receipt_key_of(request, completion), _receipt(request, completion)))",
        "entry.book(used)",
    ),
    Mutant(
        "any reply answers any request of its place",
        ASK,
        'return f"{call_path} {hashlib.sha256(described.encode()).hexdigest()}"',
        'return f"{call_path} {model.name}"',
    ),
    Mutant(
        "a number of a call is used again",
        REPL,
        "self.next_call += len(self.pending_calls)",
        "self.next_call += 1",
    ),
    Mutant(
        "a rebuilt REPL skips a cell",
        REPL,
        "index = self.cells_started - 1 if self.pending_calls else self.cells_started",
        "index = self.cells_started - 1 if self.pending_calls else max(1, self.cells_started)",
    ),
    Mutant(
        "nobody takes the lock",
        SCOPE,
        "with thread_lock(home, thread, name), database_thread_lock(saver, thread):",
        "with database_thread_lock(saver, thread):",
    ),
    Mutant(
        "receipts of a run that has ended are left",
        SCOPE,
        "            if parent := await asyncio.to_thread(self._before_end, snapshot, config):\n",
        "            if parent := None:\n",
    ),
    Mutant(
        "a clock that was set back hides checkpoints",
        SAVER,
        '    _come_after(found.checkpoint["id"])\n',
        "",
    ),
)


# ---- the checks, in the copy


def check_traces() -> None:
    """The traces of the specification that are in the repository, replayed."""
    import asyncio
    import json

    from tests.durable.spec_traces import RECORDED, Replay

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        for number, steps in enumerate(json.loads(RECORDED.read_text(encoding="utf-8"))):
            (there := Path(folder, str(number))).mkdir()
            Replay(there, runner.get_loop()).replay(steps)


def check_stories() -> None:
    """The stories of the account."""
    from tests.unit.durability.test_account_machine import tell_stories

    tell_stories(150, 1, shorten=False)


def check_simulation() -> None:
    """Whole runs, up to the first that fails."""
    from tests.durable.simulation import bench

    with bench() as at:
        for seed in range(SEEDS):
            at.simulate(seed)


CHECKS = {"traces": check_traces, "stories": check_stories, "simulation": check_simulation}
BEGINS, FINDS = "begins ", "finds "
"""What a process that checks says of a check."""


def check_all() -> None:
    """Run all checks, and say which of them find something."""
    for name, check in CHECKS.items():
        print(f"{BEGINS}{name}", flush=True)
        try:
            check()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it was found
            print(f"{FINDS}{name} {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)


def found_by(mutant: Mutant, copy: Path) -> dict[str, str]:
    """Plant a wrong in the copy, run all checks there, and take it out again. What the checks say that find it."""
    file = copy / "rlm_langchain" / mutant.file
    right = file.read_text(encoding="utf-8")
    file.write_text(mutant.planted(right), encoding="utf-8")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.durable.mutants", CHECK]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, stdout=subprocess.PIPE, timeout=PATIENCE, check=False
        ).stdout.decode()
    except subprocess.TimeoutExpired as waited:
        done = (waited.stdout or b"").decode()
        done += f"\n{FINDS}{done.rpartition(BEGINS)[2].split()[0]} it went on for ever"
    finally:
        file.write_text(right, encoding="utf-8")
    found = [line.removeprefix(FINDS).partition(" ") for line in done.splitlines() if line.startswith(FINDS)]
    return {name: text for name, _, text in found}


def main(names: Iterable[str]) -> int:
    """Try these wrongs, or all. Returns 1 if one was not found."""
    wanted = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="rlm-mutants-") as folder:
        copy = Path(folder)
        for part in ("rlm_langchain", "tests"):
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        print("| planted fault | found by |\n|---|---|")
        for mutant in wanted:
            said = found_by(mutant, copy)
            missed += not said
            print(f"| {mutant.name} | {', '.join(said) or 'NOTHING'} |", flush=True)
            if names:
                for check, text in said.items():
                    print(f"    {check}: {text[:300]}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(check_all() if sys.argv[1:] == [CHECK] else main(sys.argv[1:]))
