"""What a model's reply holds, whichever provider it is from: its words, what it used, how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from rlm_langchain import prices
from rlm_langchain.models import Model
from rlm_langchain.types import Flaw, Usage

BYTES_PER_TOKEN = 4
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


def usage_of(model: Model, messages: Sequence[BaseMessage], reply: BaseMessage, text: str) -> Usage:
    """What a call has used, by the provider's figures; what it does not tell is counted here."""
    told: Mapping[str, Any] = getattr(reply, "usage_metadata", None) or {}
    read, wrote = told.get("input_tokens") or 0, told.get("output_tokens") or 0
    estimated = read <= 0 or (wrote <= 0 and bool(text))
    details = told.get("input_token_details") or {}
    usage = Usage(
        calls=1,
        input=read if read > 0 else count_tokens(messages),
        cached=min(_sum(details, "cache_read"), max(read, 0)),
        output=wrote if wrote > 0 else tokens_in(text),
        estimated=estimated,
    )
    told_cost = _told_cost(reply.response_metadata)
    written = _sum(details, "cache_creation", "_input_tokens")
    return usage._replace(cost=prices.cost(model, usage, written) if told_cost is None else told_cost)


def count_tokens(messages: Sequence[BaseMessage]) -> int:
    """About how many tokens these messages are, for any model and without its tokenizer."""
    return sum(tokens_in(str(message.text)) + MESSAGE_TOKENS for message in messages)


def tokens_in(text: str) -> int:
    """About how many tokens a text is: four bytes each, which suits English, code and most scripts."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def _sum(details: Mapping[str, Any], *endings: str) -> int:
    """Of the counts whose names end so: service tiers and cache lifetimes are prefixes."""
    return sum(count for name, count in details.items() if name.endswith(endings) and isinstance(count, int))


def _told_cost(told: Mapping[str, Any]) -> float | None:
    """Dollars, when the provider tells: OpenRouter does, and a provider's own key there is billed besides."""
    usage = told.get("token_usage")
    usage = usage if isinstance(usage, Mapping) else {}
    cost = told.get("cost", usage.get("cost"))
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
        return None
    upstream = (usage.get("cost_details") or {}).get("upstream_inference_cost")
    return float(cost) + (float(upstream or 0.0) if usage.get("is_byok") else 0.0)
