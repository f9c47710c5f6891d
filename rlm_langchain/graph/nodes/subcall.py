"""`subcall`: the two ways to answer a call. A leaf is one model call, a child is a run of this same graph.

Whatever goes wrong with a call is a value in its record, and never stops its siblings. A fault of the host, a full
disk, say, ends the run; but first its siblings that are in flight come home, and their replies are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig

from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.errors import (
    InputError,
    JournalError,
    ModelError,
    RLMError,
)
from rlm_langchain.graph.boundary import Internal
from rlm_langchain.graph.calls.model_call import ModelCall
from rlm_langchain.graph.calls.search import KIND as SEARCH
from rlm_langchain.graph.calls.search import SearchHandler
from rlm_langchain.graph.calls.tools import use
from rlm_langchain.graph.components import NO_RECURSION_LIMIT, Components
from rlm_langchain.graph.state import SubcallTask, TreeInfo
from rlm_langchain.records import CallRecord, child_path, depth_of
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.checksum import checksum, is_intact
from rlm_langchain.trajectory.journal import (
    DAMAGED,
    Journal,
    child_run_key,
    fingerprint,
)
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import (
    Call,
    CallResult,
    ContextRef,
    Excerpt,
    Usage,
)

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState

SINGLE_SENDS = 200
"""Up to this many calls of a wave are a task each; more share tasks, since a task costs more than a call does."""

PREVIEW = 200
"""Characters of a prompt that its record keeps."""


def make_subcall_tasks(
    components: Components,
    state: RLMState,
    journal: Journal,
    calls: Sequence[tuple[int, Call]],
    told: TreeInfo,
) -> list[SubcallTask]:
    """The tasks of a wave: one for each child run, and one or more leaf calls for each of the others."""
    run, path, cell = state["run"], state["path"], len(journal.cells) - 1
    children = {n: call for n, call in calls if _is_child(components, path, call)}
    tools = {n: call for n, call in calls if call.kind == "tool"}
    leaves = [n for n, _ in calls if n not in children and n not in tools]
    size = 1 if len(leaves) <= SINGLE_SENDS else -(-len(leaves) // (SINGLE_SENDS // 2))
    chunks = [leaves[i : i + size] for i in range(0, len(leaves), size)]
    sent = [SubcallTask(run=run, path=path, cell=cell, calls=chunk) for chunk in chunks] + [
        SubcallTask(
            run=run,
            path=path,
            cell=cell,
            calls=[n],
            query=call.prompt,
            context=None if call.context is None else components.store.reference_from_repl(call.context),
            sha256=fingerprint(call),
            agreed=told.agreed,
            tops=told.tops,
        )
        for n, call in children.items()
    ]
    for n, call in tools.items():
        text = cast(ContextRef, components.store.reference_from_repl(call.prompt))
        sent.append(SubcallTask(run=run, path=path, cell=cell, calls=[n], tool=text))
    kinds = {n: call.kind for n, call in calls}
    for errand in sent:
        if any(kinds[n] == SEARCH for n in errand["calls"]):
            errand["context"] = journal.contexts.get("context")
        errand["seal"] = checksum(errand)
    return sent


def known(components: Components, tree: RunTree, path: str, number: int, call: Call) -> str | None:
    """The answer to a call that was answered elsewhere in the tree; it costs nothing."""
    if call.kind not in ("llm", "rlm") or not components.memo:
        return None
    depth = depth_of(path)
    if _is_child(components, path, call):
        return tree.twins.known(child_run_key(depth + 1, fingerprint(call)))
    return ModelCall(
        components, tree, components.sub_model(depth), call, child_path(path, number), fingerprint(call)
    ).known()


def _is_child(components: Components, path: str, call: Call) -> bool:
    return call.kind == "rlm" and depth_of(path) + 1 < components.budget.depth


@dataclass(slots=True)
class SubcallNode:
    """One visit to `subcall`."""

    components: Components
    errand: SubcallTask
    tree: RunTree
    recorder: Recorder

    @classmethod
    def begin(cls, components: Components, errand: SubcallTask, config: RunnableConfig) -> SubcallNode:
        """Find the tree that the calls belong to. Raises `JournalError` when this is not what was sent."""
        if not is_intact(errand):
            raise JournalError("the checkpoint of this run is damaged: a task was changed; go back with `rlm fork`")
        return cls(components, errand, components.tree(errand["run"], config), Recorder())

    async def leaves(self, config: RunnableConfig) -> dict[str, Any]:
        """Ask all the calls of this task at once.

        After a crash their texts are gone, and nothing is asked: `execute` rebuilds the REPL and sends them anew.
        """
        calls = [(n, self._call(n)) for n in self.errand["calls"]]
        await asyncio.gather(*(self._leaf(n, call, config) for n, call in calls if call is not None))
        return {"trajectory": self.recorder.records}

    def _call(self, number: int) -> Call | None:
        """What is asked."""
        if "tool" in self.errand:
            return Call("tool", str(self.components.store.load(self.errand["tool"])))
        repl = self.tree.repls.get(self.errand["path"])
        return repl.call(number) if repl else None

    def child_input(self) -> Internal:
        """What the child run is asked."""
        return Internal(
            {
                "query": self.errand["query"],
                "context": self.errand["context"],
                "run": self.errand["run"],
                "path": self.child_path,
                "agreed": self.errand.get("agreed"),
                "tops": self.errand.get("tops", []),
            }
        )

    @contextmanager
    def child(self) -> Iterator[Child]:
        """Around a child run: its failure is a value, the host's breaks the tree. Its REPLs end with it."""
        done, before = Child(self), time.monotonic()
        try:
            yield done
            if done.outcome is not None and "status" not in done.outcome:
                raise JournalError(DAMAGED)
        except (ModelError, InputError) as error:
            done.error = str(error)
        except RLMError as error:
            self.tree.breaks(error)
        finally:
            done.seconds = time.monotonic() - before
            if self.components.memo:
                self.tree.twins.over(self.twin_key, done.answer)
            self.tree.close(self.child_path)

    @property
    def depth(self) -> int:
        """Of the run that asks."""
        return depth_of(self.errand["path"])

    @property
    def child_path(self) -> str:
        """Where the child run of this task stands in the tree."""
        return child_path(self.errand["path"], self.errand["calls"][0])

    async def _leaf(self, number: int, call: Call, config: RunnableConfig) -> None:
        before, sha256 = time.monotonic(), fingerprint(call)
        try:
            reply, who = await self._answered(number, call, sha256, config)
        except RLMError as error:
            self.tree.breaks(error)
            return
        record = self.record(number, call, sha256, reply, time.monotonic() - before)
        record["model"] = who
        if call.kind in ("llm", "rlm") and reply.error is None and not reply.memo:
            await self._note_reading(record, call)
        self.recorder.record(record)

    async def _note_reading(self, record: CallRecord, call: Call) -> None:
        """Which parts of the context stood in the prompt: only here is its text at hand."""
        reading = self.tree.reading
        if reading is None or not reading.contexts:
            return
        text = call.prompt if call.context is None else f"{call.prompt}\n{to_prompt_text(call.context)}"
        read = (
            reading.find_read(text) if reading.is_quick(text) else await asyncio.to_thread(reading.find_read, text)
        )
        if read:
            record["read"] = read

    async def _answered(
        self, number: int, call: Call, sha256: str, config: RunnableConfig
    ) -> tuple[CallResult, str]:
        """The reply, and the model that gave it."""
        path = self.errand["path"]
        place = child_path(path, number)
        if call.kind == "tool":
            return await use(self.components.tools_of(path), self.tree, call, place, config), ""
        if call.kind == SEARCH and self.components.search is not None:
            answerer = SearchHandler(self.components.search, self.components.store, self.tree, place)
            return await answerer.reply(call, self.errand.get("context"), config), ""
        if call.kind not in ("llm", "rlm"):
            return CallResult(None, f"there is nothing here that answers {call.kind!r}"), ""
        model = self.components.sub_model(depth_of(path))
        repl = self.tree.repls.get(path)
        wave = place if repl is None else child_path(path, repl.first)
        return await ModelCall(self.components, self.tree, model, call, place, sha256, wave).reply(
            config
        ), model.name

    def twin(self) -> Future[str | None] | None:
        """The answer of another child run that was asked the same; None when this one is the first."""
        return self.tree.twins.first(self.twin_key) if self.components.memo else None

    @property
    def twin_key(self) -> str:
        """What child runs that are asked the same have in common."""
        return child_run_key(self.depth + 1, self.errand["sha256"])

    def same(self, answer: str) -> dict[str, Any]:
        """The record of a call that a twin of its child run has answered."""
        self.recorder.record(self.record_of_child(CallResult(answer, memo=True), 0.0))
        return {"trajectory": self.recorder.records}

    def record_of_child(self, reply: CallResult, seconds: float) -> CallRecord:
        """What became of the one call of a task that is a child run."""
        call = Call("rlm", self.errand["query"])
        return self.record(self.errand["calls"][0], call, self.errand["sha256"], reply, seconds)

    def record(self, number: int, call: Call, sha256: str, reply: CallResult, seconds: float) -> CallRecord:
        """What became of a call."""
        record = CallRecord(
            type="call",
            path=self.errand["path"],
            cell=self.errand["cell"],
            call=number,
            kind=call.kind,
            prompt_sha256=sha256,
            prompt_chars=len(call.prompt) + _length(call.context),
            preview=call.prompt[:PREVIEW],
            value=reply.text if reply.error is None else None,
            error=reply.error,
            usage=reply.used.record(),
            model="",
            seconds=seconds,
            retries=reply.retries,
            time=time.time(),
        )
        if reply.memo:
            record["memo"] = True
        if reply.from_cache:
            record["from_cache"] = True
        if reply.flaw:
            record["flaw"] = reply.flaw
        if reply.refused:
            record["refused"] = reply.refused
        return record


