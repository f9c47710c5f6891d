"""`execute`: runs the next cell, or goes on with the one that waits, until it makes a call that costs, or ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from rlm_langchain.answers.citations import answer_of, cite, quotes_problem
from rlm_langchain.context.long_text import recorded_value, stored_list
from rlm_langchain.errors import JournalError
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import HANDLERS, handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.approve import approval_needed, restore_approvals
from rlm_langchain.graph.nodes.subcall import make_subcall_tasks
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.render import render
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.records import CellRecord, Record, WaveRecord, depth_of
from rlm_langchain.run.repl import Repl
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.degradation import is_blank
from rlm_langchain.trajectory.journal import Journal, fingerprint
from rlm_langchain.trajectory.observation import format_observation
from rlm_langchain.trajectory.recorder import PREVIEW, NumberedCall, Recorder
from rlm_langchain.types import (
    Answered,
    Call,
    CallResult,
    Completed,
    ContextRef,
    Died,
    Plain,
    Refusal,
    Reply,
    Step,
    StopReason,
    Suspended,
)

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState

FAILING, IDLE = 25, 5_000
"""Waves of calls in one cell that all fail, or bring nothing new: by then the cell goes round in circles."""
FLAWED = 5
"""Times that one cell may ask a prompt whose replies are all empty or cut. None is remembered: each is paid for."""
BLANK = "it is None, or a text without words. If there is no answer, give FINAL a sentence that says so and why."
GRACE_AFTER_DEADLINE = 2.0
"""Seconds that a cell has at most when time is over: to make an answer of what its calls brought."""
REPLAY_NOTE_SECONDS = 3.0
"""Seconds of rebuilding that are worth a word to the reader."""


def open_repl(components: Components, journal: Journal, tree: RunTree, path: str) -> SandboxSession:
    """Open a fresh REPL for the run at `path`, over the contexts of its journal.

    Raises `SandboxError`, and what `Components.check_resumable` raises.
    """
    files = components.check_resumable(journal)
    context = files.pop("context", None)
    left, most = tree.ledger.seconds_left(), components.limits.seconds
    seconds = most if left is None else min(most, max(left, 1.0))
    preludes = [strategy.prelude for strategy in components.strategies_in(journal)]
    preludes += [handler.prelude(components, path) for handler in HANDLERS.values()]
    code = "\n\n".join(text for text in preludes if text)
    limits = replace(components.limits, seconds=seconds)
    return components.sandbox.open(context, code, limits, *([files] if files else []))


@dataclass(slots=True)
class ExecuteStep:
    """One visit to `execute`."""

    components: Components
    state: RLMState
    tree: RunTree
    journal: Journal
    repl: Repl
    recorder: Recorder
    refused: int = 0
    """How often the cell was refused a call in this visit."""
    idle: int = 0
    """How often the cell asked only what was known."""
    misfit: str = ""
    """Why an answer goes back to the model that does not fit its schema."""
    unfound: int | None = None
    """How many quotes were not found in an answer that goes back to the model for its quotes. 0: it had none."""
    blank: bool = False
    """Whether an answer goes back to the model because it is blank."""

    @classmethod
    def begin(cls, components: Components, state: RLMState, config: RunnableConfig) -> ExecuteStep:
        """Find the REPL of this run, or the way to rebuild it."""
        tree = components.tree(state["run"], config)
        journal = tree.journal(state["path"], state["trajectory"])
        restore_approvals(state, tree)
        components.coverage_tracker(tree, state, journal)
        repl = tree.repl(state["path"], lambda: open_repl(components, journal, tree, state["path"]))
        tree.check()
        components.unchanged(journal)
        return cls(components, state, tree, journal, repl, Recorder())

    def run(self) -> Command[Any]:
        """Run until a model is needed, the answer is there, the turn's code is done, or time is over."""
        with self.repl.deadline(self._seconds()):
            return self._go_on()

    def _seconds(self) -> float | None:
        """Return the seconds that this visit may compute: a little into the time of the last call, or all of it."""
        ledger = self.tree.ledger
        left, most = ledger.seconds_left(), ledger.seconds_left(last=True)
        if left is None or most is None:
            return None
        return most if self._final_turn_reason else left + min(GRACE_AFTER_DEADLINE, (most - left) / 4)

    def _go_on(self) -> Command[Any]:
        step = self._replay()
        while True:
            match step:
                case None:
                    code = self.journal.next_code()
                    if code is None:
                        return self._after_last_cell()
                    step = self._start(code)
                case Suspended() if circling := self._loop_detected():
                    self.repl.stop()
                    self._died("", circling)
                    step = None
                case Suspended(calls):
                    asked = self._numbered(calls)
                    replies = self._answer_free_calls(asked)
                    if replies is None:
                        return self._fan_out(asked)
                    step = self.repl.answer(replies)
                case Completed(stdout, error):
                    self._output("completed", stdout, error)
                    step = None
                case Answered(value, stdout, _) if problem := self._answer_problem(value):
                    self._output("completed", stdout, f"FINAL was refused, the answer does not fit: {problem}")
                    step = None
                case Answered(value, stdout, error):
                    return self._answered(value, stdout, error)
                case Died(_, stdout, _) if self.repl.timed_out:
                    return self._out_of_time(stdout)
                case Died("crash") if self.repl.may_retry_crash(self._cell):
                    self._note("the process of the REPL was gone; a new one was brought to where it was")
                    step = self._replay()
                case Died(_, stdout, error):
                    self._died(stdout, error)
                    step = None

    def _loop_detected(self) -> str | None:
        """Return why a cell that asks once more is ended: its calls all fail, or bring nothing new."""
        if self.journal.failed_waves + self.refused >= FAILING:
            return f"{FAILING} times in a row, none of the calls that it waited for was answered."
        if self.components.memo and any(len(waves) >= FLAWED for waves in self.journal.flawed.values()):
            return f"{FLAWED} times, it asked the same prompt, and the reply was empty or cut: ask for less."
        if self.idle >= IDLE:
            return f"{IDLE:,} times in a row, it asked only what was known: identical calls get the same reply."
        return None

    def _answer_problem(self, value: Plain) -> str | None:
        """Return why an answer goes back to the model: it misfits its schema; once, it is blank or misquotes."""
        schema, cites = (
            self.components.answer_schema(self.state["path"]),
            self.components.wants_citations(self.state["path"]),
        )
        answer = answer_of(value) if cites else value
        problem = None if schema is None else schema.problem(answer)
        if problem:
            self.misfit = problem
        if schema is None and is_blank(answer) and not self._final_turn_reason and not self.journal.sent_back_blank:
            self.blank = True
            return BLANK
        if problem or not cites or self._final_turn_reason or self.journal.quotes_rejected:
            return problem
        cited = cite(self.components.store, self.journal.contexts, value)
        if told := quotes_problem(cited, needed=self.journal.can_be_quoted):
            self.unfound = len(cited.not_found)
        return told

    @property
    def _final_turn_reason(self) -> StopReason | None:
        """Return the limit that made this the last turn."""
        return self.state.get("stop_reason")

    @property
    def _declined(self) -> bool:
        """Return whether a person declined the calls that the cell waits for."""
        asked = self.state.get("approval")
        waited_for = range(self.repl.next_call, self.repl.next_call + len(self.repl.pending_calls))
        return asked is not None and asked["granted"] is False and asked["first"] in waited_for

    @property
    def _cell(self) -> int:
        """Return the number of the running cell: the last that has begun."""
        return len(self.journal.cells) - 1

    def _replay(self) -> Step | None:
        replayed, diverged = self.repl.replayed, self.repl.diverged
        step = self.repl.advance(self.journal)
        if changed := self.repl.diverged - diverged:
            self._note(f"replayed calls that are not the recorded ones: {changed}; asked afresh")
        if self.repl.replayed - replayed > REPLAY_NOTE_SECONDS:
            self._note(f"rebuilding the REPL took {self.repl.replayed - replayed:.1f} s of computing")
        return step

    def _start(self, code: str) -> Step:
        self._write(
            CellRecord(
                type="cell",
                path=self.state["path"],
                turn=self.journal.turns[-1]["turn"],
                cell=len(self.journal.cells),
                code=code,
                time=time.time(),
            )
        )
        return self.repl.run(code, self.journal.setup(self._cell))

    def _numbered(self, calls: Sequence[Call]) -> list[NumberedCall]:
        path, cell, first = self.state["path"], self._cell, self.repl.next_call
        return [NumberedCall(path, cell, first + i, call, fingerprint(call)) for i, call in enumerate(calls)]

    def _answer_free_calls(self, calls: Sequence[NumberedCall]) -> list[Reply] | None:
        """Return replies that cost nothing, given in place; None when one of the calls has to be sent."""
        refusal: Refusal | None = self._final_turn_reason or ("declined" if self._declined else None)
        if refusal:
            self.refused += 1
            return [self._refused(call, refusal) for call in calls]
        replies = [self._free_reply(call) for call in calls]
        ready = [reply for reply in replies if reply is not None]
        if len(ready) < len(calls):
            return None
        self.idle += 1
        for call, reply in zip(calls, ready, strict=True):
            self._record_reply(call, reply)
        return ready

    def _refused(self, asked: NumberedCall, refusal: Refusal) -> Reply:
        """Refuse a call, unless it was answered before."""
        known = self.journal.reply(asked.number, asked.call)
        if known is not None:
            return known
        why = "a person declined this call" if refusal == "declined" else "the run is ending: no more calls"
        reply = Reply(error=why)
        self._record_reply(asked, reply, refusal)
        return reply

    def _free_reply(self, asked: NumberedCall) -> Reply | None:
        """Return the reply to a call that costs nothing; None for one that has to be sent."""
        site = CallSite(self.components, self.tree, asked)
        return handler_of(asked.call.kind).free_reply(site, self.journal)

    def _record_reply(self, asked: NumberedCall, reply: Reply, refusal: Refusal | None = None) -> None:
        """Record a reply that was given in place."""
        is_free = kind_of(asked.call.kind).is_free
        result = CallResult(
            None,
            reply.error,
            memo=not is_free and reply.error is None,
            refused=None if is_free else refusal,
        )
        prompt_chars = len(asked.call.prompt)
        result = self.tree.charged(asked.place, result)
        more = {"value": reply.value} if is_free else recorded_value(self.components.store, reply.value)
        self.journal.add(self.recorder.call(asked, result, prompt_chars=prompt_chars, **more))

    def _fan_out(self, calls: Sequence[NumberedCall]) -> Command[Any]:
        """Send the calls that the journal has no reply to on their way; ask a person first.

        Threads of a cell may ask of different kinds at once: those that are free are answered here all the same.
        """
        missing = [call for call in calls if self.journal.reply(call.number, call.call) is None]
        if asking := approval_needed(self.components, self.state, self.tree, missing):
            self.tree.close(self.state["path"])  # a person may take days: no worker waits with us
            return self._go("approve", approval=asking)
        record = WaveRecord(
            type="wave",
            path=self.state["path"],
            cell=self._cell,
            first=self.repl.next_call,
            count=len(calls),
            time=time.time(),
        )
        if (prompts := self._kept_prompts(calls)) is not None:
            record["prompts_ref"] = prompts
        self._write(record)
        free = [call for call in missing if kind_of(call.call.kind).is_free]
        for call in free:
            if (reply := self._free_reply(call)) is not None:
                self._record_reply(call, reply)
        agreed = self.tree.agreement.approved_up_to
        read = self.tree.reading.contexts if self.tree.reading else []
        # Nobody reads a description of them there, and each checkpoint of a child run holds them.
        tops = [self.components.store.with_short_preview(ref, 0) for ref in read]
        sent = [
            CallSite(self.components, self.tree, call, self.journal.contexts.get("context"))
            for call in missing
            if call not in free
        ]
        tasks = make_subcall_tasks(self.state["run"], sent, TreeInfo(agreed, tops))
        return self._go([Send("subcall", task) for task in tasks])

    def _kept_prompts(self, calls: Sequence[NumberedCall]) -> ContextRef | None:
        """Store the whole prompts of a batch, for readers of the trajectory; None when the records hold them whole,
        or the run has no thread. Nothing of the run depends on them, so a store that is full does not end it."""
        if self.tree.receipts is None or all(call.prompt_chars <= PREVIEW for call in calls):
            return None
        try:
            return stored_list(self.components.store, [call.prompt_text for call in calls])
        except JournalError as error:
            self._note(f"the whole prompts of this batch could not be kept: {error}")
            return None

    def _answered(self, value: Plain, stdout: str, error: str | None) -> Command[Any]:
        """End the run with an answer. That of a child run is kept by reference when it is long."""
        more: dict[str, Any] = {"value": value}
        if self.state["path"]:
            more = recorded_value(self.components.store, value)
        self._output("answered", stdout, error, **more)
        return self._go("finalise", answer=more["value"], stop_reason=self._final_turn_reason or "answer")

    def _output(
        self, outcome: Literal["completed", "answered", "died"], stdout: str, error: str | None, **answer: Any
    ) -> None:
        more: dict[str, Any] = {**answer}
        if self.blank:
            more["blank"], self.blank = True, False
        if self.misfit:
            more["misfit"], self.misfit = self.misfit, ""
        if self.unfound is not None:
            more["unfound"], self.unfound = self.unfound, None
        record = self.recorder.output(
            (self.state["path"], self._cell),
            outcome,
            format_observation(self._model.profile, self._window, self.journal, stdout, error),
            chars=len(stdout),
            is_error=error is not None,
            seconds=self.repl.seconds,
            **more,
        )
        self.journal.add(record)

    def _died(self, stdout: str, error: str) -> None:
        self._output("died", stdout, render(self._model.profile, "died", error=error))

    def _out_of_time(self, stdout: str) -> Command[Any]:
        if self.journal.cells and not self.journal.finished(self._cell):
            self._died(stdout, "There is no time left.")
        return self._after_last_cell()

    def _after_last_cell(self) -> Command[Any]:
        """Go on with the next turn; after the last one, whose words may be the answer, end the run."""
        if not self._final_turn_reason:
            return self._go("generate")
        return self._go("finalise")

    @property
    def _model(self) -> Model:
        return self.components.root_model(depth_of(self.state["path"]))

    @property
    def _window(self) -> int | None:
        return self.tree.learned.window(self._model.name, self._model.window)

    def _note(self, text: str) -> None:
        self.journal.add(self.recorder.note(self.state["path"], "reader", text))

    def _write(self, record: Record) -> None:
        self.recorder.record(record)
        self.journal.add(record)

    def _go(self, node: str | list[Send], **update: Any) -> Command[Any]:
        return Command(goto=node, update={**self.recorder.written(), **update})
