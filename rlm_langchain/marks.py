"""Prompt caches that have to be asked for: Anthropic's, directly or through OpenRouter.

Other providers cache whatever prompts begin alike. There a mark says up to where a prompt is worth keeping. What a
turn is asked is the beginning of what the next one is, so its end is marked; and so is the system prompt, which is
that of other runs too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage

MARK = {"type": "ephemeral"}
"""For five minutes from its last use. It costs a quarter more to write, and nine tenths less to read."""


def wants_marks(chat: Any) -> bool:
    """Whether this chat model's provider caches only what is marked."""
    packages = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    if "langchain_anthropic" in packages:
        return True
    routed = "langchain_openrouter" in packages or "openrouter.ai" in str(getattr(chat, "openai_api_base", ""))
    name = getattr(chat, "model_name", None) or getattr(chat, "model", None)
    return routed and str(name).startswith("anthropic/")


def marked(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages of a turn, marked. Their words are the same."""
    ends = {len(messages) - 1, *(n for n, message in enumerate(messages) if message.type == "system")}
    return [_marked(message) if n in ends else message for n, message in enumerate(messages)]


def _marked(message: BaseMessage) -> BaseMessage:
    if not isinstance(message.content, str) or not message.content:
        return message
    return message.model_copy(
        update={"content": [{"type": "text", "text": message.content, "cache_control": dict(MARK)}]}
    )
