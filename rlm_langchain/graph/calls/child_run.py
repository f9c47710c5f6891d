"""A call of `rlm_query`, answered by a child run one level deeper; at the last level, by one model call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.context.long_text import MADE_CHARS, beginning, by_reference, length, recorded_value
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
    """Handles `rlm`: a child run while there is depth left, else the model call that its base handles."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the answer of a child run that was asked the same before."""
        if not _has_depth(site):
            return super().free_reply(site, journal)
        if not site.components.memo:
            return None
        answer = site.tree.child_runs.known(_key(site.asked))
        return None if answer is None else Reply(answer)

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return all that a child run needs: it must be able to resume without the cell that asked."""
        if not _has_depth(site):
            return None
        call = site.asked.call
        return {
            "query": by_reference(site.components.store, call.prompt, MADE_CHARS),
            "context": None if call.context is None else site.components.store.reference_from_repl(call.context),
            "sha256": site.asked.sha256,
            "agreed": tree.agreed,
            "tops": tree.tops,
        }


@dataclass(slots=True)
class ChildRun:
    """A child run: what it is asked, how it ended, and the record of the call that asked for it."""

    components: Components
    tree: RunTree
    task: SubcallTask
    recorder: Recorder
    outcome: dict[str, Any] | None = None
    """Its `RLMOutput`."""
    answer: str = ""
    """All of its answer, as its caller reads it."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """What the record of the call has of it."""
    error: str | None = None
    seconds: float = 0.0

    @property
    def depth(self) -> int:
        """Return the depth of the run that asks."""
        return depth_of(self.task["path"])

    @property
    def asked(self) -> NumberedCall:
        """Return the call, as its task carries it: of a long question, the beginning."""
        [number] = self.task["calls"]
        call = Call("rlm", beginning(self.task["query"]))
        return NumberedCall(self.task["path"], self.task["cell"], number, call, self.task["sha256"])

    def input(self) -> Internal:
        """Return what the child run is given."""
        return Internal(
            {
                "query": self.task["query"],
                "context": self.task["context"],
                "run": self.task["run"],
                "path": self.asked.place,
                "agreed": self.task.get("agreed"),
                "tops": self.task.get("tops", []),
            }
        )

    def join(self) -> str | None:
        """Return the answer of another child run that is asked the same; None makes this one the first."""
        return self.tree.child_runs.join(_key(self.asked)) if self.components.memo else None

    async def ajoin(self) -> str | None:
        """Return what `join` does, without blocking the event loop."""
        return await self.tree.child_runs.ajoin(_key(self.asked)) if self.components.memo else None

    def record_shared_answer(self, answer: str) -> dict[str, Any]:
        """Return the update of the state with an answer that another child run gave."""
        self._record(CallResult(answer, memo=True), **recorded_value(self.components.store, answer))
        return self.recorder.written()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work on the run in here: its failure is a value, the host's breaks the tree. Its REPLs end with it."""
        before = time.monotonic()
        try:
            yield
        except InvalidApproval:  # the caller's mistake: the child run still waits
            raise
        except (ModelError, InputError) as error:
            self.error = str(error)
        except RLMError as error:
            self.tree.breaks(error)
        finally:
            self.seconds = time.monotonic() - before
            if self.components.memo:
                key = _key(self.asked)
                self.tree.child_runs.finish(key, self._answer_for_others, remember_as=key)
            self.tree.close(self.asked.place)

    def set_outcome(self, outcome: dict[str, Any]) -> None:
        """Take what the run returned; a long answer is read from the store. Raises `JournalError`."""
        if "status" not in outcome:
            raise JournalError(DAMAGED)
        store, ref = self.components.store, outcome["trajectory"][-1].get("answer_ref")
        self.answer = to_prompt_text(outcome["answer"] if ref is None else store.load(ref))
        self.recorded = recorded_value(store, self.answer)
        self.outcome = outcome

    def update(self) -> dict[str, Any]:
        """Return the update of the state: answer, spending and trajectory of the run, as the record of the call."""
        outcome = self.outcome
        if outcome is not None:
            failed = outcome["status"] == "failed"
            error = f"the child run found no answer ({outcome['stop_reason']})" if failed else None
            reply = CallResult(self.answer, error, _total_usage(outcome))
            self._record(reply, **self.recorded, child=[*outcome["trajectory"]])
        elif self.error is not None:
            self._record(CallResult(None, self.error, self.tree.spent_below(self.asked.place)))
        return self.recorder.written()

    def _record(self, reply: CallResult, **more: Any) -> None:
        asked = self.asked
        chars = length(self.task["query"])
        self.recorder.call(asked, reply, prompt_chars=chars, seconds=self.seconds, **more)

    @property
    def _answer_for_others(self) -> str | None:
        """Return the answer for others that are asked the same: only what the run itself took for its answer."""
        outcome = self.outcome
        if outcome is None or outcome["status"] != "complete" or outcome["answer"] in (None, ""):
            return None
        return self.answer


def child_config(config: RunnableConfig) -> RunnableConfig:
    """Return the config of a child run: a limit on LangGraph's steps that came from a parent is none of ours."""
    return {**config, "recursion_limit": NO_RECURSION_LIMIT}


def _has_depth(site: CallSite) -> bool:
    return depth_of(site.asked.path) + 1 < site.components.budget.depth


def _key(asked: NumberedCall) -> str:
    """Return what child runs that are asked the same have in common."""
    return child_run_key(depth_of(asked.path) + 1, asked.sha256)


def _total_usage(outcome: dict[str, Any]) -> Usage:
    return Usage(**outcome["usage"]["root"]).plus(Usage(**outcome["usage"]["sub"]))
