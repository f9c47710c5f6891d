"""What goes to and what comes from a provider: cache marks, texts, finish reasons, usage, token counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.models.model import Model
from rlm_langchain.models.usage import (
    Known,
    StreamedUsage,
    usage_by,
)
from rlm_langchain.types import Flaw, Usage

MESSAGE_TOKENS = 4
"""What a message's frame takes: its role, its ends."""

_THOUGHTS = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)

_UNFINISHED_THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>(?!.*</\1>)", re.DOTALL)

_FILTERED = re.compile(r"content_?filter|safety|refus|recitation|blocklist|prohibited|spii|guardrail|blocked")

_CUT = re.compile(
    r"length|max_\w*tokens|token_limit|context_window|incomplete|not_finished|abort|cancel|time_?(out|limit)"
    r"|insufficient|error"
)
"""What providers call an end that is not the model's own."""

_INTERPRETER = re.compile(r"(.*[._-])?(python|ipython|repl|code|code_?interpreter|execute|(run|execute)_\w+)")


def text_of(reply: BaseMessage) -> str:
    """The words of a reply, without the thoughts before them. A refusal is words too.

    A model that calls an interpreter as a tool, though none was offered, meant to write code: that one call
    is read as the block that it should have written.
    """
    said = str(reply.text)
    if thoughts := _THOUGHTS.match(said):
        said = said[thoughts.end() :]
    return _whole(said or _refusal(reply) or _called_code(reply))


def _whole(text: str) -> str:
    """Without halves of characters, which no file and no checkpoint can hold."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _refusal(reply: BaseMessage) -> str:
    refusal = reply.additional_kwargs.get("refusal")
    blocks = reply.content if isinstance(reply.content, list) else []
    refusals = [block.get("refusal") for block in blocks if isinstance(block, dict)]
    return next((words for words in (refusal, *refusals) if isinstance(words, str)), "")


def _called_code(reply: BaseMessage) -> str:
    """The code of a sole call of an interpreter, fenced. Arguments that are no JSON are all code."""
    calls = [*getattr(reply, "tool_calls", []), *getattr(reply, "invalid_tool_calls", [])]
    if len(calls) != 1 or not _INTERPRETER.fullmatch(str(calls[0]["name"]).lower()):
        return ""
    given = calls[0]["args"]
    code = given.get("code") if isinstance(given, Mapping) else given
    return f"```repl\n{code}\n```" if isinstance(code, str) else ""


def finish_of(reply: BaseMessage) -> str | None:
    """Why the model stopped, in its provider's words: `stop`, `length`, `end_turn`, `max_tokens`, ..."""
    told = reply.response_metadata
    words = (told.get(key) for key in ("finish_reason", "stop_reason", "done_reason", "status"))
    return next((word for word in words if isinstance(word, str)), None)


def flaw_of(text: str, finish: str | None) -> Flaw | None:
    """What is wrong with a reply that came; None: nothing that is known of."""
    end = (finish or "").lower()
    if _FILTERED.search(end):
        return "filtered"
    if not text.strip():
        return "empty"
    return "cut" if _CUT.search(end) or _UNFINISHED_THOUGHT.match(text) else None


def usage_of(
    model: Model,
    messages: Sequence[BaseMessage],
    reply: BaseMessage,
    text: str,
    streamed: Sequence[StreamedUsage] = (),
) -> Usage:
    """What a call has used, by the provider's figures; what it does not tell, or cannot be, is counted here.

    `text` is all that was said, `streamed` what the chunks of a stream have told.
    """
    known = Known(count_tokens(messages), tokens_in(text), streamed)
    return usage_by(model, getattr(reply, "usage_metadata", None), reply.response_metadata, known)


def count_tokens(messages: Sequence[BaseMessage]) -> int:
    """About how many tokens these messages are, for any model and without its tokenizer."""
    return sum(tokens_in(str(message.text)) + MESSAGE_TOKENS for message in messages)


def tokens_in(text: str) -> int:
    """About how many tokens a text is: four bytes each, which suits English, code and most scripts."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


MARK = {"type": "ephemeral"}
"""For five minutes from its last use. It costs a quarter more to write, and nine tenths less to read."""


def needs_cache_control(chat: Any) -> bool:
    """Whether this chat model's provider caches only what is marked."""
    packages = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    if "langchain_anthropic" in packages:
        return True
    routed = "langchain_openrouter" in packages or "openrouter.ai" in str(getattr(chat, "openai_api_base", ""))
    name = getattr(chat, "model_name", None) or getattr(chat, "model", None)
    return routed and str(name).startswith("anthropic/")


def with_cache_control(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages of a turn, marked. Their words are the same."""
    ends = {len(messages) - 1, *(n for n, message in enumerate(messages) if message.type == "system")}
    return [_with_cache_control(message) if n in ends else message for n, message in enumerate(messages)]


def _with_cache_control(message: BaseMessage) -> BaseMessage:
    if not isinstance(message.content, str) or not message.content:
        return message
    return message.model_copy(
        update={"content": [{"type": "text", "text": message.content, "cache_control": dict(MARK)}]}
    )
