"""Splits the messages to a chat model into a question for an RLM and its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage

from rlm_langchain.context.sources.messages import refuse_pictures
from rlm_langchain.errors import InputError


class Question(NamedTuple):
    """The question in a conversation, with its context."""

    query: str
    context: str | list[BaseMessage] | None
    """The other messages, or the text of the only one. None if there are no others."""


def question_of(messages: Sequence[BaseMessage], long: int) -> Question:
    """Return the question and the context in a conversation. Raises `InputError` if no human message has text.

    Short system messages are instructions and become part of the question. All other messages become the context.
    """
    refuse_pictures(messages)
    asking = next((i for i in reversed(range(len(messages))) if messages[i].type == "human"), None)
    if asking is None or not messages[asking].text.strip():
        raise InputError("there is no human message to answer")
    query, rest_of_question = _split_long_message(messages[asking].text, long)
    instructions: list[str] = []
    rest: list[BaseMessage] = []
    for i, message in enumerate(messages):
        if i == asking:
            rest += [message.model_copy(update={"content": rest_of_question})] if rest_of_question else []
        elif message.type == "system" and len(message.text) < long:
            instructions.append(message.text)
        elif message.text.strip() or _tool_calls(message):
            rest.append(message)
    return Question("\n\n".join(text for text in [*instructions, query] if text.strip()), _context(rest))


def _context(rest: list[BaseMessage]) -> str | list[BaseMessage] | None:
    if len(rest) == 1 and not _tool_calls(rest[0]):
        return str(rest[0].text)
    return rest or None


def _split_long_message(text: str, long: int) -> tuple[str, str]:
    """Split a long message into its question, which is the first or the last paragraph, and the rest."""
    if len(text) < long:
        return text, ""
    head, _, after = text.partition("\n\n")
    beginning, _, tail = text.rpartition("\n\n")
    if after and len(head) < long and head.rstrip().endswith(("?", ":")):
        return head, after
    if beginning and len(tail) < long:
        return tail, beginning
    return "Do what the text in `context` asks for; it begins with its instructions or ends with them.", text


def _tool_calls(message: BaseMessage) -> list[Any]:
    return list(message.tool_calls) if isinstance(message, AIMessage) else []
