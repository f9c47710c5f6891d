"""The RLM that answers one call of a `ChatRLM`: the one it has, with the tools, schema and model of that call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from rlm_langchain.errors import ConfigurationError, NoAnswer
from rlm_langchain.integrations.agents.tool import tool_output
from rlm_langchain.integrations.chat_model.question import question
from rlm_langchain.integrations.chat_model.reply import ChatReply, as_text, cut
from rlm_langchain.integrations.chat_model.structured import answer_schema
from rlm_langchain.integrations.chat_model.tools import BoundTools, bound_tools
from rlm_langchain.records import RLMInput, RLMOutput, output_of

if TYPE_CHECKING:
    from rlm_langchain.runnable.runnable import RLMRunnable

IGNORED = {"strict", "parallel_tool_calls", "stream_usage"}
"""What agents say to every model: answers fit anyway, and usage is always there."""
KNOWN = {"tools", "tool_choice", "response_format", "model", "include_raw", *IGNORED}
REMEMBERED = 8
"""RLMs of other calls that are kept: to build one takes as long as a short run."""


class NoTypedAnswer(NoAnswer, OutputParserException):
    """An answer of a type was asked for, and there is none that fits. Chains know it as a parser's error."""


class RLMCall(NamedTuple):
    """An RLM, and how its answers are told."""

    rlm: RLMRunnable
    tools: BoundTools
    model: str
    typed: bool = False
    """Whether this call asks for an answer of a type, or for calls of tools."""
    held: Any = None
    """So that what the key of a memory is made of lives as long as the memory."""

    def input(self, messages: Sequence[BaseMessage], long: int) -> RLMInput:
        """The question in a conversation. Raises `InputError`."""
        query, context = question(messages, long)
        return {"query": self.tools.told(query), "context": context}

    def told(self, output: RLMOutput, stop: Sequence[str] | None) -> ChatReply:
        """The reply to it; without one, why. Raises `NoAnswer` when one of a type was asked for:
        a text would be taken for an answer, or asked for again and again."""
        if self.typed and output["status"] == "failed":
            raise NoTypedAnswer(output)
        calls = self.tools.calls(output["answer"])
        text = "" if calls else cut(as_text(output["answer"]), stop)
        if output["status"] == "failed":
            text = tool_output(output)[0]
        return ChatReply(text, calls, output, self.model)

    def end(self, state: dict[str, Any], stop: Sequence[str] | None) -> Iterator[ChatGenerationChunk]:
        """The rest of a stream, when the last state of its graph is here."""
        output = output_of(state)
        for message in self.told(self.rlm.checked(output), stop).chunks():
            yield ChatGenerationChunk(message=message)


class RLMCache(dict[Any, RLMCall]):
    """The RLMs of the last calls, by what these were given."""

    def asked(self, rlm: RLMRunnable, kwargs: dict[str, Any], tools_in: Any) -> RLMCall:
        """The RLM for a call with these arguments. Raises `ConfigurationError` for one that it cannot heed."""
        if unknown := set(kwargs) - KNOWN:
            raise ConfigurationError(
                f"a ChatRLM does not take {', '.join(sorted(unknown))}: set that on the models of its RLM"
            )
        given = {key: value for key, value in kwargs.items() if key not in IGNORED and value is not None}
        options = [getattr(rlm, name) for name in type(rlm).model_fields]
        key = (
            id(rlm),
            *map(id, options),
            tools_in,
            *((name, _key(value)) for name, value in sorted(given.items())),
        )
        asked = self.get(key)
        if asked is None:
            self[key] = asked = _built(rlm, given, tools_in)._replace(held=(rlm, options, given))
            for old in list(self)[:-REMEMBERED]:
                self.pop(old, None)
        return asked


def model_name(model: Any) -> str:
    """A root model's name, marked: who adds up tokens by the names of models does not count them twice."""
    name = model if isinstance(model, str) else getattr(model, "model_name", None) or getattr(model, "model", None)
    return f"rlm:{name or type(model).__name__}"


def _built(rlm: RLMRunnable, given: dict[str, Any], tools_in: Any) -> RLMCall:
    tools = bound_tools(given.get("tools", ()), given.get("tool_choice"), tools_in)
    wanted = answer_schema(given.get("response_format"))
    before = rlm.answer_schema if wanted is None else wanted
    update: dict[str, Any] = {
        "answer_schema": tools.schema(before),
        "tools": (*rlm.tools, *tools.in_repl),
        "checkpointer": None,
    }
    if "model" in given:
        update["root_model"] = given["model"]
    changed = {key: value for key, value in update.items() if value != getattr(rlm, key)}
    changes = bool(tools.in_repl or "model" in given or changed.keys() & {"answer_schema", "checkpointer"})
    return RLMCall(
        rlm.model_copy(update=update) if changes else rlm,
        tools,
        model_name(given.get("model", rlm.root_model)),
        (wanted is not None or tools.required) and not given.get("include_raw"),
    )


def _key(value: Any) -> Any:
    """What tells one argument from another: its text, or which object it is."""
    if isinstance(value, list | tuple):
        return tuple(_key(one) for one in value)
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=id)
    return value if isinstance(value, str | bool) else id(value)
