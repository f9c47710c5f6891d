"""Out of the messages that a chat model is given: the question that an RLM is asked, and its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage

from rlm_langchain.context.sources.messages import refuse_pictures
from rlm_langchain.errors import InputError


class Question(NamedTuple):
    """What a conversation asks of an RLM."""

    query: str
    context: str | list[BaseMessage] | None
    """One text, or the messages; None when there are no others."""


def question(messages: Sequence[BaseMessage], long: int) -> Question:
    """The question and the context in a conversation. Raises `InputError` when nobody asks anything.

    Short system messages are instructions and go with the question; everything else can be read in the REPL.
    """
    refuse_pictures(messages)
    asking = next((i for i in reversed(range(len(messages))) if messages[i].type == "human"), None)
    if asking is None or not messages[asking].text.strip():
        raise InputError("there is no human message to answer")
    query, rest = _split_long_message(messages[asking].text, long)
    told: list[str] = []
    read: list[BaseMessage] = []
    for i, message in enumerate(messages):
        if i == asking:
            read += [message.model_copy(update={"content": rest})] if rest else []
        elif message.type == "system" and len(message.text) < long:
            told.append(message.text)
        elif message.text.strip() or _calls(message):
            read.append(message)
    return Question("\n\n".join(text for text in [*told, query] if text.strip()), _context(read))


def _context(read: list[BaseMessage]) -> str | list[BaseMessage] | None:
    if len(read) == 1 and not _calls(read[0]):
        return str(read[0].text)
    return read or None


def _split_long_message(text: str, long: int) -> tuple[str, str]:
    """A long message is a question and what it is about: the question is its first or its last paragraph."""
    if len(text) < long:
        return text, ""
    head, _, after = text.partition("\n\n")
    before, _, tail = text.rpartition("\n\n")
    if after and len(head) < long and head.rstrip().endswith(("?", ":")):
        return head, after
    if before and len(tail) < long:
        return tail, before
    return "Do what the text in `context` asks for; it begins with its instructions or ends with them.", text


def _calls(message: BaseMessage) -> list[Any]:
    return list(message.tool_calls) if isinstance(message, AIMessage) else []
