"""One sub-call to a model: never asked twice, never too long, never past the budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.render import render
from rlm_langchain.run.ask_model import (
    ModelRequest,
    ask_model,
    receipt_key,
    recorded_reply,
    unread_by,
)
from rlm_langchain.run.reservation import prompt_tokens
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.types import (
    Call,
    CallResult,
    Excerpt,
    Usage,
)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call that one model answers."""

    components: Components
    tree: RunTree
    model: Model
    call: Call
    place: str
    """In the tree."""
    sha256: str
    """The call's fingerprint."""
    wave: str = ""
    """Of the calls that are asked at once with it: they may share a flawed reply, later ones may not."""

    async def reply(self, config: RunnableConfig) -> CallResult:
        """The answer; when the same was asked in this tree before, or is being asked now, that one's."""
        if (
            isinstance(piece := self.call.context, Excerpt)
            and piece.stop - piece.start > self.components.limits.value
        ):
            return CallResult(None, self._too_long((piece.stop - piece.start) // BYTES_PER_TOKEN))
        query = self._query()
        if not self.components.memo or self._paid(query):
            return await self._ask(query, config)
        key = self._memo_key
        while (known := self.tree.answers.get(key) or self.tree.answers.get(self._wave_key)) is not None:
            if isinstance(known, str):
                return CallResult(known, memo=True)
            if isinstance(known, CallResult):
                return known
            if (first := await asyncio.shield(known)) is not None:
                return CallResult(first.text, first.error, memo=True, flaw=first.flaw)
        return await self._first(key, query, config)

    def known(self) -> str | None:
        """The answer, when it is there already and need not be asked for."""
        known = self.tree.answers.get(self._memo_key) if self.components.memo else None
        return known if isinstance(known, str) and not self._paid(self._query()) else None

    @property
    def _memo_key(self) -> str:
        return f"{self.model.name} {self.sha256}"

    @property
    def _wave_key(self) -> str:
        return f"{self._memo_key} in {self.wave}"

    async def _first(self, key: str, query: ModelRequest, config: RunnableConfig) -> CallResult:
        """Ask, and let those who want the same meanwhile have the reply too. A failure is not remembered. A flawed
        reply is, for this wave: later, the same is asked again.

        Who waits for a call that was broken off has no reply by it, and asks again.
        """
        flight = self.tree.answers[key] = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._ask(query, config)
        finally:
            flight.set_result(reply)
            del self.tree.answers[key]
        if reply.text is not None and reply.flaw is None:
            self.tree.answers[key] = reply.text
        elif reply.text is not None:
            self.tree.answers[self._wave_key] = CallResult(reply.text, memo=True, flaw=reply.flaw)
        return reply

    async def _ask(self, query: ModelRequest, config: RunnableConfig) -> CallResult:
        size = prompt_tokens(query.messages)
        if self.model.window is not None and size > self.model.window:
            return CallResult(None, self._too_long(size))
        try:
            done = await ask_model(self.tree, query, self.components.retry, config)
            return CallResult(
                done.text,
                None,
                done.usage,
                done.retries,
                from_cache=done.from_cache,
                flaw=flaw_of(done.text, done.finish),
            )
        except BudgetRefused as refused:
            return CallResult(None, f"not asked: {refused}", unread_by(self.tree, query), refused=refused.reason)
        except CallFailed as failed:
            return CallResult(None, str(failed), unread_by(self.tree, query), failed.retries)
        except TimeoutError:
            unread = unread_by(self.tree, query)
            return CallResult(None, "the time of the run is over", unread, refused="seconds")

    def _paid(self, query: ModelRequest) -> bool:
        """Whether this very call was answered in an earlier process: then its cost is on its own record."""
        known = recorded_reply(self.tree, query)
        return known is not None and known.usage != Usage()

    def _query(self) -> ModelRequest:
        messages: list[BaseMessage] = [HumanMessage(self._prompt())]
        key = receipt_key(self.tree, self.model, messages, "" if self.components.memo else self.place)
        own = f"{self.wave} wave{key}" if self.components.memo else None
        return ModelRequest(self.model, messages, self.place, key, own)

    def _prompt(self) -> str:
        if self.call.context is None:
            return self.call.prompt
        context = to_prompt_text(self.call.context)
        return render(self.model.profile, "subcall", prompt=self.call.prompt, context=context)

    def _too_long(self, tokens: int) -> str:
        window = "no text as long as that" if self.model.window is None else f"{self.model.window:,}"
        return (
            f"not asked: about {tokens:,} tokens, and {self.model.name} reads {window}; "
            "cut the text and ask about the parts with llm_query_batched"
        )
