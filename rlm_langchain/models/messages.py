"""Reads replies of chat models (text, finish reason, usage), counts tokens, and marks messages for prompt
caches."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.context.sanitize import shows_nothing
from rlm_langchain.models.images import tokens_of_images
from rlm_langchain.models.model import Model
from rlm_langchain.models.usage import (
    OwnCounts,
    StreamedUsage,
    usage_from_report,
)
from rlm_langchain.types import Flaw, Usage

MESSAGE_TOKENS = 4
"""Tokens that a message needs besides its text: its role and delimiters."""

_THOUGHTS = re.compile(r"\s*+(?:<think>.*?</think>|\[THINK\].*?\[/THINK\]|◁think▷.*?◁/think▷)\s*", re.DOTALL)
"""Thoughts before a reply, as models write them, if a server does not separate them."""

_UNFINISHED_THOUGHT = re.compile(
    r"\s*+(?:<(think|thinking|thought|reasoning)>(?!.*</\1>)|\[THINK\](?!.*\[/THINK\])|◁think▷(?!.*◁/think▷)"
    r"|<\|channel\|>analysis(?!.*<\|channel\|>(?:final|commentary)))",
    re.DOTALL,
)

_END_TOKENS = ("<|return|>", "<|end|>", "<|im_end|>", "<|eot_id|>")

_FILTERED = re.compile(r"content_?filter|safety|refus|recitation|blocklist|prohibited|spii|guardrail|blocked")

_CUT = re.compile(
    r"length|max_\w*tokens|token_limit|context_window|incomplete|not_finished|abort|cancel|time_?(out|limit)"
    r"|insufficient|error"
)
"""Finish reasons that mean the reply was cut."""

_INTERPRETER = re.compile(r"(.*[._-])?(python|ipython|repl|code|code_?interpreter|execute|(run|execute)_\w+)")


def text_of(reply: BaseMessage) -> str:
    """Return the text of a reply, without the thoughts before it. The text of a refusal counts.

    A model that calls an interpreter as a tool, though none was offered, meant to write code. A sole call of that
    kind is read as the code block that the model should have written.
    """
    text = _after_thoughts(str(reply.text))
    return _replace_surrogates(text or _refusal(reply) or _called_code(reply))


def _after_thoughts(text: str) -> str:
    if thoughts := _THOUGHTS.match(text):
        return text[thoughts.end() :]
    if text.lstrip().startswith(("<|channel|>", "<|start|>")):  # the Harmony format
        _, mark, final = text.rpartition("<|channel|>final")
        words = final.partition("<|message|>")[2] if mark else ""
        for token in _END_TOKENS:
            words = words.rstrip().removesuffix(token)
        return words or text
    # Templates of some models end with the opening tag, so the reply has only the closing one.
    thought, _, words = text.partition("\n</think>")
    is_thought = "<think>" not in thought and "```" not in thought and words.lstrip(" \t").startswith("\n")
    return words.lstrip() if is_thought else text


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which no file and no checkpoint can hold."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _refusal(reply: BaseMessage) -> str:
    refusal = reply.additional_kwargs.get("refusal")
    blocks = reply.content if isinstance(reply.content, list) else []
    refusals = [block.get("refusal") for block in blocks if isinstance(block, dict)]
    return next((text for text in (refusal, *refusals) if isinstance(text, str)), "")


def _called_code(reply: BaseMessage) -> str:
    """Return the code of a sole call of an interpreter, fenced. Arguments that are not JSON are taken as the
    code."""
    calls = [*getattr(reply, "tool_calls", []), *getattr(reply, "invalid_tool_calls", [])]
    if len(calls) != 1 or not _INTERPRETER.fullmatch(str(calls[0]["name"]).lower()):
        return ""
    arguments = calls[0]["args"]
    code = arguments.get("code") if isinstance(arguments, Mapping) else arguments
    return f"```repl\n{code}\n```" if isinstance(code, str) else ""


def finish_of(reply: BaseMessage) -> str | None:
    """Return the finish reason in the provider's words: `stop`, `length`, `end_turn`, `max_tokens`, ..."""
    metadata = reply.response_metadata
    reasons = (metadata.get(key) for key in ("finish_reason", "stop_reason", "done_reason", "status"))
    return next((reason for reason in reasons if isinstance(reason, str)), None)


def flaw_of(text: str, finish: str | None) -> Flaw | None:
    """Return the defect of a reply that arrived, or None if none is known."""
    reason = (finish or "").lower()
    if _FILTERED.search(reason):
        return "filtered"
    if shows_nothing(text):
        return "empty"
    return "cut" if _CUT.search(reason) or _UNFINISHED_THOUGHT.match(text) else None


def usage_of(
    model: Model,
    messages: Sequence[BaseMessage],
    reply: BaseMessage,
    text: str,
    streamed: Sequence[StreamedUsage] = (),
) -> Usage:
    """Return the usage of a call as the provider reports it. Missing or impossible figures are counted here.

    `text` is the text of all replies to the request, `streamed` the usage that chunks of a stream reported.
    """
    images = tokens_of_images(messages)
    own = OwnCounts(count_tokens(messages) - images, tokens_in(text), streamed, images)
    return usage_from_report(model, getattr(reply, "usage_metadata", None), reply.response_metadata, own)


def count_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return the approximate number of tokens of these messages, for any model and without its tokenizer. Of
    pictures, the most."""
    text = sum(tokens_in(str(message.text)) + MESSAGE_TOKENS for message in messages)
    return text + tokens_of_images(messages)


def tokens_in(text: str) -> int:
    """Return the approximate number of tokens of a text: four bytes each, which fits English, code and most
    scripts."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


CACHE_CONTROL = {"type": "ephemeral"}
"""Anthropic's prompt cache: entries live for five minutes after their last use. Writing costs a quarter more than
plain input, reading nine tenths less."""


def needs_cache_control(chat: Any) -> bool:
    """Return whether this chat model's provider caches only prompts that are marked with `cache_control`."""
    packages = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    if "langchain_anthropic" in packages:
        return True
    routed = "langchain_openrouter" in packages or "openrouter.ai" in str(getattr(chat, "openai_api_base", ""))
    name = getattr(chat, "model_name", None) or getattr(chat, "model", None)
    return routed and str(name).startswith("anthropic/")


def with_cache_control(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages of a turn with cache marks at the system messages and the last one. Texts do not
    change."""
    ends = {len(messages) - 1, *(n for n, message in enumerate(messages) if message.type == "system")}
    return [_with_cache_control(message) if n in ends else message for n, message in enumerate(messages)]


def _with_cache_control(message: BaseMessage) -> BaseMessage:
    if not isinstance(message.content, str) or not message.content:
        return message
    return message.model_copy(
        update={"content": [{"type": "text", "text": message.content, "cache_control": dict(CACHE_CONTROL)}]}
    )
