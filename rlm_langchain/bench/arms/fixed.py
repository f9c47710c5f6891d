"""A chat model with fixed replies, for the programs of baselines and for the scripted policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from rlm_langchain.models.messages import count_tokens
from rlm_langchain.models.model import FREE, Model

SCRIPTED = "scripted"
"""Name of the scripted policy, with which a benchmark can be tried without a model."""


class FixedChat(BaseChatModel):
    """A chat model that replies with `reply(messages)` and costs nothing."""

    reply: Callable[[list[BaseMessage]], str]
    max_tokens: int | None = None
    """Ignored. The field exists because a limit in dollars requires a cap on the output."""

    @property
    def _llm_type(self) -> str:
        return "fixed"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = self.reply(messages)
        read, wrote = count_tokens(messages), count_tokens([AIMessage(text)])
        usage = UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text, usage_metadata=usage))])


def fixed_model(name: str, reply: Callable[[list[BaseMessage]], str], window: int | None = None) -> Model:
    """Return a model that replies with `reply(messages)` and costs nothing."""
    return Model(name, FixedChat(reply=reply), window=window, price=FREE)


def program(code: str) -> Model:
    """Return a root model that writes the same code in every turn."""
    return fixed_model("fixed program", lambda _: f"```repl\n{code}\n```")


def scripted_policy() -> Model:
    """Return the scripted policy. As a root model, it asks about the beginning of the context."""
    code = "```repl\nFINAL(llm_query(f'What is this? {str(context)[:2000]}'))\n```"
    return fixed_model(SCRIPTED, lambda said: code if said[0].type == "system" else "a scripted reply", 32_768)
