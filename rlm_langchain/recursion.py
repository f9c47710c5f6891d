"""`subcall`: the two ways to answer a call. A leaf is one model call, a child is a run of this same graph.

Whatever goes wrong with a call is a value in its record, and never stops its siblings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from typing_extensions import NotRequired, TypedDict

from rlm_langchain.calling import CallFailed, complete
from rlm_langchain.errors import RLMError
from rlm_langchain.journal import fingerprint
from rlm_langchain.ledger import Refused
from rlm_langchain.machine import Machine, Tree
from rlm_langchain.prompts import render
from rlm_langchain.scribe import Scribe, child_path, depth_of
from rlm_langchain.types import Call, CallRecord, ContextRef, RLMOutput, Usage

if TYPE_CHECKING:
    from rlm_langchain.graph import RLMState

SINGLE_SENDS = 200
"""Up to this many calls of a wave are a task each; more share tasks, since a task costs more than a call does."""
PREVIEW = 200
"""Characters of a prompt that its record keeps."""


class Errand(TypedDict):
    """What one `subcall` task is sent: the numbers of its calls. Their text is where the cell waits."""

    run: str
    path: str
    cell: int
    calls: list[int]
    query: NotRequired[str]
    """For a child run, which must be able to resume without the cell that asked."""
    context: NotRequired[ContextRef | None]
    sha256: NotRequired[str]


def errands(machine: Machine, state: RLMState, cell: int, calls: Sequence[tuple[int, Call]]) -> list[Errand]:
    """The tasks of a wave: one for each child run, and one or more leaf calls for each of the others."""
    where = {"run": state["run"], "path": state["path"], "cell": cell}
    children = [(n, call) for n, call in calls if _is_child(machine, state["path"], call)]
    named = {n for n, _ in children}
    leaves = [n for n, _ in calls if n not in named]
    size = 1 if len(leaves) <= SINGLE_SENDS else -(-len(leaves) // (SINGLE_SENDS // 2))
    chunks = [leaves[i : i + size] for i in range(0, len(leaves), size)]
    return [Errand(**where, calls=chunk) for chunk in chunks] + [
        Errand(
            **where,
            calls=[n],
            query=call.prompt,
            context=machine.store.reference(call.context),
            sha256=fingerprint(call),
        )
        for n, call in children
    ]


def _is_child(machine: Machine, path: str, call: Call) -> bool:
    return call.kind == "rlm" and depth_of(path) + 1 < machine.budget.depth


@dataclass(slots=True)
class Errands:
    """One visit to `subcall`."""

    machine: Machine
    errand: Errand
    tree: Tree
    scribe: Scribe

    @classmethod
    def begin(cls, machine: Machine, errand: Errand) -> Errands:
        """Find the tree that the calls belong to."""
        return cls(machine, errand, machine.trees.get(errand["run"], machine.budget), Scribe())

    async def leaves(self, config: RunnableConfig) -> dict[str, Any]:
        """Ask all the calls of this task at once.

        After a crash their texts are gone, and nothing is asked: `execute` rebuilds the REPL and sends them anew.
        """
        repl = self.tree.repls.get(self.errand["path"])
        calls = [(n, repl.call(n)) for n in self.errand["calls"]] if repl else []
        await asyncio.gather(*(self._leaf(n, call, config) for n, call in calls if call is not None))
        return {"trajectory": self.scribe.records}

    def child_input(self) -> dict[str, Any]:
        """What the child run is asked."""
        return {
            "query": self.errand["query"],
            "context": self.errand["context"],
            "run": self.errand["run"],
            "path": child_path(self.errand["path"], self.errand["calls"][0]),
        }

    @contextmanager
    def child(self) -> Iterator[Child]:
        """Around a child run: its failure is a value, and its REPLs end with it, however it ends."""
        done, before = Child(self), time.monotonic()
        try:
            yield done
        except RLMError as error:
            done.error = str(error)
        finally:
            done.seconds = time.monotonic() - before
            self.tree.close(child_path(self.errand["path"], self.errand["calls"][0]))

    async def _leaf(self, number: int, call: Call, config: RunnableConfig) -> None:
        model, ledger = self.machine.leaf_at(depth_of(self.errand["path"])), self.tree.ledger
        messages = [HumanMessage(_prompt(call, model.profile))]
        before = time.monotonic()
        used, text, error, retries = Usage(), None, None, 0
        try:
            with ledger.reserve(self.machine.estimate(model, messages)) as entry:
                async with asyncio.timeout(ledger.seconds_left()):
                    done = await complete(
                        model,
                        messages,
                        config=config,
                        gate=self.tree.gate,
                        output_tokens=self.machine.budget.output_tokens,
                        retry=self.machine.retry,
                    )
                entry.used = used = done.usage
                text, retries = done.text, done.retries
        except Refused as refused:
            error = f"not asked: {refused}"
        except CallFailed as failed:
            error, retries = str(failed), failed.retries
        except TimeoutError:
            error = "the time of the run is over"
        seconds = time.monotonic() - before
        record = self.record(number, call, text, error, used, seconds)
        record["retries"], record["model"] = retries, model.name
        self.scribe.write(record)

    def record(
        self, number: int, call: Call, value: str | None, error: str | None, used: Usage, seconds: float
    ) -> CallRecord:
        return CallRecord(
            type="call",
            path=self.errand["path"],
            cell=self.errand["cell"],
            call=number,
            kind=call.kind,
            prompt_sha256=fingerprint(call),
            prompt_chars=len(call.prompt) + _length(call.context),
            preview=call.prompt[:PREVIEW],
            value=value if error is None else None,
            error=error,
            usage=used.record(),
            model="",
            seconds=seconds,
            retries=0,
            time=time.time(),
        )


@dataclass(slots=True)
class Child:
    """How a child run ended."""

    errands: Errands
    outcome: RLMOutput | None = None
    error: str | None = None
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """Its answer, what it spent, and what it did, as the record of the call that asked for it."""
        errand, outcome, error = self.errands.errand, self.outcome, self.error
        value, used = None, Usage()
        if outcome is not None:
            value, used = _as_text(outcome["answer"]), _total(outcome)
            if outcome["status"] == "failed":
                error = f"the child run found no answer ({outcome['stop_reason']})"
        call = Call("rlm", errand["query"])
        record = self.errands.record(errand["calls"][0], call, value, error, used, self.seconds)
        record["prompt_sha256"] = errand["sha256"]
        if outcome is not None:
            record["child"] = list(outcome["trajectory"])
        self.errands.scribe.write(record)
        return {"trajectory": self.errands.scribe.records}


def below(machine: Machine, config: RunnableConfig) -> RunnableConfig:
    """The config of a child run: LangGraph's step limit is not our budget, so it is set out of the way."""
    return {**config, "recursion_limit": machine.steps}


def _prompt(call: Call, profile: str) -> str:
    if call.context is None:
        return call.prompt
    return render(profile, "subcall", prompt=call.prompt, context=_as_text(call.context))


def _length(context: object) -> int:
    return 0 if context is None else len(_as_text(context))


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _total(outcome: RLMOutput) -> Usage:
    root, sub = outcome["usage"]["root"], outcome["usage"]["sub"]
    return Usage(**root).plus(Usage(**sub))
