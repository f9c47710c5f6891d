"""Traces of the specification (`docs/spec/rlm_run.qnt`), replayed on the real tree, ledger and receipts.

Record those in `tests/data` anew, after a change of the specification:

    python -m tests.durable.spec_traces TRACE.itf.json ... > tests/data/run_traces.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlm_langchain import Budget
from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.types import Usage, total_usage
from tests.durable.account import Held, Process

RECORDED = Path(__file__).parents[1] / "data" / "run_traces.json"
LIMIT, MOST = 13, 3
"""As in the specification: dollars of the budget, and of a request."""
THREADS = ("main", "fork")


def plain(value: Any) -> Any:
    """A value of the Informal Trace Format."""
    match value:
        case {"#bigint": number}:
            return int(number)
        case {"#map": pairs}:
            return {str(plain(key)): plain(held) for key, held in pairs}
        case {"#set": members} | {"#tup": members}:
            return [plain(one) for one in members]
        case dict():
            return {key: plain(held) for key, held in value.items()}
        case _:
            return value


def story(trace: Path) -> list[dict[str, Any]]:
    """What a trace does, step by step, and how the accounts stand after each."""
    steps: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for state in json.loads(trace.read_text())["states"]:
        now = plain(next(held for name, held in state.items() if name.endswith("::now")))
        picked = {
            name: plain(one["value"]) for name, one in state["mbt::nondetPicks"].items() if one["tag"] == "Some"
        }
        step = {"does": state["mbt::actionTaken"]}
        step |= {name: picked[name] for name in ("p", "thread", "call") if name in picked}
        if step["does"] == "start":
            step["journal"] = now["disk"][step["thread"]]["journal"]
        if step["does"] == "receive":
            request = before["processes"][step["p"]]["holds"][str(step["call"])]["request"]
            step["bill"] = before["provider"][str(request)]["bill"]
        if step["does"] == "end":
            step["refused"] = len(before["processes"][step["p"]]["done"]) < 4
        steps.append({**step, "after": _accounts(now)})
        before = now
    return steps


def _accounts(state: dict[str, Any]) -> dict[str, Any]:
    lines = {thread: state["disk"][thread]["lines"].values() for thread in THREADS}
    return {
        "processes": {
            name: [one["spent"], MOST * len(one["holds"])]
            for name, one in state["processes"].items()
            if one["thread"] != "none"
        },
        "recorded": {thread: sum(one["amount"] for one in lines[thread]) for thread in THREADS},
        "open": {thread: sum(one["open"] for one in lines[thread]) for thread in THREADS},
        "replies": {thread: sorted(one["call"] for one in lines[thread] if one["reply"]) for thread in THREADS},
    }


def usage(dollars: float) -> Usage:
    return Usage(1, 0, 0, 0, float(dollars))


class Replay:
    """The real processes of a story. `done` counts what they did."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.files = {thread: folder / f"{thread}.jsonl" for thread in THREADS}
        self.processes: dict[str, Process] = {}
        self.done = Counter[str]()
        self._loop = loop

    def replay(self, steps: Iterable[dict[str, Any]]) -> None:
        for number, step in enumerate(steps):
            self._do(step)
            self.done[step["does"]] += 1
            accounts = self._accounts()
            assert accounts == step["after"], f"after step {number}, {step['does']}"
            for process in self.processes.values():
                assert process.tree.spent_below("") == process.tree.ledger.spent, "each part of it has a place"
        for process in self.processes.values():
            process.close()

    def _do(self, step: dict[str, Any]) -> None:
        does, name = step["does"], step.get("p", "")
        if does == "start":
            journal = {int(call): usage(used) for call, used in step["journal"].items()}
            self.processes[name] = Process(self.files[step["thread"]], Budget(usd=LIMIT), journal, self._loop)
            return
        if does in ("init", "provide", "agree", "fork", "send", "checkpoint"):
            return  # of the provider, of a person, of the saver
        process = self.processes[name]
        if does == "reserve":
            assert process.reserve(str(step["call"]), usage(MOST)).entry is not None, "the ledger says no"
        elif does in ("note", "receive", "fails", "lose"):
            self._get_on(process, does, step)
        elif does == "kill":
            self.processes.pop(name).kill()
        else:
            assert does in ("pause", "end"), does
            if step.get("refused"):
                refused = process.reserve("0", usage(MOST)).task
                assert isinstance(refused.exception(), BudgetRefused)
            self.processes.pop(name).close()

    def _get_on(self, process: Process, does: str, step: dict[str, Any]) -> None:
        held: Held = next(one for one in process.held if one.place == str(step["call"]))
        assert held.entry is not None
        if does == "note":
            assert held.entry.begin()
        elif does == "receive":
            process.reply(held, usage(step["bill"]), f"reply {step['call']}")
        elif does == "fails":
            held.entry.withdraw()
        else:
            process.cancel(held)

    def _accounts(self) -> dict[str, Any]:
        kept = {thread: Receipts(path) for thread, path in self.files.items()}  # as a new process reads them
        ledgers = {name: process.tree.ledger for name, process in self.processes.items()}
        return {
            "processes": {
                name: [_dollars(ledger.spent), _dollars(ledger.committed) - _dollars(ledger.spent)]
                for name, ledger in ledgers.items()
            },
            "recorded": {
                thread: _dollars(total_usage(one.used for one in receipts.requests()))
                for thread, receipts in kept.items()
            },
            "open": {thread: sum(one.lost for one in receipts.requests()) for thread, receipts in kept.items()},
            "replies": {
                thread: [call for call in range(1, 5) if receipts.find(f"reply {call}")]
                for thread, receipts in kept.items()
            },
        }


def _dollars(used: Usage) -> float:
    assert used.cost is not None
    return used.cost


if __name__ == "__main__":
    stories = [json.dumps(story(Path(name)), separators=(",", ":")) for name in sys.argv[1:]]
    print("[" + ",\n".join(stories) + "]")
