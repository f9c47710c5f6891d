"""Whole runs, simulated: one seed gives what models say and when, what fails, who is killed, and who goes on first.

    python -m tests.durable.simulation 17          one seed, effect by effect
    python -m tests.durable.simulation 0:10000     many: those that fail are printed

The graph, the ledger, receipts, journal, checkpointer (SQLite) and the sandbox (monty) are real; the models, the
clocks, threads and the moment of death are not, see `simulated_process.py`.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.base import id as checkpoint_ids
from pydantic import PrivateAttr

from rlm_langchain import Budget, InputError, ThreadBusy, create_rlm
from rlm_langchain.durability import thread_lock
from rlm_langchain.models.model import Model, Price
from rlm_langchain.run.run_tree import RunTreeRegistry
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.types import Usage, total_usage
from tests.durable.arena import story
from tests.durable.limit import lost_in
from tests.durable.simulated_process import Disk, Fate, Killed, Postgres, PostgresDisk, Sqlite, run
from tests.processes import children

PLAN = 10
"""Seeds in a row that share a program: it is run once with nobody to disturb it."""
PRICE = Price(50.0, 200.0)
ENOUGH = Budget(calls=500, depth=3)
MOST_CALLS = 12
"""Calls of the budget of runs that are killed twice."""


# ---- what a run does


@dataclass(frozen=True)
class Program:
    """What the models say: the cells of each run, by the word that its question has."""

    cells: dict[str, list[str]]
    budget: Budget
    memo: bool
    faulty: float
    """Share of the requests that fail."""
    seed: int

    @property
    def is_scarce(self) -> bool:
        """Whether its budget may end it: then its answer depends on what a death has cost."""
        return self.budget != ENOUGH

    def reply(self, messages: Sequence[BaseMessage]) -> str:
        """What a model says to this, and to nothing else."""
        mark = mark_of(messages)
        if messages[0].type != "system":
            return f"<said {mark}>"
        question = str(messages[1].content)
        cells = next(cells for name, cells in reversed(self.cells.items()) if f"{name};" in question)
        turn = sum(message.type == "ai" for message in messages)
        if "has to end now" in str(messages[-1].content):
            return f"The best that is known. {mark}"
        return f"```repl\n{cells[min(turn, len(cells) - 1)]}\n# {mark}\n```"


def mark_of(messages: Sequence[BaseMessage]) -> str:
    """What stands for these messages."""
    asked = json.dumps([[message.type, message.content] for message in messages])
    return "m" + hashlib.sha256(asked.encode()).hexdigest()[:16]


class Author:
    """Writes a program."""

    def __init__(self, seed: int) -> None:
        self._chance, self._seed = random.Random(f"program {seed}"), seed
        self._cells: dict[str, list[str]] = {}
        self._asked = 0
        self._memo = self._chance.random() < 0.7

    def write(self) -> Program:
        chance = self._chance
        self._run(chance.choice([0, 0, 0, 0, 1, 2]))
        budget = ENOUGH
        if chance.random() < 0.5:
            concurrency = chance.randint(1, 8)
            budget = chance.choice(
                [
                    Budget(calls=chance.randint(2, 16), depth=3, concurrency=concurrency),
                    Budget(usd=chance.uniform(0.9, 8), depth=3, concurrency=concurrency),
                    Budget(tokens=chance.randint(6_000, 40_000), depth=3, concurrency=concurrency),
                ]
            )
        return Program(self._cells, budget, self._memo, chance.choice([0, 0.1, 0.3]), self._seed)

    def _run(self, depth: int) -> str:
        name = f"RUN{len(self._cells)}"
        self._cells[name] = []
        cells = [self._cell(depth) for _ in range(self._chance.choice([1, 1, 1, 2]))]
        cells[0] = "got = []\n" + cells[0]
        if self._chance.random() < 0.7:
            cells[-1] += "\nFINAL(got)"
        else:
            cells.append("FINAL(got)")
        self._cells[name] = cells
        return name

    def _cell(self, depth: int) -> str:
        steps = [self._step(depth) for _ in range(self._chance.choice([1, 1, 2]))]
        return "\n".join([*steps, "print(len(got), str(got[-1])[-30:])"])

    def _step(self, depth: int) -> str:
        self._asked += 1
        prompt = f"'ask {self._asked} after ' + (str(got[-1])[-24:] if got else '')"
        wide = self._chance.choice([2, 3, 5, 8])
        if depth and self._chance.random() < 0.5 and len(self._cells) < 3:
            if self._chance.random() < 0.5:
                return f"got.append(rlm_query('{self._run(depth - 1)}; ' + {prompt}, context))"
            names = [self._run(depth - 1) for _ in range(2)]
            return f"got += rlm_query_batched({[f'{name}; go' for name in names]}, ['a', 'b'])"
        same = (
            f"['same {self._asked}'] * 3" if self._memo else f"['same {self._asked}', 'and another {self._asked}']"
        )
        return self._chance.choice(
            [
                f"got.append(llm_query({prompt}))",
                f"try:\n    got.append(llm_query({prompt}))\nexcept LLMError:\n    got.append('none')",
                f"before = {prompt}\ngot += llm_query_batched([f'{{i}} {{before}}' for i in range({wide})])",
                f"got += llm_query_batched({same})",
                f"left = budget()\ngot.append(llm_query({prompt}))",
            ]
        )


# ---- the provider


class RateLimitError(Exception):
    status_code = 429


class BadRequestError(Exception):
    status_code = 400


class ConnectError(Exception):
    """Nothing was sent."""


class ReadError(Exception):
    """The reply did not arrive."""


FAULTS = (RateLimitError, ConnectError, ReadError, BadRequestError)


@dataclass
class Request:
    """A request that the provider has seen."""

    mark: str
    bill: Usage
    was_refused: bool = False
    """Whether it failed in a way that costs nothing."""


class Scripted(BaseChatModel):
    """A chat model that asks the provider of a world."""

    max_tokens: int | None = None
    model_name: str = "scripted"
    _world: Any = PrivateAttr(None)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = await self._world.answer(messages, kwargs.get("max_tokens", self.max_tokens))
        return ChatResult(generations=[ChatGeneration(message=reply)])


# ---- the world


@dataclass
class World:
    """The provider, the disk and the clock, while processes come and go. Knows what must be so."""

    program: Program
    disk: Disk
    chance: random.Random
    thread: str
    requests: list[Request] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    """Marks of the replies that were on disk when the last process ended: nobody may ask for them again."""
    tries: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    fate: Fate = field(default_factory=lambda: Fate(random.Random(0)))
    last_lines: list[dict[str, Any]] = field(default_factory=list)
    """The receipts as they were before they were removed."""
    trees: RunTreeRegistry = field(default_factory=RunTreeRegistry)
    wrong: list[str] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    """What was seen of what a simulation is about."""

    async def answer(self, messages: list[BaseMessage], cap: int | None) -> AIMessage:
        """Reply, or fail; sooner or later."""
        mark = mark_of(messages)
        fault = self._fault(mark, messages)
        fate = self.fate
        if fate.dead:
            raise asyncio.CancelledError
        if fault is ConnectError:
            await self._a_while()
            raise fault("no route")
        self.must(mark not in self.kept, f"{mark} was answered, and is asked again")
        words = self.program.reply(messages).split(" ")
        words = words[:cap]
        read = sum(len(str(message.content).split()) for message in messages)
        told = {"input_tokens": read, "output_tokens": len(words), "total_tokens": read + len(words)}
        used = Usage(1, read, 0, len(words))
        refused = fault in (RateLimitError, BadRequestError)
        request = Request(mark, Usage() if refused else used._replace(cost=PRICE.of(used)), refused)
        self.requests.append(request)
        self.in_flight += 1
        self.must(self.in_flight <= self.program.budget.concurrency, "more are in flight than may be")
        fate.effect(f"request {mark}")
        try:
            self.check_limit()
            await self._a_while()
            if fault is not None:
                raise fault("as was drawn")
            fate.effect(f"reply {mark}")
        finally:
            self.in_flight -= 1
        model = {"model_name": "scripted"}
        return AIMessage(" ".join(words), usage_metadata=told, response_metadata=model)  # type: ignore[arg-type]

    def _fault(self, mark: str, messages: list[BaseMessage]) -> type[Exception] | None:
        """How this request fails, by what was asked and how often. A call is given up after five."""
        chance = random.Random(f"{self.program.seed} {mark}")
        if chance.random() >= self.program.faulty:
            return None
        kinds = FAULTS if messages[0].type != "system" else FAULTS[:-1]
        kind, times = chance.choice(kinds), chance.choice([1, 1, 2])
        self.tries[mark] += 1
        return kind if kind is BadRequestError or self.tries[mark] <= times else None

    async def _a_while(self) -> None:
        await asyncio.sleep(self.chance.choice([0, 0, 0.01, 0.5, 3.0, 40.0]))

    # ---- what must be so

    @property
    def bill(self) -> Usage:
        """What the provider has billed, and will."""
        return total_usage(request.bill for request in self.requests)

    def check_limit(self) -> None:
        """The provider has not billed more than the limit, and the ledger knows of all of it."""
        self.within(self.bill, "the bill")
        for tree in self.trees._alive.values():
            booked = tree.ledger.committed
            self.must(covers(booked, self.bill), f"booked {booked}, billed {self.bill}")
            self.within(tree.ledger.spent, "what is spent")

    def within(self, used: Usage, what: str) -> None:
        """No limit is passed."""
        budget = self.program.budget
        self.must(used.calls <= (budget.calls or 10**9), f"{what}: {used.calls} calls of {budget.calls}")
        self.must(used.tokens <= (budget.tokens or 10**9), f"{what}: {used.tokens} tokens of {budget.tokens}")
        self.must((used.cost or 0) <= (budget.usd or 10**9) + 1e-6, f"{what}: ${used.cost} of {budget.usd}")

    def must(self, is_so: bool, text: str) -> None:
        """Note what is wrong, until the process has ended: it would take an error for one of the provider."""
        if not is_so:
            self.wrong.append(text)

    def watch(self, what: str) -> None:
        """Look after an effect."""
        if what == "a file is removed" and (lines := self.lines()):
            self.last_lines = lines
        if what == "a line was written" and self.chance.random() < 0.05:
            self.check_lock()

    def check_lock(self) -> None:
        """Nobody else can begin to work on the thread."""
        self.said["another process was refused"] += 1
        try:
            with thread_lock.thread_lock(self.disk.home, self.thread):
                self.must(False, "two processes work on the same thread")
        except ThreadBusy:
            pass

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of all receipts on disk."""
        texts = [held.rstrip(b"\0").rpartition(b"\n")[0] for held in self.disk.receipts()]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def check_kept(self) -> None:
        """After a death: what is on disk accounts for all that is billed, or may be."""
        lines = self.lines()
        self.kept |= {word.strip("<>") for line in lines for word in str(line.get("text", "")).split()}
        if not lines and self.last_lines:
            return  # it had its answer, and was closing
        recorded, lost = recorded_in(lines)
        self.said["killed with requests in flight"] += bool(lost)
        assert covers(recorded, self.bill), f"on disk {recorded}, billed {self.bill}"
        self.within(recorded, "what is on disk")

    def check_end(self, output: dict[str, Any], whole: dict[str, Any] | None) -> None:
        """What the output says was used is the sum of its records, and of its receipts, and covers the bill."""
        root, sub = (Usage(**output["usage"][part]) for part in ("root", "sub"))
        used = root.plus(sub)
        recorded, _ = recorded_in(self.last_lines)
        summed = total_usage(used_in(output["trajectory"]))
        for other, name in ((recorded, "the receipts"), (summed, "the records")):
            assert used[:4] == other[:4], f"the output says {used}, {name} say {other}"
            assert abs((used.cost or 0) - (other.cost or 0)) < 1e-6
        assert covers(used, self.bill), f"the output says {used}, billed {self.bill}"
        self.within(used, "what was used")
        lost = sum(lost_in(output["trajectory"]).values())
        heard = {line.get("settles") for line in self.last_lines if "text" in line} - {None}
        assert used.calls == len(heard) + lost, f"{used.calls} calls, {len(heard)} replies, {lost} lost"
        if not lost:
            assert used[:4] == self.bill[:4]
        self.said["ended with lost requests"] += bool(lost)
        self.said[f"ended: {output['stop_reason']}"] += 1
        if whole is not None and not self.program.is_scarce:
            assert output["answer"] == whole["answer"], "another answer than that of an undisturbed run"
            assert story(output) == story(whole), "another story than that of an undisturbed run"
        assert output["answer"] is not None or output["status"] == "failed"
        left = [str(path) for kind in ("receipts/*", "leases/*") for path in self.disk.home.glob(kind)]
        assert not left, f"left on disk: {left}"


