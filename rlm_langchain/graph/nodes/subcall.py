"""The node `subcall`: answers the calls of one task: several that share it, or one that needs its own, such as a
child run.

An error of a call is a value in its record, and never stops the other calls. A fault of the host, such as a full
disk, ends the run, but only after the calls in flight have been answered and their replies stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from rlm_langchain.context.decoding import replace_surrogates
from rlm_langchain.context.long_text import VALUE_CHARS, value_fields
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import JournalError, RLMError
from rlm_langchain.graph.calls.child_run import ChildRun
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import HANDLERS, handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import SubcallTask, TreeInfo
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.checksum import checksum, is_intact
from rlm_langchain.trajectory.journal import fingerprint
from rlm_langchain.trajectory.recorder import NumberedCall, Recorder
from rlm_langchain.types import Call

ERROR_CHARS = 4_000
"""Longest error message in a record, in characters. It may quote arguments of a tool. A longer one is clipped."""
SINGLE_SENDS = 200
"""Largest batch of calls in which each is a task of its own. More calls share tasks, because a task costs more time
than a call."""
_ORDER = {kind: place for place, kind in enumerate(HANDLERS)}


def make_subcall_tasks(run: str, calls: Sequence[CallSite], tree: TreeInfo) -> list[SubcallTask]:
    """Return the tasks for a batch of calls: shared tasks first, then those for one call each, ordered by kind."""
    shared: list[CallSite] = []
    own: list[tuple[CallSite, dict[str, Any]]] = []
    for site in calls:
        more = handler_of(site.numbered.call.kind).own_task(site, tree)
        if more is None:
            shared.append(site)
        else:
            own.append((site, more))
    own.sort(key=lambda task: _ORDER[task[0].numbered.call.kind])
    size = 1 if len(shared) <= SINGLE_SENDS else -(-len(shared) // (SINGLE_SENDS // 2))
    chunks = [shared[i : i + size] for i in range(0, len(shared), size)]
    return [_task(run, chunk, _context_for(chunk)) for chunk in chunks] + [
        _task(run, [site], more) for site, more in own
    ]


def _task(run: str, sites: Sequence[CallSite], more: dict[str, Any]) -> SubcallTask:
    numbered = sites[0].numbered
    numbers = [site.numbered.number for site in sites]
    task = cast(SubcallTask, {"run": run, "path": numbered.path, "cell": numbered.cell, "calls": numbers, **more})
    task["seal"] = checksum(task)
    return task


def _context_for(sites: Sequence[CallSite]) -> dict[str, Any]:
    """Return the payload field with the run's context, if a call of the task needs it."""
    is_needed = any(handler_of(site.numbered.call.kind).needs_context for site in sites)
    return {"context": sites[0].context} if is_needed else {}


@dataclass(slots=True)
class SubcallNode:
    """The state of one run of the node `subcall`."""

    components: Components
    task: SubcallTask
    tree: RunTree
    recorder: Recorder

    @classmethod
    def begin(cls, components: Components, task: SubcallTask, config: RunnableConfig) -> SubcallNode:
        """Check the task, and find its run tree. Raises `JournalError` if the task was changed in the
        checkpoint."""
        if not is_intact(task):
            raise JournalError("the checkpoint of this run is damaged: a task was changed; go back with `rlm fork`")
        return cls(components, task, components.tree(task["run"], config), Recorder())

    def child_run(self) -> ChildRun | None:
        """Return the child run of this task, or None if it has other calls."""
        if "query" not in self.task:
            return None
        self.components.restore_tree(self.tree, self.task)
        return ChildRun(self.components, self.tree, self.task, self.recorder)

    async def answer_calls(self, config: RunnableConfig) -> dict[str, Any]:
        """Answer all calls of this task concurrently.

        After a crash their prompts are gone, and nothing is done here: `execute` rebuilds the REPL and sends them
        again.
        """
        calls = [(number, self._call(number)) for number in self.task["calls"]]
        await asyncio.gather(*(self._answer(number, call, config) for number, call in calls if call is not None))
        for learned in self.tree.learned.take_notes():
            self.recorder.note(self.task["path"], "reader", learned)
        return self.recorder.written()

    def _call(self, number: int) -> Call | None:
        """Return a call of this task: from its payload, or from the suspended REPL. None if there is no REPL."""
        if "tool" in self.task:
            return Call("tool", str(self.components.store.load(self.task["tool"])))
        repl = self.tree.repls.get(self.task["path"])
        return repl.call(number) if repl else None

    async def _answer(self, number: int, call: Call, config: RunnableConfig) -> None:
        before = time.monotonic()
        numbered = NumberedCall(self.task["path"], self.task["cell"], number, call, fingerprint(call))
        site = CallSite(self.components, self.tree, numbered, self.task.get("context"))
        handler = handler_of(call.kind)
        more: dict[str, Any] = {}
        try:
            reply = await handler.answer(site, config)
            text = _storable(reply.text)
            if text and len(text) > VALUE_CHARS and not kind_of(call.kind).is_answered_by_model:
                more = await asyncio.to_thread(value_fields, self.components.store, text)
        except RLMError as error:
            self.tree.stop_calls(error)
            return
        seconds = time.monotonic() - before
        if kind_of(call.kind).is_answered_by_model and reply.error is None and not reply.memo:
            more = await self._ranges_read(call)
        self.recorder.call(
            numbered,
            self.tree.charged(numbered.call_path, reply)._replace(
                text=text, error=_clip_error(_storable(reply.error))
            ),
            prompt_chars=numbered.prompt_chars,
            seconds=seconds,
            model=handler.model(site),
            **more,
        )

    async def _ranges_read(self, call: Call) -> dict[str, Any]:
        """Return the field with the ranges of the contexts that were in the prompt. Only here is its text
        available."""
        tracker = self.tree.coverage
        if tracker is None or not tracker.contexts:
            return {}
        text = call.prompt if call.context is None else f"{call.prompt}\n{to_prompt_text(call.context)}"
        read = (
            tracker.ranges_in(text)
            if tracker.is_quick_to_search(text)
            else await asyncio.to_thread(tracker.ranges_in, text)
        )
        return {"read": read} if read else {}


def _clip_error(error: str | None) -> str | None:
    return None if error is None else clip(error, ERROR_CHARS)


def _storable(text: str | None) -> str | None:
    """Return a text without lone surrogates, which a tool or a retriever may return and records cannot contain."""
    return None if text is None else replace_surrogates(text)[0]
