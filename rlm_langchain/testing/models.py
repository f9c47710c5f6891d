"""A chat model that computes its reply from the messages, so that parallel calls cannot make a test flaky."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult


class FunctionModel(BaseChatModel):
    """A chat model that replies with `function(messages)`: a text, or an `AIMessage`.

    An exception raised by the function counts as a provider's error. For a text, usage is one token per word, of
    the messages and of the reply.
    """

    function: Callable[[list[BaseMessage]], str | AIMessage]
    model_name: str = "function"
    max_tokens: int | None = None
    """Maximum length of a reply, in words. May also be passed with a call."""

    @property
    def _llm_type(self) -> str:
        return "function"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self.function(messages)
        cap = kwargs.get("max_tokens", self.max_tokens)
        message = reply if isinstance(reply, AIMessage) else self._billed(messages, _capped(reply, cap))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, **kwargs)

    def _billed(self, messages: list[BaseMessage], reply: str) -> AIMessage:
        read = sum(len(str(message.text).split()) for message in messages)
        written = len(reply.split())
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return AIMessage(content=reply, usage_metadata=usage, response_metadata={"model_name": self.model_name})


def _capped(reply: str, words: int | None) -> str:
    spoken = reply.split()
    return reply if words is None or len(spoken) <= words else " ".join(spoken[:words])


def script(
    *cells: str,
    children: Mapping[str, Sequence[str]] | None = None,
    leaf: Callable[[str], str] = lambda prompt: f"<{prompt}>",
) -> FunctionModel:
    """Return a model that acts as the root model of an RLM. Its n-th turn is the n-th cell, in a fence; the last
    cell is repeated.

    A cell that begins with `prose:` is sent as plain text instead. A run whose question contains a key of
    `children` gets the cells of that key. Sub-calls are answered with `leaf(prompt)`.
    """
    plays = {**(children or {}), "": cells}

    def reply(messages: list[BaseMessage]) -> str:
        if messages[0].type != "system":
            return leaf(str(messages[0].text))
        question = str(messages[1].content)
        play = next(cells for key, cells in plays.items() if key in question)
        turn = sum(message.type == "ai" for message in messages)
        cell = play[min(turn, len(play) - 1)]
        return cell[6:] if cell.startswith("prose:") else f"```repl\n{cell}\n```"

    return FunctionModel(function=reply)