def covers(known: Usage, bill: Usage) -> bool:
    """Whether what is known accounts for all of a bill."""
    enough = all(mine >= theirs for mine, theirs in zip(known[:4], bill[:4], strict=True))
    return enough and (known.cost or 0) >= (bill.cost or 0) - 1e-6


def recorded_in(lines: list[dict[str, Any]]) -> tuple[Usage, int]:
    """What receipts account for, and how many requests have no reply. Read here in a way of our own."""
    requests = {line["key"]: line for line in lines if line["key"].startswith("sent ")}
    requests |= {line["settles"]: line for line in lines if "settles" in line}
    usages = [Usage(**line["usage"]) for line in requests.values()]
    return total_usage(usages), sum(bool(line.get("open")) for line in requests.values())


def used_in(records: list[Any]) -> Iterator[Usage]:
    """What each record of a tree says was used."""
    for record in records:
        if "child" in record:
            yield from used_in(record["child"])
        elif "usage" in record:
            yield Usage(**record["usage"])


# ---- one seed


class Machine:
    """A program, and the RLM that runs it, which holds nothing of a run."""

    def __init__(self, program: Program, folder: Path, postgres: str = "") -> None:
        self.program, self._folder, self._postgres = program, folder, postgres
        self.rlm = create_rlm(
            Model("scripted", Scripted(), price=PRICE),
            sandbox=MontySandbox(),
            budget=program.budget,
            memo=program.memo,
            checkpointer=Postgres(None) if postgres else Sqlite(None),  # type: ignore[arg-type]
            home=folder / "home",
        )
        self.log: list[str] = []
        """The effects of the last run."""
        self._runs = 0

    def run(
        self, chance: random.Random, deaths: Sequence[int], whole: Any = None, *, in_memory: bool = True
    ) -> tuple[Any, World]:
        """Run the program, which dies at these effects and is resumed until it ends. Returns its output."""
        self._runs, before = self._runs + 1, set(children())
        disk = PostgresDisk(self._folder, self._postgres) if self._postgres else Disk(self._folder, in_memory)
        world = World(self.program, disk, chance, f"simulated {self._runs}")
        components, saver = self.rlm.built.components, cast(Any, self.rlm.built.graph.checkpointer)
        cast(Any, components.root.chat)._world, world.trees = world, components.trees
        self.log, wall = [], 1.7e9
        for kill_at in [*deaths, 0]:
            wall += chance.choice([60, 60, 86_400, -30, -7_200])
            fate = Fate(chance, kill_at, wall, log=self.log, watch=world.watch, dies=disk.keep)
            world.fate, world.in_flight, saver.fate = fate, 0, fate
            components.trees.__init__()  # type: ignore[misc]
            thread_lock._remove_abandoned.cache_clear()
            checkpoint_ids._last_v6_timestamp = None
            disk.attach(saver)
            try:
                output = run(fate, self._work(world.thread))
            except Killed:
                world.said["killed"] += 1
                disk.detach()
                world.check_kept()
                assert not world.wrong, world.wrong
                continue
            disk.detach()
            world.check_end(output, whole)
            assert not world.wrong, world.wrong
            assert not components.trees._alive, "a run is held that has ended"
            assert set(children()) <= before, "a worker lives on"
            return output, world
        raise AssertionError("it never ended")

    async def _work(self, thread: str) -> Any:
        config: Any = {"configurable": {"thread_id": thread}}
        try:
            output = await self.rlm.ainvoke(None, config)
        except InputError:  # nothing was asked yet
            output = await self.rlm.ainvoke({"query": "RUN0; what is in it?", "context": "a text " * 20}, config)
        state = await self.rlm.graph.aget_state(config)
        assert state.values.get("answer") == output["answer"], "the thread does not hold the answer that was given"
        return output


