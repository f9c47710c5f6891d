"""`generate`: the root model's turn. What it is shown, what it may spend, and what its reply means."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command
from typing_extensions import TypedDict

from rlm_langchain.answers.citations import cite, quotes_problem
from rlm_langchain.answers.words import answer_in_words, problem_in_words
from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.budget.limits import STOPS
from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import ModelError
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.parse_reply import read_reply
from rlm_langchain.graph.progress import Progress
from rlm_langchain.models.call import CallFailed, Completion
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.models.registry import way_out
from rlm_langchain.prompts.render import render
from rlm_langchain.records import TurnRecord, depth_of
from rlm_langchain.run.ask_model import (
    ModelRequest,
    ask_model,
    receipt_key,
    recorded_plan,
)
from rlm_langchain.run.reservation import prompt_tokens, reservation_for
from rlm_langchain.run.run_tree import RunTree, turn_path
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.trajectory.messages import conversation
from rlm_langchain.trajectory.observation import CHARS_PER_TOKEN
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import StopReason, Usage

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState

REASONS: dict[StopReason, str] = {
    **{reason: stop.for_model for reason, stop in STOPS.items()},
    "no_progress": "your last turns only repeated what had been done, and brought nothing new",
}


TURN_TOKENS = 8_000
"""By which a turn makes what the next prompt may be longer: its reply, and what its cells have shown."""
HISTORY_SHARE = 0.6
"""Of the root model's window: a longer history is put in short, once, and the prefix is stable again."""
SUMMARY_SHARE = 0.15
"""Of the window: what a summary may take of it. Of a longer one, the middle is left out."""
SAVED_SHARE = 0.2
"""Of the window: what a summary has to make room for. Else each one would soon be followed by the next."""
SHRINKS = 6
"""How often a prompt that a provider finds too long is cut further, until the run ends without a reply."""
SHORTEST_MESSAGE = 400
"""Characters of a message that are left when a prompt is cut."""
HISTORY = 'history = _host_call("history", "")'
"""The cell that gives the REPL the full text that the summary takes the place of."""


class TurnPlan(TypedDict):
    """What a turn is to be. It depends on the account and the clock, so a reply is kept together with it."""

    stop: StopReason | None
    summary: bool
    note: str | None
    """What the model is told beside its question."""


