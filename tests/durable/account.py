"""A process at work on the account of a run: the real tree, ledger and receipts, driven one effect at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from rlm_langchain import Budget
from rlm_langchain.budget.ledger import Receipt, Reservation
from rlm_langchain.records import Record
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.checksum import checksum
from rlm_langchain.types import Usage
from tests.records import RecordBuilder


class Held:
    """A call that has reserved, or waits for its turn, in a task of its own."""

    def __init__(self, tree: RunTree, place: str, wanted: Usage) -> None:
        self.place, self.wanted = place, wanted
        self.entry: Reservation | None = None
        self._over = asyncio.Event()
        self.task = asyncio.ensure_future(self._work(tree))

    async def _work(self, tree: RunTree) -> None:
        async with tree.reserve(self.place, self.wanted) as self.entry:
            await self._over.wait()

    def __repr__(self) -> str:
        return f"the call at {self.place!r}"

    @property
    def waits(self) -> bool:
        return self.entry is None and not self.task.done()

    @property
    def sent(self) -> bool:
        return self.entry is not None and self.entry.in_flight

    def end(self) -> None:
        self._over.set()


class Process:
    """One process at work on a run. Ended by `kill` at any moment, it leaves what is on disk then, and no more."""

    def __init__(
        self, path: Path, budget: Budget, journal: Mapping[int, Usage], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.path, self._loop = path, loop
        self.tree = RunTree(budget)
        self.tree.open_receipts(path)
        if journal:
            self.tree.journal("", told(journal))
        assert self.tree.receipts is not None
        loop.run_until_complete(self.tree.receipts.open())
        self.held: list[Held] = []

    def reserve(self, place: str, wanted: Usage) -> Held:
        """Ask for a reservation: it is admitted, waits, or is refused."""
        held = self._loop.run_until_complete(self._begun(place, wanted))
        if not held.task.done():
            self.held.append(held)
        return held

    async def _begun(self, place: str, wanted: Usage) -> Held:
        held = Held(self.tree, place, wanted)
        await _turns()
        return held

    def reply(self, held: Held, used: Usage, key: str | None) -> None:
        """A reply comes, and its call ends. Without a key it cannot be read, but was billed."""
        assert held.entry is not None
        held.entry.book(used, Receipt(key, {"text": f"reply to {key}"}) if key is not None else None)
        held.end()
        self.go_on()

    def cancel(self, held: Held) -> None:
        """Cut a call off, wherever it is."""
        held.task.cancel()
        self.go_on()

    def go_on(self) -> None:
        """Let everybody go on as far as they can."""
        self._loop.run_until_complete(_turns())
        for one in self.held:
            if one.task.done() and not one.task.cancelled():
                one.task.exception()  # one that has waited may be refused
        self.held = [one for one in self.held if not one.task.done()]

    def close(self) -> None:
        """End as a process should."""
        for held in self.held:
            held.task.cancel()
        self.go_on()
        self.tree.close()

    def kill(self) -> None:
        """End at once. What its objects do while they are taken down is undone on disk."""
        left = self.path.read_bytes()
        self.close()
        self.path.write_bytes(left)


async def _turns() -> None:
    for _ in range(4):  # of the event loop: a task that is woken may wake another one
        await asyncio.sleep(0)


def told(journal: Mapping[int, Usage]) -> list[Record]:
    """The records of a run whose calls, by number, have used so much."""
    run = RecordBuilder().question().turn(0, "```repl\nask()\n```", "ask()\n", used=Usage()).cell(0, "ask()")
    run.wave(0, 0, len(journal))
    for call, used in journal.items():
        run.call(0, call, usage=used.record())
    for record in run.records:
        record["seal"] = checksum(record)
    return run.records
