"""`execute`: runs the next cell, or goes on with the one that waits, until it needs a model or ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from rlm_langchain.answers.citations import answer_of, cite
from rlm_langchain.answers.citations import quotes_problem as quote_problem
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.approve import approval_needed, restore_approvals
from rlm_langchain.graph.nodes.subcall import PREVIEW, known, make_subcall_tasks
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.render import render
from rlm_langchain.records import (
    CallRecord,
    CellRecord,
    NoteRecord,
    OutputRecord,
    Record,
    WaveRecord,
    child_path,
    depth_of,
)
from rlm_langchain.run.repl import Repl
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.degradation import is_blank
from rlm_langchain.trajectory.journal import Journal, fingerprint
from rlm_langchain.trajectory.observation import format_observation
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import (
    Answered,
    Call,
    Completed,
    Died,
    Plain,
    Refusal,
    Reply,
    Step,
    StopReason,
    Suspended,
    Usage,
)

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState

FREE_CALLS = ("budget", "history")
"""Kinds of calls that cost nothing."""
FAILING, IDLE = 25, 5_000
"""Waves of calls in one cell that all fail, or bring nothing new: by then the cell goes round in circles."""
FLAWED = 5
"""Times that one cell may ask a prompt whose replies are all empty or cut. None is remembered: each is paid for."""
BLANK = "it is None, or a text without words. If there is no answer, give FINAL a sentence that says so and why."
GRACE_AFTER_DEADLINE = 2.0
"""Seconds that a cell has at most when time is over: to make an answer of what its calls brought."""
REPLAY_NOTE_SECONDS = 3.0
"""Seconds of rebuilding that are worth a word to the reader."""


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
    """How often the cell was told that there are no more calls."""
    idle: int = 0
    """How often it asked only what was known."""
    unfound: int = 0
    """Quotes of the answer that is sent back for them."""
    blank: bool = False
    """Whether the answer that is sent back is nothing."""

    @classmethod
    def begin(cls, components: Components, state: RLMState, config: RunnableConfig) -> ExecuteStep:
        """Find the REPL of this run, or the way to rebuild it."""
        tree = components.tree(state["run"], config)
        journal = tree.journal(state["path"], state["trajectory"])
        restore_approvals(state, tree)
        components.coverage_tracker(tree, state, journal)
        repl = tree.repl(state["path"], lambda: components.open(journal, tree, state["path"]))
        tree.check()
        components.unchanged(journal)
        return cls(components, state, tree, journal, repl, Recorder())

    def run(self) -> Command[Any]:
        """Run until a model is needed, the answer is there, the turn's code is done, or time is over."""
        with self.repl.within(self._seconds()):
            return self._go_on()

    def _seconds(self) -> float | None:
        """How long this visit may compute: a little into the time of the last call, unless this is after it."""
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
                    served = self._answer_free_calls(calls)
                    if served is None:
                        return self._fan_out(calls)
                    step = self.repl.answer(served)
                case Completed(stdout, error):
                    self._output("completed", stdout, error)
                    step = None
                case Answered(value, stdout, _) if problem := self._answer_problem(value):
                    self._output("completed", stdout, f"FINAL was refused, the answer does not fit: {problem}")
                    step = None
                case Answered(value, stdout, error):
                    self._output("answered", stdout, error, value=value)
                    return self._go("finalise", answer=value, stop_reason=self._final_turn_reason or "answer")
                case Died(_, stdout, _) if self.repl.late:
                    return self._out_of_time(stdout)
                case Died("crash") if self.repl.revives(self._cell):
                    self._tell("the process of the REPL was gone; a new one was brought to where it was")
                    step = self._replay()
                case Died(_, stdout, error):
                    self._died(stdout, error)
                    step = None

    def _loop_detected(self) -> str | None:
        """Why a cell that asks once more is ended: calls that bring nothing cost nothing, or are all in vain."""
        if self.journal.failed_waves + self.refused >= FAILING:
            return f"{FAILING} times in a row, none of the calls that it waited for was answered."
        if self.components.memo and any(len(waves) >= FLAWED for waves in self.journal.flawed.values()):
            return f"{FLAWED} times, it asked the same prompt, and the reply was empty or cut: ask for less."
        if self.idle >= IDLE:
            return f"{IDLE:,} times in a row, it asked only what was known: identical calls get the same reply."
        return None

    def _answer_problem(self, value: Plain) -> str | None:
        """Why an answer goes back to the model: it does not fit its schema; once, it is nothing, or misquotes."""
        schema, cites = (
            self.components.answer_schema(self.state["path"]),
            self.components.wants_citations(self.state["path"]),
        )
        answer = answer_of(value) if cites else value
        problem = None if schema is None else schema.problem(answer)
        if schema is None and is_blank(answer) and not self._final_turn_reason and not self.journal.sent_back_blank:
            self.blank = True
            return BLANK
        if problem or not cites or self._final_turn_reason or self.journal.quotes_rejected:
            return problem
        unfound = cite(self.components.store, self.journal.contexts, value).not_found
        self.unfound = len(unfound)
        return quote_problem(unfound) if unfound else None

    @property
    def _final_turn_reason(self) -> StopReason | None:
        """The limit that made this the last turn."""
        return self.state.get("stop_reason")

    @property
    def _declined(self) -> bool:
        """Whether a person said no to the calls that the cell waits for."""
        asked = self.state.get("approval")
        waited_for = range(self.repl.first, self.repl.first + len(self.repl.waiting))
        return asked is not None and asked["granted"] is False and asked["first"] in waited_for

    @property
    def _cell(self) -> int:
        """The cell that is running: the last that has begun."""
        return len(self.journal.cells) - 1

    def _replay(self) -> Step | None:
        replayed, diverged = self.repl.replayed, self.repl.diverged
        step = self.repl.advance(self.journal)
        if changed := self.repl.diverged - diverged:
            self._tell(f"replayed calls that are not the recorded ones: {changed}; asked afresh")
        if self.repl.replayed - replayed > REPLAY_NOTE_SECONDS:
            self._tell(f"rebuilding the REPL took {self.repl.replayed - replayed:.1f} s of computing")
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
        return self.repl.run(code)

    def _answer_free_calls(self, calls: Sequence[Call]) -> list[Reply] | None:
        """Replies that cost nothing, given in place; None when a model is needed."""
        refusal: Refusal | None = self._final_turn_reason or ("declined" if self._declined else None)
        if refusal:
            self.refused += 1
            return [self._refused(i, call, refusal) for i, call in enumerate(calls)]
        replies = [self._free_reply(self.repl.first + i, call) for i, call in enumerate(calls)]
        ready = [reply for reply in replies if reply is not None]
        if len(ready) < len(calls):
            return None
        self.idle += 1
        return [self._served(i, call, reply) for i, (call, reply) in enumerate(zip(calls, ready, strict=True))]

    def _refused(self, index: int, call: Call, refusal: Refusal) -> Reply:
        """No, unless the call was answered before."""
        known = self.journal.reply(self.repl.first + index, call)
        told = "a person declined this call" if refusal == "declined" else "the run is ending: no more calls"
        return known or self._served(index, call, Reply(error=told), refusal)

    def _free_reply(self, number: int, call: Call) -> Reply | None:
        """The reply to a call that costs nothing."""
        match call.kind:
            case "history":
                return Reply(self.journal.history())
            case "budget":
                place = child_path(self.state["path"], number)
                return Reply(self.tree.once(f"{place} budget", self._left))
            case _:
                answer = known(self.components, self.tree, self.state["path"], number, call)
                return None if answer is None else Reply(answer)

    def _left(self) -> Plain:
        """What is left of the budget, as code sees it."""
        depth = depth_of(self.state["path"])
        turns = max(0, self.components.max_iterations(depth) - self.journal.iterations)
        levels = self.components.budget.depth - 1 - depth
        return {**self.tree.ledger.remaining(), "iterations": turns, "depth": levels}

    def _served(self, index: int, call: Call, reply: Reply, refusal: Refusal | None = None) -> Reply:
        record = CallRecord(
            type="call",
            path=self.state["path"],
            cell=self._cell,
            call=self.repl.first + index,
            kind=call.kind,
            prompt_sha256=fingerprint(call),
            prompt_chars=len(call.prompt),
            preview="" if call.kind in FREE_CALLS else call.prompt[:PREVIEW],
            value=None if call.kind == "history" else reply.value,
            error=reply.error,
            usage=Usage().record(),
            model="",
            seconds=0.0,
            retries=0,
            time=time.time(),
        )
        if call.kind not in FREE_CALLS and reply.error is None:
            record["memo"] = True
        if call.kind not in FREE_CALLS and refusal is not None:
            record["refused"] = refusal
        self._write(record)
        return reply

    def _fan_out(self, calls: Sequence[Call]) -> Command[Any]:
        """Send the calls that the journal has no reply to on their way, each numbered; ask a person first."""
        first = self.repl.first
        numbered = {first + i: call for i, call in enumerate(calls)}
        missing = {n: call for n, call in numbered.items() if self.journal.reply(n, call) is None}
        if asking := approval_needed(self.components, self.state, self.tree, missing):
            self.tree.close(self.state["path"])  # a person may take days: no worker waits with us
            return self._go("approve", approval=asking)
        self._write(
            WaveRecord(
                type="wave",
                path=self.state["path"],
                cell=self._cell,
                first=first,
                count=len(calls),
                time=time.time(),
            )
        )
        agreed = self.tree.agreement.approved_up_to
        tops = self.tree.reading.contexts if self.tree.reading else []
        sends = make_subcall_tasks(
            self.components, self.state, self.journal, list(missing.items()), TreeInfo(agreed, tops)
        )
        return self._go([Send("subcall", errand) for errand in sends])

    def _output(
        self, outcome: Literal["completed", "answered", "died"], stdout: str, error: str | None, **answer: Plain
    ) -> None:
        profile, window = self._model.profile, self._model.window
        record = OutputRecord(
            type="output",
            path=self.state["path"],
            cell=self._cell,
            outcome=outcome,
            text=format_observation(profile, window, self.journal, stdout, error),
            chars=len(stdout),
            error=error is not None,
            seconds=self.repl.seconds,
            time=time.time(),
        )
        if "value" in answer:
            record["value"] = answer["value"]
        if self.blank:
            record["blank"], self.blank = True, False
        if self.unfound:
            record["unfound"], self.unfound = self.unfound, 0
        self._write(record)

    def _died(self, stdout: str, error: str) -> None:
        self._output("died", stdout, render(self._model.profile, "died", error=error))

    def _out_of_time(self, stdout: str) -> Command[Any]:
        if self.journal.cells and not self.journal.finished(self._cell):
            self._died(stdout, "There is no time left.")
        return self._after_last_cell()

    def _after_last_cell(self) -> Command[Any]:
        """The last turn's words are the answer when its code gave none; any other turn is followed by one."""
        if not self._final_turn_reason:
            return self._go("generate")
        return self._go("finalise")

    @property
    def _model(self) -> Model:
        return self.components.root_model(depth_of(self.state["path"]))

    def _tell(self, text: str) -> None:
        self._write(NoteRecord(type="note", path=self.state["path"], to="reader", text=text, time=time.time()))

    def _write(self, record: Record) -> None:
        self.recorder.record(record)
        self.journal.add(record)

    def _go(self, node: str | list[Send], **update: Any) -> Command[Any]:
        return Command(goto=node, update={"trajectory": self.recorder.records, **update})
