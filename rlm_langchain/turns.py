"""`generate`: the root model's turn. What it is shown, what it may spend, and what its reply means."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from rlm_langchain.calling import CallFailed, Completion
from rlm_langchain.conversation import conversation
from rlm_langchain.door import ask
from rlm_langchain.errors import ModelError
from rlm_langchain.journal import Journal
from rlm_langchain.ledger import Refused
from rlm_langchain.machine import Machine
from rlm_langchain.prompts import render
from rlm_langchain.replies import read_reply
from rlm_langchain.scribe import Scribe, depth_of
from rlm_langchain.tree import Tree
from rlm_langchain.types import NoteRecord, StopReason, TurnRecord

if TYPE_CHECKING:
    from rlm_langchain.graph import RLMState

REASONS: dict[StopReason, str] = {
    "iterations": "there are no turns left",
    "calls": "there are no model calls left",
    "tokens": "there are no tokens left",
    "usd": "there is no money left",
    "seconds": "there is no time left",
}


TURN_TOKENS = 3_000
"""By which a turn makes the next prompt longer, at most: its reply, and what its cells have shown."""
HISTORY_SHARE = 0.6
"""Of the root model's window: a longer history is put in short, once, and the prefix is stable again."""
HISTORY = 'history = _host_call("history", "")'
"""The cell that gives the REPL the full text that the summary takes the place of."""


@dataclass(slots=True)
class Turn:
    """One turn of one run, from the look at the limits to the reading of the reply."""

    machine: Machine
    state: RLMState
    tree: Tree
    journal: Journal
    scribe: Scribe
    messages: list[BaseMessage]
    stop: StopReason | None
    """A limit that makes this turn the last one."""
    summary: bool = False
    """The history has grown too long: this turn puts it in short."""

    @classmethod
    def begin(cls, machine: Machine, state: RLMState, config: RunnableConfig) -> Turn:
        """Look at what is left; tell the model when it is little, or that this is the last turn."""
        journal = Journal(state["trajectory"])
        tree = machine.tree(state["run"], config)
        tree.join(state["path"], journal)
        turn = cls(machine, state, tree, journal, Scribe(), [], None)
        turn.messages = turn._conversation()
        turn._hold()
        turn.stop = turn._limit()
        turn.summary = not turn.stop and turn._too_long()
        if turn.summary:
            turn.messages.append(HumanMessage(turn._render("summarise")))
            return turn
        if turn.stop:
            turn._note(turn._render("final", reason=REASONS[turn.stop]))
        elif scarce := tree.ledger.scarce():
            turn._note(turn._render("scarce", left=", ".join(f"{rest} {name}" for name, rest in scarce.items())))
        turn.messages = turn._conversation()
        return turn

    async def ask(self, config: RunnableConfig) -> Completion | None:
        """The model's reply; None when not even the last call fits. Raises `ModelError`."""
        model, last = self.machine.runs_at(self.depth), bool(self.stop) and not self.state["path"]
        place = f"{self.state['path']} turn {len(self.journal.turns)}"
        try:
            return await ask(self.machine, self.tree, model, self.messages, place, config, last=last)
        except (Refused, TimeoutError) as refused:
            self.stop = self.stop or (refused.reason if isinstance(refused, Refused) else "seconds")
            return None
        except CallFailed as failed:
            raise ModelError(f"the root model {model.name} does not answer: {failed}") from failed

    def end(self, completion: Completion | None) -> Command[Any]:
        """Where the run goes from here."""
        if completion is None:
            return self._go("finalise", stop_reason=self.stop)
        if self.summary:
            self._record(completion, [HISTORY])
            return self._go("execute")
        reply = read_reply(completion.text)
        self._record(completion, list(reply.cells))
        if reply.cells:
            return self._go("execute", stop_reason=self.stop)
        if self.stop:
            return self._go("finalise", answer=completion.text.strip() or None, stop_reason=self.stop)
        if self._talked_before() and completion.text.strip():
            return self._go("finalise", answer=completion.text.strip(), stop_reason="prose")
        if reply.ignored:
            self._note(self._render("ignored", languages=", ".join(reply.ignored)))
        self._note(self._render("nudge"))
        return self._go("generate")

    @property
    def depth(self) -> int:
        """How many runs are above this one."""
        return depth_of(self.state["path"])

    def _conversation(self) -> list[BaseMessage]:
        return conversation([*self.state["trajectory"], *self.scribe.records], self._profile)

    @property
    def _profile(self) -> str:
        return self.machine.runs_at(self.depth).profile

    def _render(self, name: str, **values: object) -> str:
        return render(self._profile, name, **values)

    def _hold(self) -> None:
        """Keep what a last call after this turn would need, when this is the run whose answer counts."""
        if not self.state["path"]:
            next_turn = self.machine.estimate(self.machine.root, self.messages, last=True)
            self.tree.ledger.held = next_turn._replace(input=next_turn.input + TURN_TOKENS)

    def _limit(self) -> StopReason | None:
        if self.journal.iterations >= self.machine.budget.iterations:
            return "iterations"
        return self.tree.ledger.stop(self.machine.estimate(self.machine.runs_at(self.depth), self.messages))

    def _talked_before(self) -> bool:
        return self.journal.iterations > 0 and not self.journal.turns[-1]["cells"]

    def _note(self, text: str) -> None:
        self.scribe.write(NoteRecord(type="note", path=self.state["path"], to="model", text=text, time=time.time()))

    def _too_long(self) -> bool:
        """Whether the history leaves the root model too little room, and there is something to put in short."""
        model = self.machine.runs_at(self.depth)
        steps = self.journal.steps_since_summary
        if model.window is None or steps < 2:
            return False
        return self.machine.estimate(model, self.messages).input > model.window * HISTORY_SHARE

    def _record(self, completion: Completion, cells: list[str]) -> None:
        record = TurnRecord(
            type="turn",
            path=self.state["path"],
            turn=len(self.journal.turns),
            text=completion.text,
            cells=cells,
            usage=completion.usage.record(),
            model=self.machine.runs_at(self.depth).name,
            seconds=completion.seconds,
            retries=completion.retries,
            time=time.time(),
        )
        if self.summary:
            record["summary"] = True
        self.scribe.write(record)

    def _go(self, node: str, **update: Any) -> Command[Any]:
        return Command(goto=node, update={"trajectory": self.scribe.records, **update})