@dataclass(slots=True)
class GenerateStep:
    """One turn of one run, from the look at the limits to the reading of the reply."""

    components: Components
    state: RLMState
    tree: RunTree
    journal: Journal
    recorder: Recorder
    messages: list[BaseMessage]
    stop: StopReason | None
    """A limit that makes this turn the last one."""
    summary: bool = False
    """The history has grown too long: this turn puts it in short."""
    decision: TurnPlan | None = None
    met: StopReason | None = None
    """A limit that was met after the turn had begun: while others, or time, went on."""
    key: str = ""
    """Of the receipt: of what is asked, without what was decided about it."""

    @classmethod
    def begin(cls, components: Components, state: RLMState, config: RunnableConfig) -> GenerateStep:
        """Look at what is left; tell the model when it is little, or that this is the last turn."""
        tree = components.tree(state["run"], config)
        journal = tree.journal(state["path"], state["trajectory"])
        components.coverage_tracker(tree, state, journal)
        turn = cls(components, state, tree, journal, Recorder(), [], None)
        turn.messages = turn._conversation()
        turn._reserve_last_call()
        turn.key = receipt_key(tree, turn._model, turn.messages, turn._place)
        turn._apply_plan(recorded_plan(tree, turn.key) or turn._decision())
        turn._fit()
        return turn

    async def ask(self, config: RunnableConfig) -> Completion | None:
        """The model's reply; when a limit is met on the way to it, that of the last call.

        None when not even that one fits. Raises `ModelError`.
        """
        reply = await self._asked(config)
        if reply is None and self.met is not None:
            self._apply_plan(self._ending(self.met))
            reply = await self._asked(config)
        return reply

    def end(self, completion: Completion | None) -> Command[Any]:
        """Where the run goes from here."""
        for learned in self.tree.learned.take_notes():
            self._tell(learned)
        if completion is None:
            self._note_unanswered()
            return self._go("finalise", stop_reason=self.stop)
        if self.summary:
            most = int((self._window or 0) * SUMMARY_SHARE * CHARS_PER_TOKEN)
            self._record(replace(completion, text=clip(completion.text, most)), [HISTORY])
            return self._go("execute")
        reply = read_reply(completion.text)
        self._record(completion, list(reply.cells))
        if reply.unseen:
            self._note(self._render("unseen", count=reply.unseen))
        if reply.ignored and reply.cells:
            self._note(self._render("ignored", languages=", ".join(dict.fromkeys(reply.ignored))))
        if reply.cells:
            return self._go("execute", stop_reason=self.stop)
        words = None if reply.is_source else self._words(reply.words)
        if self.stop:
            return self._go("finalise", answer=words, stop_reason=self.stop)
        if (self._talked_before() or self.journal.whole) and words is not None:
            ended = {"answer": words, "stop_reason": "prose"}
            return self._go("generate") if self._misquotes(words) else self._go("finalise", **ended)
        if reply.ignored:
            self._note(self._render("ignored", languages=", ".join(dict.fromkeys(reply.ignored))))
        if problem := self._misfit(completion.text):
            self._note(self._render("misfit", problem=problem))
        self._note(self._render("nudge"))
        return self._go("generate")

    async def _asked(self, config: RunnableConfig) -> Completion | None:
        """Return the reply. A prompt that is too long for the model is put in short, or cut, and asked again."""
        for _ in range(SHRINKS):
            try:
                return await self._asked_once(config)
            except CallFailed as failed:
                if failed.code != "too_long":
                    sentence = f"the root model {self._model.name} does not answer: {failed}"
                    at_fault = (one for one in self._model.fallbacks if one.name == failed.fallback)
                    hint = way_out(next(at_fault, self._model), failed.code)
                    raise ModelError(f"{sentence}; {hint}" if hint else sentence) from failed
                self._shorten(failed)
        self._tell(f"{self._model.name} finds even the shortest prompt of this run too long")
        self.stop = self.stop or "model"
        return None

    def _shorten(self, failed: CallFailed) -> None:
        """Learn what the model reads, and make the prompt no longer than that."""
        at_fault = failed.fallback or self._model.name
        self.tree.learned.too_long(at_fault, prompt_tokens(self.messages), failed.words)
        if not self.stop and not self.summary and self._too_long():
            self._apply_plan(TurnPlan(stop=None, summary=True, note=None))
        self._fit(at_fault)

    def _fit(self, name: str | None = None) -> None:
        """Cut the longest messages, when the model (or the fallback with this name) was found to read less than all
        of them."""
        most = self.tree.learned.of(name or self._model.name).window
        if most is None:
            return
        longest = max(len(str(message.content)) for message in self.messages[1:])
        whole = self.messages
        while prompt_tokens(self.messages) > most and longest > SHORTEST_MESSAGE:
            longest = max(SHORTEST_MESSAGE, longest * 3 // 4)
            self.messages = [whole[0], *(_clipped(message, longest) for message in whole[1:])]

    async def _asked_once(self, config: RunnableConfig) -> Completion | None:
        last = bool(self.stop)
        held = last and not self._path  # for the run whose answer counts
        query = ModelRequest(
            self._model, self.messages, self._place, self.key, None, self.decision, last, True, held
        )
        try:
            return await ask_model(self.tree, query, self.components.retry, config)
        except (BudgetRefused, TimeoutError) as refused:
            reason = refused.reason if isinstance(refused, BudgetRefused) else "seconds"
            self.met = None if self.stop else reason
            return None

    @property
    def depth(self) -> int:
        """How many runs are above this one."""
        return depth_of(self._path)

    @property
    def _model(self) -> Model:
        return self.components.root_model(self.depth)

    @property
    def _window(self) -> int | None:
        """Tokens that the root model reads, as far as that is known."""
        return self.tree.learned.window(self._model.name, self._model.window)

    @property
    def _place(self) -> str:
        return turn_path(self._path, len(self.journal.turns))

    def _decision(self) -> TurnPlan:
        """What this turn is to be, by the account and the clock as they are now."""
        progress = Progress.of(self.journal)
        stop = self._limit()
        if stop or progress.is_over:
            return self._ending(stop or "no_progress")
        if self._too_long():
            return TurnPlan(stop=None, summary=True, note=None)
        notes = [self._warning(progress)] if progress.is_warned else []
        notes += [self._render("scarce", left=scarce)] if (scarce := self._scarce()) else []
        return TurnPlan(stop=None, summary=False, note="\n\n".join(notes) or None)

    def _warning(self, progress: Progress) -> str:
        """What a model is told that repeats itself."""
        name = "same_error" if progress.fails_alike else "repeated"
        return self._render(name, left=progress.left)

    def _scarce(self) -> str:
        """What there is less than a quarter left of."""
        scarce = dict(self.tree.ledger.running_low())
        most = self.components.max_iterations(self.depth)
        turns = most - self.journal.iterations
        if turns < most / 4:
            scarce["turns"] = turns
        return ", ".join(
            f"{rest} {name.removesuffix('s') if type(rest) is int and rest == 1 else name}"
            for name, rest in scarce.items()
        )

    def _ending(self, stop: StopReason) -> TurnPlan:
        return TurnPlan(stop=stop, summary=False, note=self._render("final", reason=REASONS[stop]))

    def _apply_plan(self, decision: TurnPlan) -> None:
        self.decision, self.stop, self.summary = decision, decision["stop"], decision["summary"]
        if self.summary:
            self.messages.append(HumanMessage(self._render("summarise")))
        elif decision["note"]:
            self._note(decision["note"])
            self.messages = self._conversation()

    def _conversation(self) -> list[BaseMessage]:
        records = [*self.state["trajectory"], *self.recorder.records]
        return conversation(records, self._profile, self.components.store)

    @property
    def _profile(self) -> str:
        return self.components.root_model(self.depth).profile

    def _render(self, name: str, **values: object) -> str:
        return render(self._profile, name, **values)

    def _reserve_last_call(self) -> None:
        """Keep what a last call after this turn would need, when this is the run whose answer counts."""
        if not self._path:
            next_turn = self._estimate(self.components.root, last=True)
            self.tree.ledger.reserve_for_last_call = next_turn._replace(input=next_turn.input + TURN_TOKENS)

    def _limit(self) -> StopReason | None:
        if self.journal.iterations >= self.components.max_iterations(self.depth):
            return "iterations"
        return self.tree.ledger.limit_reached(self._estimate(self._model))

    def _estimate(self, model: Model, *, last: bool = False) -> Usage:
        """What a call with these messages may use, by what is known of the model."""
        return reservation_for(self.tree.ledger, model, self.messages, last=last)

    def _words(self, text: str) -> Any:
        """The answer that a reply without code gives, if it can be one."""
        schema, cites = self.components.answer_schema(self._path), self.components.wants_citations(self._path)
        return answer_in_words(text, schema, cites=cites)

    def _misquotes(self, words: Any) -> bool:
        """Whether an answer in words goes back to the model for its quotes: once, as one of `FINAL` does."""
        if not self.components.wants_citations(self._path) or self.journal.quotes_rejected:
            return False
        cited = cite(self.components.store, self.journal.contexts, words)
        if told := quotes_problem(cited, needed=self.journal.can_be_quoted):
            self.recorder.note(self._path, "model", told, unfound=len(cited.not_found))
        return told is not None

    @property
    def _path(self) -> str:
        return self.state["path"]

    def _misfit(self, text: str) -> str | None:
        """Why words that would have been the answer are none."""
        schema = self.components.answer_schema(self._path)
        would_be = schema is not None and (self._talked_before() or self.journal.whole)
        return problem_in_words(text, schema) if schema is not None and would_be else None

    def _talked_before(self) -> bool:
        return self.journal.iterations > 0 and not self.journal.turns[-1]["cells"]

    def _note_unanswered(self) -> None:
        """Note what a turn without a usable reply has used."""
        used, lost = self.tree.spent_at(self._place), self.tree.lost_at(self._place)
        if used != Usage():
            text = "The root model was asked, and no reply that could be read came back."
            self.recorder.note(self._path, "reader", text, usage=used.record(), lost=lost)

    def _note(self, text: str) -> None:
        self.recorder.note(self._path, "model", text)

    def _tell(self, text: str) -> None:
        self.recorder.note(self._path, "reader", text)

    def _too_long(self) -> bool:
        """Whether the history leaves the root model too little room, and there is something to put in short."""
        window = self._window
        if window is None or self.journal.steps_since_summary < 2:
            return False
        size = prompt_tokens(self.messages)
        saved = prompt_tokens(self.messages[2:])
        return size > window * HISTORY_SHARE and saved > window * SAVED_SHARE

    def _record(self, completion: Completion, cells: list[str]) -> None:
        record = TurnRecord(
            type="turn",
            path=self._path,
            turn=len(self.journal.turns),
            text=completion.text,
            cells=cells,
            usage=self.tree.spent_at(self._place).record(),
            model=self.components.root_model(self.depth).name,
            seconds=completion.seconds,
            retries=completion.retries,
            time=time.time(),
        )
        if flaw := flaw_of(completion.text, completion.finish):
            record["flaw"] = flaw
        if lost := self.tree.lost_at(self._place):
            record["lost"] = lost
        if self.summary:
            record["summary"] = True
        if completion.from_cache:
            record["from_cache"] = True
        self.recorder.record(record)

    def _go(self, node: str, **update: Any) -> Command[Any]:
        return Command(goto=node, update={**self.recorder.written(), **update})


def _clipped(message: BaseMessage, most: int) -> BaseMessage:
    text = str(message.content)
    return message if len(text) <= most else message.model_copy(update={"content": clip(text, most)})
