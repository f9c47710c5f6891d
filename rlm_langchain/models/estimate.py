"""Estimates the tokens of a prompt before it is sent: an upper bound, which is reserved, and an approximation, to
compare with a window.

The only bound that holds for every tokenizer and every text is one token per byte, four to five times too much for
English. But a vocabulary of 100,000 tokens or more contains all common pairs of lower-case letters, and a space is
part of the following word. So nine of these characters are at most five tokens, even if they are random (measured
with o200k and cl100k, which Qwen's tokenizer is derived from). All other characters count as their bytes: digits,
which Qwen reads one by one, capitals and punctuation, emoji, rare Chinese characters. For prose the bound is two to
three times the true number. The difference is released when the reply reports its usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.models.images import text_in, tokens_of_images
from rlm_langchain.models.model import Model

MAX_MESSAGE_TOKENS = 8
"""Most tokens that providers add around each message."""
_SMALL = f"{ascii_lowercase} ".encode()


def most_tokens(text: str) -> int:
    """Return an upper bound of the token count. A text made to defeat tokenizers may exceed it."""
    data = text.encode("utf-8", "replace")
    other = len(data.translate(None, _SMALL))
    return other - (other - len(data)) * 5 // 9


def most_prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return an upper bound of the tokens of these messages, for any model."""
    text = sum(most_tokens(text_in(message)) + MAX_MESSAGE_TOKENS for message in messages)
    return text + tokens_of_images(messages)


async def most_tokens_read(model: Model, messages: Sequence[BaseMessage], config: RunnableConfig) -> int:
    """Return the most tokens that any model that may be called reads. Its own prompt may add to the messages."""
    wrapped = [one.wrapped for one in model.chain if one.wrapped is not None and one.wrapped.before]
    ready = [messages, *[await one.prepare_messages(messages, one.config(config)) for one in wrapped]]
    return max(map(most_prompt_tokens, ready))


def prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return the approximate number of tokens of these messages, to compare with a model's window."""
    text = sum(approximate_tokens(text_in(message)) + MAX_MESSAGE_TOKENS for message in messages)
    return text + tokens_of_images(messages)
