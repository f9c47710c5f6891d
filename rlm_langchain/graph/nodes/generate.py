"""The node `generate`, a turn of the root model: builds the prompt, asks within the budget, reads the reply."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from rlm_langchain.graph.nodes.parse_reply import ModelReply, read_reply
from rlm_langchain.graph.progress import Progress
from rlm_langchain.models.call import CallFailed, Completion
from rlm_langchain.models.estimate import prompt_tokens
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.models.registry import way_out
from rlm_langchain.models.reservation import reservations_for_turn
from rlm_langchain.prompts.render import render
from rlm_langchain.records import TurnRecord
from rlm_langchain.run.ask_model import (
    ModelRequest,
    ask_model,
    receipt_key,
    recorded_plan,
)
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.journal import Journal, turn_path
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
"""Tokens that a turn may add to the next prompt: its reply and the output of its cells."""
HISTORY_SHARE = 0.6
"""A history that takes more than this share of the root model's window is summarised."""
SUMMARY_SHARE = 0.15
"""The largest share of the window for a summary. The middle of a longer one is left out."""
SAVED_SHARE = 0.2
"""The share of the window that a summary must free. Otherwise the next summary would follow soon."""
MAX_SHRINKS = 6
"""How many times a prompt that the provider finds too long is shortened before the run ends without a reply."""
SHORTEST_MESSAGE = 400
"""Characters to which a message is cut at most when a prompt is shortened."""
HISTORY_CELL = 'history = _host_call("history", "")'
"""The cell that gives the REPL the full text that a summary replaces."""


class TurnPlan(TypedDict):
    """What a turn is for. It depends on the ledger and the clock, so it is stored with the reply for a replay."""

    stop: StopReason | None
    """The reason why this is the run's last turn, or None."""
    summary: bool
    """Whether the model summarises the history in this turn."""
    note: str | None
    """A message for the model, added to its prompt."""


