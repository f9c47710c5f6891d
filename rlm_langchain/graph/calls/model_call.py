"""Answers calls of `llm_query`, each by one model call. Equal calls of a run tree are made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.estimate import most_prompt_tokens, prompt_tokens
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.models.reservation import reservation_for
from rlm_langchain.prompts.render import render
from rlm_langchain.records import child_path
from rlm_langchain.run.ask_model import (
    ModelRequest,
    ask_model,
    receipt_key,
    recorded_reply,
)
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.trajectory.recorder import NumberedCall
from rlm_langchain.types import Call, CallResult, Excerpt, Reply, Usage


class ModelCallHandler(CallHandler):
    """Handles `llm`: one call of the model for sub-calls."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the answer to an equal call elsewhere in the tree, or None."""
        answer = self.call_of(site).known() if site.components.memo else None
        return None if answer is None else Reply(answer)

    def reservation(self, site: CallSite) -> Usage:
        """Return the most that the call may use. Of a child run only the first turn is estimated: it needs an
        approval for its own calls."""
        model = site.components.sub_model(site.numbered.path)
        return reservation_for(site.tree.ledger.budget, model, self.most_read(site), site.tree.learned)

    def most_read(self, site: CallSite) -> int:
        """Return the most tokens of the prompt of the call."""
        return most_prompt_tokens([HumanMessage(_estimated_prompt(site))])

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the model's reply."""
        return await self.call_of(site).reply(config)

    def model(self, site: CallSite) -> str:
        """Return the name of the model for sub-calls."""
        return site.components.sub_model(site.numbered.path).name

    def call_of(self, site: CallSite) -> ModelCall:
        """Return the call to the model."""
        return ModelCall.of(site)


def _estimated_prompt(site: CallSite) -> str:
    """Return the prompt for the estimate of the cost, without a context that is too long for any prompt."""
    call = site.numbered.call
    if call.context is None or _excerpt_bytes(call) > site.components.limits.value:
        return call.prompt
    return call.prompt + to_prompt_text(call.context)


def _excerpt_bytes(call: Call) -> int:
    """Return the size of a context that is a part of another one, in bytes. 0 for any other context."""
    return call.context.stop - call.context.start if isinstance(call.context, Excerpt) else 0


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call to the model for sub-calls."""

    components: Components
    tree: RunTree
    model: Model
    numbered: NumberedCall
    batch: str
    """The batch that the call is in. Equal calls of a batch share a flawed reply; those of later batches do not."""

    @classmethod
    def of(cls, site: CallSite) -> Self:
        """Return the call that code made here."""
        components, tree, numbered, _ = site
        repl = tree.repls.get(numbered.path)
        batch = numbered.call_path if repl is None else child_path(numbered.path, repl.next_call)
        return cls(components, tree, components.sub_model(numbered.path), numbered, batch)

    async def reply(self, config: RunnableConfig) -> CallResult:
        """Return the model's answer, or that of an equal call in this tree, waiting for it if it is being made."""
        size = _excerpt_bytes(self.numbered.call)
        if size > self.components.limits.value:
            return CallResult(None, _too_long(size // BYTES_PER_TOKEN, self.model.name, self._window))
        request = self._request()
        if not self.components.memo or self._has_paid_receipt(request):
            return await self._ask(request, config)
        answered = await self.tree.answers.ajoin(self._memo_key, self._batch_key)
        if answered is not None:
            return CallResult(answered.text, answered.error, memo=True, flaw=answered.flaw)
        return await self._ask_first(request, config)

    def known(self) -> str | None:
        """Return the answer of an equal call in this tree that has ended, or None."""
        known = self.tree.answers.known(self._memo_key)
        return None if known is None or self._has_paid_receipt(self._request()) else known.text

    @property
    def _memo_key(self) -> str:
        return f"{self.model.name} {self.numbered.sha256}"

    @property
    def _batch_key(self) -> str:
        return f"{self._memo_key} in {self.batch}"

    async def _ask_first(self, request: ModelRequest, config: RunnableConfig) -> CallResult:
        """Ask the model, and share the reply with equal calls that wait for it.

        A failure is not remembered, and a flawed reply only for equal calls of this batch. If this call is
        cancelled, the waiting calls get no reply, and one of them asks again.
        """
        reply = remember_as = None
        try:
            reply = await self._ask(request, config)
            if reply.text is not None:
                remember_as = self._memo_key if reply.flaw is None else self._batch_key
        finally:
            self.tree.answers.finish(self._memo_key, reply, remember_as)
        return reply

    async def _ask(self, request: ModelRequest, config: RunnableConfig) -> CallResult:
        size, window = prompt_tokens(request.messages), self._window
        if window is not None and size > window:
            return CallResult(None, _too_long(size, self.model.name, window))
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
                learned_window = self.tree.learned.too_long(at_fault, size, failed.words)
                error = f"{_too_long(size, at_fault, learned_window, was_sent=True)} ({failed})"
            return CallResult(None, error, retries=failed.retries)
        except TimeoutError:
            return CallResult(None, "the time of the run is over", refused="seconds")

    def _has_paid_receipt(self, request: ModelRequest) -> bool:
        """Return whether an earlier process paid for this very call. Then its record must have its cost."""
        known = recorded_reply(self.tree, request)
        return known is not None and known.usage != Usage()

    def _request(self) -> ModelRequest:
        messages: list[BaseMessage] = [HumanMessage(self._prompt())]
        described = [*messages, *self._described_only()]
        key = receipt_key(self.tree, self.model, described, "" if self.components.memo else self.numbered.call_path)
        own = f"{self.batch} wave{key}" if self.components.memo else None
        return ModelRequest(self.model, messages, self.numbered.call_path, key, own)

    def _prompt(self) -> str:
        context, prompt = self._context, self.numbered.call.prompt
        if context is None:
            return prompt
        return render(self.model.profile, "subcall", prompt=prompt, context=to_prompt_text(context))

    @property
    def _context(self) -> Any:
        return self.numbered.call.context

    def _described_only(self) -> list[BaseMessage]:
        """Return what else the key of the request depends on."""
        return []

    @property
    def _window(self) -> int | None:
        return self.tree.learned.window(self.model.name, self.model.window)


def _too_long(tokens: int, name: str, window: int | None, *, was_sent: bool = False) -> str:
    """Return the error message for a prompt that is longer than the model's window."""
    most = "no text as long as that" if window is None else f"{window:,}"
    return (
        f"{'too long' if was_sent else 'not asked'}: about {tokens:,} tokens, and {name} reads {most}; "
        "cut the text and ask about the parts with llm_query_batched"
    )
