"""Answers calls of `rlm_query`: by a child run one level deeper, and at the greatest depth by a model call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.context.long_text import (
    CODE_QUESTION_CHARS,
    first_characters,
    length,
    text_or_reference,
    value_fields,
)
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.errors import InputError, InvalidApproval, JournalError, ModelError, RLMError
from rlm_langchain.graph.boundary import Internal
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.model_call import ModelCallHandler
from rlm_langchain.graph.components import NO_RECURSION_LIMIT, Components
from rlm_langchain.graph.state import SubcallTask, TreeInfo
from rlm_langchain.records import depth_of
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.journal import DAMAGED, Journal, child_run_key
from rlm_langchain.trajectory.recorder import NumberedCall, Recorder
from rlm_langchain.types import Call, CallResult, Reply, Usage


class ChildRunHandler(ModelCallHandler):
    """Handles `rlm`: by a child run if the budget's depth allows one, else by a model call."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the answer of an earlier child run with the same question and context, or None."""
        if not _has_depth(site):
            return super().free_reply(site, journal)
        if not site.components.memo:
            return None
        answer = site.tree.child_runs.known(_single_flight_key(site.numbered))
        return None if answer is None else Reply(answer)

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return all that a child run needs, because it must be able to resume without the cell that asked."""
        if not _has_depth(site):
            return None
        call = site.numbered.call
        return {
            "query": text_or_reference(site.components.store, call.prompt, CODE_QUESTION_CHARS),
            "context": None if call.context is None else site.components.store.reference_from_repl(call.context),
            "sha256": site.numbered.sha256,
            "agreed": tree.agreed,
            "tops": tree.tops,
        }


@dataclass(slots=True)
class ChildRun:
    """A child run: its task, its outcome, and the record of the call that started it."""

    components: Components
    tree: RunTree
    task: SubcallTask
    recorder: Recorder
    outcome: dict[str, Any] | None = None
    """Its `RLMOutput`, or None if it failed."""
    answer: str = ""
    """The whole answer, as text for the caller."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """The fields of the call's record that hold the answer: as text, or by reference if it is long."""
    error: str | None = None
    seconds: float = 0.0

    @property
    def depth(self) -> int:
        """Return the depth of the calling run."""
        return depth_of(self.task["path"])

    @property
    def numbered(self) -> NumberedCall:
        """Return the call. A long question is shortened to its beginning: the task has a reference to it."""
        [number] = self.task["calls"]
        call = Call("rlm", first_characters(self.task["query"]))
        return NumberedCall(self.task["path"], self.task["cell"], number, call, self.task["sha256"])

    def input(self) -> Internal:
        """Return the input of the child run."""
        return Internal(
            {
                "query": self.task["query"],
                "context": self.task["context"],
                "run": self.task["run"],
                "path": self.numbered.call_path,
            }
        )

    def join(self) -> str | None:
        """Return the answer of another child run with the same question and context, waiting for it if it is
        running.

        None if there is none: then this one runs, and others wait for it.
        """
        return self.tree.child_runs.join(_single_flight_key(self.numbered)) if self.components.memo else None

    async def ajoin(self) -> str | None:
        """Do what `join` does, without blocking the event loop."""
        return await self.tree.child_runs.ajoin(_single_flight_key(self.numbered)) if self.components.memo else None

    def record_shared_answer(self, answer: str) -> dict[str, Any]:
        """Record the answer of another child run, and return the update of the state."""
        self._record(CallResult(answer, memo=True), **value_fields(self.components.store, answer))
        return self.recorder.written()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the child run in this context. A failed model or refused input becomes the error of the call; any
        other `RLMError` ends the run tree. The REPLs of the child run are closed at the end."""
        before = time.monotonic()
        try:
            yield
        except InvalidApproval:  # a mistake of the person who answered: the child run still waits
            raise
        except (ModelError, InputError) as error:
            self.error = str(error)
        except RLMError as error:
            self.tree.stop_calls(error)
        finally:
            self.seconds = time.monotonic() - before
            if self.components.memo:
                key = _single_flight_key(self.numbered)
                self.tree.child_runs.finish(key, self._shared_answer, remember_as=key)
            self.tree.close(self.numbered.call_path)

    def set_outcome(self, outcome: dict[str, Any]) -> None:
        """Store the output of the run, and read a long answer from the store. Raises `JournalError`."""
        if "status" not in outcome:
            raise JournalError(DAMAGED)
        store, ref = self.components.store, outcome["trajectory"][-1].get("answer_ref")
        self.answer = to_prompt_text(outcome["answer"] if ref is None else store.load(ref))
        self.recorded = value_fields(store, self.answer)
        self.outcome = outcome

    def update(self) -> dict[str, Any]:
        """Record the call with the output of the run, and return the update of the state."""
        outcome = self.outcome
        if outcome is not None:
            failed = outcome["status"] == "failed"
            error = f"the child run found no answer ({outcome['stop_reason']})" if failed else None
            reply = CallResult(self.answer, error, _total_usage(outcome))
            self._record(reply, **self.recorded, child=[*outcome["trajectory"]])
        elif self.error is not None:
            self._record(CallResult(None, self.error, self.tree.spent_below(self.numbered.call_path)))
        return self.recorder.written()

    def _record(self, reply: CallResult, **more: Any) -> None:
        numbered = self.numbered
        chars = length(self.task["query"])
        self.recorder.call(numbered, reply, prompt_chars=chars, seconds=self.seconds, **more)

    @property
    def _shared_answer(self) -> str | None:
        """Return the answer for equal child runs that wait for it. None unless the run is complete and has one."""
        outcome = self.outcome
        if outcome is None or outcome["status"] != "complete" or outcome["answer"] in (None, ""):
            return None
        return self.answer


def child_config(config: RunnableConfig) -> RunnableConfig:
    """Return the config of a child run, without the recursion limit that a parent graph may have set."""
    return {**config, "recursion_limit": NO_RECURSION_LIMIT}


def _has_depth(site: CallSite) -> bool:
    return depth_of(site.numbered.path) + 1 < site.components.budget.depth


def _single_flight_key(numbered: NumberedCall) -> str:
    """Return the key that child runs with the same question, context and depth share."""
    return child_run_key(depth_of(numbered.path) + 1, numbered.sha256)


def _total_usage(outcome: dict[str, Any]) -> Usage:
    return Usage(**outcome["usage"]["root"]).plus(Usage(**outcome["usage"]["sub"]))