@dataclass(slots=True)
class GenerateStep:
    """One turn of one run, from the check of the limits to the reading of the reply."""

    components: Components
    state: RLMState
    tree: RunTree
    journal: Journal
    model: Model
    """The root model of this run."""
    max_iterations: int
    """The most turns that this run may take."""
    iterations: int
    """The turns that it has taken since the question."""
    call_path: str
    """The call path of this turn."""
    messages: list[BaseMessage]
    """The prompt."""
    recorder: Recorder = field(default_factory=Recorder)
    plan: TurnPlan | None = None
    stop: StopReason | None = None
    """The reason why this is the run's last turn, or None."""
    summary: bool = False
    """Whether the model summarises the history in this turn."""
    limit_hit: StopReason | None = None
    """A limit that was reached after the turn had begun, because other runs or time went on."""
    key: str = ""
    """The receipt's key: a hash of the prompt without the plan's note."""

    @classmethod
    def begin(cls, components: Components, state: RLMState, config: RunnableConfig) -> GenerateStep:
        """Build the prompt, and plan the turn by what is left of the budget."""
        tree, path = components.tree(state["run"], config), state["path"]
        journal = tree.journal(path, state["trajectory"])
        components.coverage_tracker(tree, state, journal)
        model, most = components.root_model(path), components.max_iterations(path)
        call_path = turn_path(path, len(journal.turns))
        messages = conversation(state["trajectory"], model.profile, components.store)
        step = cls(components, state, tree, journal, model, most, journal.iterations, call_path, messages)
        turn, last_call = reservations_for_turn(tree.ledger.budget, model, messages, tree.learned)
        if not path:  # hold back what a last call after this turn would need: the answer of the top run counts
            tree.ledger.reserve_for_last_call = last_call._replace(input=last_call.input + TURN_TOKENS)
        step.key = receipt_key(tree, model, messages, call_path)
        step._apply_plan(recorded_plan(tree, step.key) or step._new_plan(turn))
        step._fit()
        return step

    async def ask(self, config: RunnableConfig) -> Completion | None:
        """Return the model's reply. If a limit is reached meanwhile, return the reply to the run's last call.

        None if not even the last call fits into the budget. Raises `ModelError`.
        """
        reply = await self._ask_fitting(config)
        if reply is None and self.limit_hit is not None:
            self._apply_plan(self._final_plan(self.limit_hit))
            reply = await self._ask_fitting(config)
        return reply

    def end(self, completion: Completion | None) -> Command[Any]:
        """Record the reply, and return the command that goes to the next node."""
        for note in self.tree.learned.take_notes():
            self._note_for_reader(note)
        if completion is None:
            self._note_unanswered()
            return self._go("finalise", stop_reason=self.stop)
        if self.summary:
            most = int((self._window or 0) * SUMMARY_SHARE * CHARS_PER_TOKEN)
            self._record(replace(completion, text=clip(completion.text, most)), [HISTORY_CELL])
            return self._go("execute")
        reply = read_reply(completion.text)
        self._record(completion, list(reply.cells))
        if reply.unseen:
            self._note(self._render("unseen", count=reply.unseen))
        if reply.ignored and reply.cells:
            self._note_ignored(reply.ignored)
        if reply.cells:
            return self._go("execute", stop_reason=self.stop)
        return self._end_without_code(reply, completion.text)

    def _end_without_code(self, reply: ModelReply, text: str) -> Command[Any]:
        """Take a reply without code as the answer, or ask for code."""
        answer = None if reply.is_source else self._answer_in_words(reply.words)
        if self.stop:
            return self._go("finalise", answer=answer, stop_reason=self.stop)
        if answer is not None and self._prose_is_answer():
            if self._sends_quotes_back(answer):
                return self._go("generate")
            return self._go("finalise", answer=answer, stop_reason="prose")
        if reply.ignored:
            self._note_ignored(reply.ignored)
        if problem := self._schema_problem(text):
            self._note(self._render("misfit", problem=problem))
        self._note(self._render("nudge"))
        return self._go("generate")

    async def _ask_fitting(self, config: RunnableConfig) -> Completion | None:
        """Ask the model. If it finds the prompt too long, summarise or shorten the prompt, and ask again."""
        for _ in range(MAX_SHRINKS):
            try:
                return await self._ask_once(config)
            except CallFailed as failed:
                if failed.code != "too_long":
                    raise self._model_error(failed) from failed
                self._shorten(failed)
        self._note_for_reader(f"{self.model.name} finds even the shortest prompt of this run too long")
        self.stop = self.stop or "model"
        return None

    def _model_error(self, failed: CallFailed) -> ModelError:
        sentence = f"the root model {self.model.name} does not answer: {failed}"
        at_fault = (one for one in self.model.fallbacks if one.name == failed.fallback)
        hint = way_out(next(at_fault, self.model), failed.code)
        return ModelError(f"{sentence}; {hint}" if hint else sentence)

    def _shorten(self, failed: CallFailed) -> None:
        """Learn the model's window from its refusal, and make the prompt fit into it."""
        at_fault = failed.fallback or self.model.name
        self.tree.learned.too_long(at_fault, prompt_tokens(self.messages), failed.words)
        if not self.stop and not self.summary and self._is_history_too_long():
            self._apply_plan(TurnPlan(stop=None, summary=True, note=None))
        self._fit(at_fault)

    def _fit(self, name: str | None = None) -> None:
        """Cut the longest messages until the prompt fits into the window that was learned for the model, or for the
        fallback with this name."""
        most = self.tree.learned.of(name or self.model.name).window
        if most is None:
            return
        longest = max(len(str(message.content)) for message in self.messages[1:])
        uncut = self.messages
        while prompt_tokens(self.messages) > most and longest > SHORTEST_MESSAGE:
            longest = max(SHORTEST_MESSAGE, longest * 3 // 4)
            self.messages = [uncut[0], *(_clipped(message, longest) for message in uncut[1:])]

    async def _ask_once(self, config: RunnableConfig) -> Completion | None:
        """Ask the model. None if the request does not fit into the budget."""
        last = bool(self.stop)
        request = ModelRequest(
            self.model,
            self.messages,
            self.call_path,
            self.key,
            plan=self.plan,
            last=last,
            cacheable=True,
            may_use_reserve=last and not self._path,  # the reserve is for the top run, whose answer counts
        )
        try:
            return await ask_model(self.tree, request, self.components.retry, config)
        except (BudgetRefused, TimeoutError) as refused:
            reason = refused.reason if isinstance(refused, BudgetRefused) else "seconds"
            self.limit_hit = None if self.stop else reason
            return None

    @property
    def _path(self) -> str:
        return self.state["path"]

    @property
    def _window(self) -> int | None:
        """The number of tokens that the root model can read, if it is known."""
        return self.tree.learned.window(self.model.name, self.model.window)

    def _new_plan(self, wanted: Usage) -> TurnPlan:
        """Plan the turn by the ledger, the clock and the run's progress. `wanted` is the most that it may use."""
        progress = Progress.of(self.journal)
        stop = "iterations" if self.iterations >= self.max_iterations else self.tree.ledger.limit_reached(wanted)
        if stop or progress.is_over:
            return self._final_plan(stop or "no_progress")
        if self._is_history_too_long():
            return TurnPlan(stop=None, summary=True, note=None)
        notes = []
        if progress.is_warning_due:
            notes.append(
                self._render("same_error" if progress.repeats_error else "repeated", left=progress.turns_left)
            )
        if scarce := self._running_low():
            notes.append(self._render("scarce", left=scarce))
        return TurnPlan(stop=None, summary=False, note="\n\n".join(notes) or None)

    def _running_low(self) -> str:
        """List the limits of which less than a quarter is left."""
        scarce = dict(self.tree.ledger.running_low())
        turns = self.max_iterations - self.iterations
        if turns < self.max_iterations / 4:
            scarce["turns"] = turns
        return ", ".join(
            f"{left} {name.removesuffix('s') if type(left) is int and left == 1 else name}"
            for name, left in scarce.items()
        )

    def _final_plan(self, stop: StopReason) -> TurnPlan:
        return TurnPlan(stop=stop, summary=False, note=self._render("final", reason=REASONS[stop]))

    def _apply_plan(self, plan: TurnPlan) -> None:
        self.plan, self.stop, self.summary = plan, plan["stop"], plan["summary"]
        if self.summary:
            self.messages.append(HumanMessage(self._render("summarise")))
        elif plan["note"]:
            self._note(plan["note"])
            records = [*self.state["trajectory"], *self.recorder.records]
            self.messages = conversation(records, self.model.profile, self.components.store)

    def _render(self, name: str, **values: object) -> str:
        return render(self.model.profile, name, **values)

    def _answer_in_words(self, text: str) -> Any:
        """Return the answer in a reply without code, or None if the text cannot be one."""
        schema, cites = self.components.answer_schema(self._path), self.components.wants_citations(self._path)
        return answer_in_words(text, schema, cites=cites)

    def _prose_is_answer(self) -> bool:
        """Return whether a reply without code ends the run: the second in a row does, and any reply of a model that
        has the whole context in its prompt."""
        talked_before = self.iterations > 0 and not self.journal.turns[-1]["cells"]
        return talked_before or self.journal.whole

    def _sends_quotes_back(self, answer: Any) -> bool:
        """Return whether the model must correct the quotes of its answer, and tell it so: once a run, as with
        `FINAL`."""
        if not self.components.wants_citations(self._path) or self.journal.quotes_rejected:
            return False
        cited = cite(self.components.store, self.journal.contexts, answer)
        problem = quotes_problem(cited, needed=self.journal.can_be_quoted)
        if problem is not None:
            self.recorder.note(self._path, "model", problem, unfound=len(cited.not_found))
        return problem is not None

    def _schema_problem(self, text: str) -> str | None:
        """Return why a text that would have been the answer does not fit the answer's schema."""
        schema = self.components.answer_schema(self._path)
        return problem_in_words(text, schema) if schema is not None and self._prose_is_answer() else None

    def _note_ignored(self, languages: Sequence[str]) -> None:
        """Tell the model which blocks of code were not run, by their languages."""
        self._note(self._render("ignored", languages=", ".join(dict.fromkeys(languages))))

    def _note_unanswered(self) -> None:
        """Record what a turn without a readable reply has cost."""
        used, lost = self.tree.spent_at(self.call_path), self.tree.lost_at(self.call_path)
        if used != Usage():
            text = "The root model was asked, and no reply that could be read came back."
            self.recorder.note(self._path, "reader", text, usage=used.record(), lost=lost)

    def _note(self, text: str) -> None:
        self.recorder.note(self._path, "model", text)

    def _note_for_reader(self, text: str) -> None:
        self.recorder.note(self._path, "reader", text)

    def _is_history_too_long(self) -> bool:
        """Return whether the history takes so much of the window that a summary pays off."""
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
            usage=self.tree.spent_at(self.call_path).record(),
            model=self.model.name,
            seconds=completion.seconds,
            retries=completion.retries,
            time=time.time(),
        )
        if flaw := flaw_of(completion.text, completion.finish):
            record["flaw"] = flaw
        if lost := self.tree.lost_at(self.call_path):
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