@dataclass(slots=True)
class Child:
    """How a child run ended."""

    errands: SubcallNode
    outcome: dict[str, Any] | None = None
    """Its `RLMOutput`."""
    error: str | None = None
    seconds: float = 0.0

    @property
    def answer(self) -> str | None:
        """What others that are asked the same are told: only what the run itself took for its answer."""
        outcome = self.outcome
        if outcome is None or outcome["status"] != "complete" or outcome["answer"] in (None, ""):
            return None
        return to_prompt_text(outcome["answer"])

    def record(self) -> dict[str, Any]:
        """Its answer, what it spent, and what it did, as the record of the call that asked for it."""
        outcome = self.outcome
        if outcome is None and self.error is None:
            return {"trajectory": []}
        reply = CallResult(None, self.error, self.errands.tree.spent_below(self.errands.child_path))
        if outcome is not None:
            failed = outcome["status"] == "failed"
            error = f"the child run found no answer ({outcome['stop_reason']})" if failed else None
            reply = CallResult(to_prompt_text(outcome["answer"]), error, _total(outcome))
        record = self.errands.record_of_child(reply, self.seconds)
        if outcome is not None:
            record["child"] = list(outcome["trajectory"])
        self.errands.recorder.record(record)
        return {"trajectory": self.errands.recorder.records}


def below(config: RunnableConfig) -> RunnableConfig:
    """The config of a child run: a limit on LangGraph's steps that came from a parent is none of ours."""
    return {**config, "recursion_limit": NO_RECURSION_LIMIT}


def _length(context: object) -> int:
    if isinstance(context, Excerpt):
        return context.stop - context.start
    return 0 if context is None else len(to_prompt_text(context))


def _total(outcome: dict[str, Any]) -> Usage:
    return Usage(**outcome["usage"]["root"]).plus(Usage(**outcome["usage"]["sub"]))
