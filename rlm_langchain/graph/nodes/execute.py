"""The node `execute`: runs the cells of a turn until all have ended, or one makes calls that are not free."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from rlm_langchain.answers.citations import answer_of, cite, quotes_problem
from rlm_langchain.answers.fan_out import LeftOut, parts_left_out, prompt_values
from rlm_langchain.answers.words import with_quotes
from rlm_langchain.context.long_text import store_texts, value_fields
from rlm_langchain.context.places import repl_code
from rlm_langchain.errors import ConfigurationError, JournalError, SandboxError
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import HANDLERS, handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.approve import approval_needed, restore_approvals
from rlm_langchain.graph.nodes.subcall import make_subcall_tasks
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.render import render
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.records import CellRecord, Record, WaveRecord
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

MAX_FAILED_BATCHES, MAX_REPEATED_BATCHES = 25, 5_000
"""Batches of calls in a row that all failed, or were all answered before, after which a cell is ended as a loop."""
MAX_FLAWED = 5
"""Flawed replies to one prompt, empty or cut off, after which a cell is ended. None is cached: each costs."""
BLANK_PROBLEM = (
    "it is None, or a text without words. If there is no answer, give FINAL a sentence that says so and why."
)
"""The message to the model about a blank answer."""
GRACE_AFTER_DEADLINE = 2.0
"""The most seconds that a cell may compute after the deadline, to make an answer from its replies."""
_PRELUDE_LINE = re.compile(r'"<(?:helpers|prelude)>", line (\d+)')
"""Where an error of a prelude stands, in the words of both sandboxes."""
REPLAY_NOTE_SECONDS = 3.0
"""Seconds of computing from which a note reports a replay."""


def open_repl(components: Components, journal: Journal, tree: RunTree, path: str) -> SandboxSession:
    """Open a fresh REPL for the run at `path`, over the contexts of its journal.

    Raises `SandboxError`, `ConfigurationError` for a strategy whose helpers fail, and what
    `Components.check_resumable` raises.
    """
    files = components.check_resumable(journal)
    context = files.pop("context", None)
    left, most = tree.ledger.seconds_left(), components.limits.seconds
    seconds = most if left is None else min(most, max(left, 1.0))
    preludes = [("", repl_code(journal.contexts))]  # first, so that a tool of the same name takes precedence
    preludes += [(strategy.name, strategy.prelude) for strategy in components.strategies_for_cells(journal)]
    preludes += [("", handler.prelude(components, path)) for handler in HANDLERS.values()]
    preludes += [
        ("", f"{name} = {variable}[{name!r}]")
        for variable, ref in journal.contexts.items()
        for name in (ref or {}).get("names", ())
    ]
    preludes = [(name, text) for name, text in preludes if text]
    limits = replace(components.limits, seconds=seconds)
    try:
        return components.sandbox.open(
            context, "\n\n".join(text for _, text in preludes), limits, *([files] if files else [])
        )
    except SandboxError as error:
        if at_fault := _failed_helpers(preludes, str(error)):
            raise ConfigurationError(f"{at_fault}: {error}") from error
        raise


def _failed_helpers(preludes: Sequence[tuple[str, str]], error: str) -> str | None:
    """Return whose helpers an error of the prelude is about, by its line; None if it is about none."""
    if (found := _PRELUDE_LINE.search(error)) is None:
        return None
    line = int(found[1])
    for name, text in preludes:
        length = text.count("\n") + 2  # an empty line is between two
        if line <= length:
            return f"the helpers of the strategy {name!r} (helpers.py) fail in line {line}" if name else None
        line -= length
    return None


@dataclass(slots=True)
class ExecuteStep:
    """The state of one run of the node `execute`."""

    components: Components
    state: RLMState
    tree: RunTree
    journal: Journal
    repl: Repl
    recorder: Recorder
    refused: int = 0
    """Number of batches that were refused in this run of the node."""
    idle: int = 0
    """Number of batches that were answered without a task."""
    misfit: str = ""
    """Why the last answer was sent back: it does not fit its schema. Empty if it was not."""
    unfound: int | None = None
    """Number of quotes not found in an answer that was sent back for them. 0: it had none. None: no such answer."""
    blank: bool = False
    """Whether the last answer was sent back because it is blank."""

    @classmethod
    def begin(cls, components: Components, state: RLMState, config: RunnableConfig) -> ExecuteStep:
        """Find the REPL of this run, or prepare to rebuild it. Raises `JournalError`, `ConfigurationError`."""
        tree = components.tree(state["run"], config)
        journal = tree.journal(state["path"], state["trajectory"])
        restore_approvals(state, tree)
        components.coverage_tracker(tree, state, journal)
        repl = tree.repl(state["path"], lambda: open_repl(components, journal, tree, state["path"]))
        tree.check()
        components.check_unchanged(journal)
        return cls(components, state, tree, journal, repl, Recorder())

    def run(self) -> Command[Any]:
        """Run cells until calls must be sent, an answer is given, all cells have ended, or time is up."""
        with self.repl.deadline(self._seconds()):
            return self._run_steps()

    def _seconds(self) -> float | None:
        """Return the seconds of computing allowed: until the deadline and a short grace, or all that is left if
        this is the final turn. None without a limit."""
        ledger = self.tree.ledger
        left, most = ledger.seconds_left(), ledger.seconds_left(last=True)
        if left is None or most is None:
            return None
        return most if self._final_turn_reason else left + min(GRACE_AFTER_DEADLINE, (most - left) / 4)

    def _run_steps(self) -> Command[Any]:
        step = self._replay()
        while True:
            match step:
                case None:
                    code = self.journal.next_code()
                    if code is None:
                        return self._after_last_cell()
                    step = self._start(code)
                case Suspended() if loop := self._loop_detected():
                    self.repl.stop()
                    self._died("", loop)
                    step = None
                case Suspended(calls):
                    numbered_calls = self._numbered(calls)
                    replies = self._answer_free_calls(numbered_calls)
                    if replies is None:
                        return self._fan_out(numbered_calls)
                    step = self.repl.answer(replies)
                case Completed(stdout, error):
                    self._output("completed", stdout, error)
                    step = None
                case Answered(given, stdout, error):
                    value = self._with_quotes(given)
                    problem = self._answer_problem(value)
                    if problem is None:
                        return self._answered(value, stdout, error)
                    self._output("completed", stdout, f"FINAL was refused, the answer does not fit: {problem}")
                    step = None
                case Died(_, stdout, _) if self.repl.timed_out:
                    return self._out_of_time(stdout)
                case Died("crash") if self.repl.may_retry_crash(self._cell):
                    self._note("the process of the REPL was gone; a new one was brought to where it was")
                    step = self._replay()
                case Died(_, stdout, error):
                    self._died(stdout, error)
                    step = None

    def _loop_detected(self) -> str | None:
        """Return why a cell that makes more calls is ended: all fail, or bring nothing new. None if it is not."""
        if self.journal.failed_waves + self.refused >= MAX_FAILED_BATCHES:
            return f"{MAX_FAILED_BATCHES} times in a row, none of the calls that it waited for was answered."
        if self.components.memo and any(len(waves) >= MAX_FLAWED for waves in self.journal.flawed.values()):
            return f"{MAX_FLAWED} times, it asked the same prompt, and the reply was empty or cut: ask for less."
        if self.idle >= MAX_REPEATED_BATCHES:
            return (
                f"{MAX_REPEATED_BATCHES:,} times in a row, it asked only what was known: "
                "identical calls get the same reply."
            )
        return None

    def _with_quotes(self, value: Plain) -> Plain:
        """Return an answer whose quotes can be looked up, whatever form the model gave it, if the run cites."""
        path = self.state["path"]
        cites = self.components.wants_citations(path)
        return cast(Plain, with_quotes(value, self.components.answer_schema(path))) if cites else value

    def _answer_problem(self, value: Plain) -> str | None:
        """Return why an answer is sent back, or None. One that does not fit the schema always is; a blank one, or
        one with wrong quotes, is only once a run."""
        path = self.state["path"]
        schema, cites = self.components.answer_schema(path), self.components.wants_citations(path)
        answer = answer_of(value) if cites else value
        problem = None if schema is None else schema.problem(answer)
        if problem:
            self.misfit = problem
        if schema is None and is_blank(answer) and not self._final_turn_reason and not self.journal.sent_back_blank:
            self.blank = True
            return BLANK_PROBLEM
        if problem or not cites or self._final_turn_reason or self.journal.quotes_rejected:
            return problem
        cited = cite(self.components.store, self.journal.contexts, value)
        if problem := quotes_problem(cited, needed=self.journal.can_be_quoted):
            self.unfound = len(cited.not_found)
        return problem

    @property
    def _final_turn_reason(self) -> StopReason | None:
        """Return the limit because of which this is the final turn, or None."""
        return self.state.get("stop_reason")

    @property
    def _declined(self) -> bool:
        """Return whether a person declined the calls that the cell waits for."""
        approval = self.state.get("approval")
        pending = range(self.repl.next_call, self.repl.next_call + len(self.repl.pending_calls))
        return approval is not None and approval["granted"] is False and approval["first"] in pending

    @property
    def _cell(self) -> int:
        """Return the number of the last cell that was started."""
        return len(self.journal.cells) - 1

    def _replay(self) -> Step | None:
        """Bring the REPL to the state of the journal, and return its step, if a cell waits."""
        replayed, diverged = self.repl.replayed, self.repl.diverged
        step = self.repl.advance(self.journal)
        if changed := self.repl.diverged - diverged:
            self._note(f"replayed calls that are not the recorded ones: {changed}; asked afresh")
        if self.repl.replayed - replayed > REPLAY_NOTE_SECONDS:
            self._note(f"rebuilding the REPL took {self.repl.replayed - replayed:.1f} s of computing")
        return step

    def _start(self, code: str) -> Step:
        """Record a cell, and run it until it ends or makes a call."""
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
        """Number the calls that the cell waits for."""
        path, cell, first = self.state["path"], self._cell, self.repl.next_call
        return [NumberedCall(path, cell, first + i, call, fingerprint(call)) for i, call in enumerate(calls)]

    def _answer_free_calls(self, calls: Sequence[NumberedCall]) -> list[Reply] | None:
        """Return the replies if all calls are free or refused, else None: then the calls must be sent."""
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

    def _refused(self, numbered: NumberedCall, refusal: Refusal) -> Reply:
        """Refuse a call. If it was answered before, return the recorded reply instead."""
        recorded = self.journal.reply(numbered.number, numbered.call)
        if recorded is not None:
            return recorded
        why = "a person declined this call" if refusal == "declined" else "the run is ending: no more calls"
        reply = Reply(error=why)
        self._record_reply(numbered, reply, refusal)
        return reply

    def _free_reply(self, numbered: NumberedCall) -> Reply | None:
        """Return the reply to a free call, or None for a call that must be sent."""
        site = CallSite(self.components, self.tree, numbered)
        return handler_of(numbered.call.kind).free_reply(site, self.journal)

    def _record_reply(self, numbered: NumberedCall, reply: Reply, refusal: Refusal | None = None) -> None:
        """Record the reply to a call that was answered or refused without a task."""
        is_free = kind_of(numbered.call.kind).is_free
        result = CallResult(
            None,
            reply.error,
            memo=not is_free and reply.error is None,
            refused=None if is_free else refusal,
        )
        prompt_chars = len(numbered.call.prompt)
        result = self.tree.charged(numbered.call_path, result)
        more = {"value": reply.value} if is_free else value_fields(self.components.store, reply.value)
        self.journal.add(self.recorder.call(numbered, result, prompt_chars=prompt_chars, **more))

    def _fan_out(self, calls: Sequence[NumberedCall]) -> Command[Any]:
        """Send the calls that have no recorded reply as tasks, or go to `approve` if a person must be asked first.

        Threads of a cell may make calls of different kinds at once. Those that are free are answered here.
        """
        missing = [call for call in calls if self.journal.reply(call.number, call.call) is None]
        if approval := approval_needed(self.components, self.state, self.tree, missing):
            self.tree.close(self.state["path"])  # the answer may take days, so the worker is closed
            return self._go("approve", approval=approval)
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
        approved = self.tree.approval_limit.approved_up_to
        measured = self.tree.coverage.contexts if self.tree.coverage else []
        # Child runs need no previews, and each of their checkpoints would contain them.
        root_contexts = [self.components.store.with_short_preview(ref, 0) for ref in measured]
        sites = [
            CallSite(self.components, self.tree, call, self.journal.contexts.get("context"))
            for call in missing
            if call not in free
        ]
        tasks = make_subcall_tasks(self.state["run"], sites, TreeInfo(approved, root_contexts))
        return self._go([Send("subcall", task) for task in tasks])

    def _kept_prompts(self, calls: Sequence[NumberedCall]) -> ContextRef | None:
        """Store the whole prompts of a batch, for readers of the trajectory; None when the records hold them whole,
        or the run has no thread. Nothing of the run depends on them, so a store that is full does not end it."""
        if self.tree.receipts is None or all(call.prompt_chars <= PREVIEW for call in calls):
            return None
        try:
            return store_texts(self.components.store, [call.prompt_text for call in calls])
        except JournalError as error:
            self._note(f"the whole prompts of this batch could not be kept: {error}")
            return None

    def _answered(self, value: Plain, stdout: str, error: str | None) -> Command[Any]:
        """Record the answer, and go to `finalise`. A long answer of a child run is stored by reference."""
        more: dict[str, Any] = {"value": value}
        if self.state["path"]:
            more = value_fields(self.components.store, value)
        self._output("answered", stdout, error, **more)
        return self._go("finalise", answer=more["value"], stop_reason=self._final_turn_reason or "answer")

    def _output(
        self, outcome: Literal["completed", "answered", "died"], stdout: str, error: str | None, **answer: Any
    ) -> None:
        """Record the output of a cell, and reset the reasons why its answer was sent back."""
        more: dict[str, Any] = {**answer}
        if self.blank:
            more["blank"], self.blank = True, False
        if self.misfit:
            more["misfit"], self.misfit = self.misfit, ""
        if self.unfound is not None:
            more["unfound"], self.unfound = self.unfound, None
        missing = self._left_out()
        if missing:
            more["covered"] = round(min(part.share for part in missing), 6)
        record = self.recorder.output(
            (self.state["path"], self._cell),
            outcome,
            format_observation(
                self._model.profile, self._window, self.journal, stdout, error, [*map(prompt_values, missing)]
            ),
            chars=len(stdout),
            is_error=error is not None,
            seconds=self.repl.seconds,
            **more,
        )
        self.journal.add(record)

    def _left_out(self) -> list[LeftOut]:
        """Return what a fan-out of the cell left out. Empty in a child run: only contexts of the top run are
        measured."""
        tracker = self.tree.coverage
        if self.state["path"] or tracker is None or not tracker.contexts:
            return []
        return parts_left_out(tracker, self.journal.calls_since_question, self._cell, self.journal.largest_batch)

    def _died(self, stdout: str, error: str) -> None:
        """Record the output of a cell that was ended before it had finished."""
        self._output("died", stdout, render(self._model.profile, "died", error=error))

    def _out_of_time(self, stdout: str) -> Command[Any]:
        """End the cell because no time is left."""
        if self.journal.cells and not self.journal.finished(self._cell):
            self._died(stdout, "There is no time left.")
        return self._after_last_cell()

    def _after_last_cell(self) -> Command[Any]:
        """Go to the next turn, or to `finalise` after the final turn."""
        if not self._final_turn_reason:
            return self._go("generate")
        return self._go("finalise")

    @property
    def _model(self) -> Model:
        return self.components.root_model(self.state["path"])

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