class Bench:
    """Where seeds are simulated."""

    def __init__(self, folder: Path, postgres: str = "") -> None:
        self._folder, self._postgres = folder, postgres
        self._number = -1
        self._whole: Any = None
        self._effects = 0
        self.machine: Machine
        self.said = Counter[str]()

    def simulate(self, seed: int) -> None:
        """Raises `AssertionError` when something is not so that must be so."""
        if seed // PLAN != self._number:
            self._begin(Author(seed // PLAN).write())
            self._number = seed // PLAN
        chance = random.Random(f"seed {seed}")
        deaths = [chance.randint(1, self._effects)]
        deaths += [chance.randint(1, self._effects // 2 + 1)] if chance.random() < 0.25 else []
        _, world = self.machine.run(chance, deaths, self._whole, in_memory=seed % 5 > 0)
        self.said += world.said

    def kill_twice(self, seed: int) -> World:
        """Kill a run twice, whose limit is smaller than what it wants to ask."""
        if self._number != -2:
            cells = [
                f"got = llm_query_batched([f'scarce {{i}}' for i in range({MOST_CALLS + 1})])",
                "FINAL('none')",
            ]
            self._begin(Program({"RUN0": cells}, Budget(calls=MOST_CALLS, concurrency=8), True, 0, 0))
            self._number = -2
        chance = random.Random(f"kill {seed}")
        _, world = self.machine.run(chance, [chance.randint(10, self._effects) for _ in range(2)])
        return world

    def _begin(self, program: Program) -> None:
        gc.collect()
        self.machine = Machine(program, self._folder, self._postgres)
        self._whole, world = self.machine.run(random.Random(f"whole {program.seed}"), [])
        self._effects = world.fate.effects


@contextmanager
def bench(postgres: str = "") -> Iterator[Bench]:
    """A place to simulate at. Its folder is in memory where there is such a disk."""
    memory = Path("/dev/shm")
    gc.disable()  # it takes a fifth of the time
    try:
        with tempfile.TemporaryDirectory(prefix="rlm-sim-", dir=memory if memory.is_dir() else None) as folder:
            yield Bench(Path(folder, "it"), postgres)
    finally:
        gc.enable()
        gc.collect()


def failures(seeds: Sequence[int]) -> tuple[dict[int, str], Counter[str]]:
    """Simulate seeds; what went wrong, by seed, and what was seen."""
    wrong: dict[int, str] = {}
    with bench() as at:
        for seed in seeds:
            try:
                at.simulate(seed)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
                wrong[seed] = f"{type(error).__name__}: {error}"
                print(f"seed {seed}: {wrong[seed]}", flush=True)
            if seed % 500 == 499:
                print(f"up to {seed}: {len(wrong)} failed", flush=True)
    print(f"{len(seeds)} seeds: {dict(sorted(at.said.items()))}")
    return wrong, at.said


def main(wanted: str) -> int:
    """Simulate what the command line says."""
    begun = time.perf_counter()
    if ":" in wanted:
        first, last = map(int, wanted.split(":"))
        wrong, _ = failures(range(first, last))
        print(f"{len(wrong)} failed, in {time.perf_counter() - begun:.0f} s")
        return bool(wrong)
    with bench() as at:
        try:
            at.simulate(int(wanted))
        except Exception:  # noqa: BLE001 - shown
            traceback.print_exc()
            return 1
        finally:
            print("\n".join(at.machine.log))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
