"""A call of `llm_query`, answered by one model call: never made twice, never too long, never past the budget."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.models.reservation import most_prompt_tokens, prompt_tokens, reservation_for
from rlm_langchain.prompts.render import render
from rlm_langchain.records import child_path, depth_of
from rlm_langchain.run.ask_model import (
    ModelRequest,
    ask_model,
    receipt_key,
    recorded_reply,
)
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.trajectory.recorder import NumberedCall
from rlm_langchain.types import CallResult, Excerpt, Reply, Usage


class ModelCallHandler(CallHandler):
    """Handles `llm`: one call of the model for sub-calls."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the answer to the same call elsewhere in the tree."""
        answer = _model_call(site).known() if site.components.memo else None
        return None if answer is None else Reply(answer)

    def reservation(self, site: CallSite) -> Usage:
        """Return what the call may use. A child run is known by its first turn only: it asks for its own calls."""
        model = site.components.sub_model(depth_of(site.asked.path))
        return reservation_for(site.tree.ledger, model, most_prompt_tokens([HumanMessage(_text_read(site))]))

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the model's reply."""
        return await _model_call(site).reply(config)

    def model(self, site: CallSite) -> str:
        """Return the name of the model for sub-calls."""
        return site.components.sub_model(depth_of(site.asked.path)).name


def _model_call(site: CallSite) -> ModelCall:
    components, tree, asked, _ = site
    repl = tree.repls.get(asked.path)
    wave = asked.call_path if repl is None else child_path(asked.path, repl.next_call)
    return ModelCall(components, tree, components.sub_model(depth_of(asked.path)), asked, wave)


def _text_read(site: CallSite) -> str:
    """Return what a model may read of a call. A piece longer than any prompt is for a child run, or for nobody."""
    call, context = site.asked.call, site.asked.call.context
    most = site.components.limits.value
    if context is None or (isinstance(context, Excerpt) and context.stop - context.start > most):
        return call.prompt
    return call.prompt + to_prompt_text(context)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call that one model answers."""

    components: Components
    tree: RunTree
    model: Model
    asked: NumberedCall
    wave: str
    """Of the calls that are asked at once with it: they may share a flawed reply, later ones may not."""

    async def reply(self, config: RunnableConfig) -> CallResult:
        """Return the answer; when the same was asked in this tree before, or is being asked now, that one's."""
        if (
            isinstance(piece := self.asked.call.context, Excerpt)
            and piece.stop - piece.start > self.components.limits.value
        ):
            return CallResult(
                None, _too_long((piece.stop - piece.start) // BYTES_PER_TOKEN, self.model.name, self._window)
            )
        request = self._request()
        if not self.components.memo or self._paid(request):
            return await self._ask(request, config)
        answered = await self.tree.answers.ajoin(self._memo_key, self._wave_key)
        if answered is not None:
            return CallResult(answered.text, answered.error, memo=True, flaw=answered.flaw)
        return await self._ask_first(request, config)

    def known(self) -> str | None:
        """Return the answer, when it is there already and need not be asked for."""
        known = self.tree.answers.known(self._memo_key)
        return None if known is None or self._paid(self._request()) else known.text

    @property
    def _memo_key(self) -> str:
        return f"{self.model.name} {self.asked.sha256}"

    @property
    def _wave_key(self) -> str:
        return f"{self._memo_key} in {self.wave}"

    async def _ask_first(self, request: ModelRequest, config: RunnableConfig) -> CallResult:
        """Ask, and let those who want the same meanwhile have the reply too. A failure is not remembered. A flawed
        reply is, for this wave: later, the same is asked again.

        Who waits for a call that was broken off has no reply by it, and asks again.
        """
        reply = remember_as = None
        try:
            reply = await self._ask(request, config)
            if reply.text is not None:
                remember_as = self._memo_key if reply.flaw is None else self._wave_key
        finally:
            self.tree.answers.finish(self._memo_key, reply, remember_as)
        return reply

    async def _ask(self, request: ModelRequest, config: RunnableConfig) -> CallResult:
        size, window = prompt_tokens(request.messages), self._window
        if window is not None and size > window:
            return CallResult(None, _too_long(size, self.model.name, self._window))
        try:
            reply = await ask_model(self.tree, request, self.components.retry, config)
            return CallResult(
                reply.text,
                retries=reply.retries,
                from_cache=reply.from_cache,
                flaw=flaw_of(reply.text, reply.finish),
            )
        except BudgetRefused as refused:
            return CallResult(None, f"not asked: {refused}", refused=refused.reason)
        except CallFailed as failed:
            error = str(failed)
            if failed.code == "too_long":
                at_fault = failed.fallback or self.model.name
                reads = self.tree.learned.too_long(at_fault, size, failed.words)
                error = f"{_too_long(size, at_fault, reads, asked=True)} ({failed})"
            return CallResult(None, error, retries=failed.retries)
        except TimeoutError:
            return CallResult(None, "the time of the run is over", refused="seconds")

    def _paid(self, request: ModelRequest) -> bool:
        """Return whether this very call was answered in an earlier process: then its cost is on its own record."""
        known = recorded_reply(self.tree, request)
        return known is not None and known.usage != Usage()

    def _request(self) -> ModelRequest:
        messages: list[BaseMessage] = [HumanMessage(self._prompt())]
        key = receipt_key(self.tree, self.model, messages, "" if self.components.memo else self.asked.call_path)
        own = f"{self.wave} wave{key}" if self.components.memo else None
        return ModelRequest(self.model, messages, self.asked.call_path, key, own)

    def _prompt(self) -> str:
        if self.asked.call.context is None:
            return self.asked.call.prompt
        context = to_prompt_text(self.asked.call.context)
        return render(self.model.profile, "subcall", prompt=self.asked.call.prompt, context=context)

    @property
    def _window(self) -> int | None:
        return self.tree.learned.window(self.model.name, self.model.window)


def _too_long(tokens: int, name: str, reads: int | None, *, asked: bool = False) -> str:
    most = "no text as long as that" if reads is None else f"{reads:,}"
    return (
        f"{'too long' if asked else 'not asked'}: about {tokens:,} tokens, and {name} reads {most}; "
        "cut the text and ask about the parts with llm_query_batched"
    )
