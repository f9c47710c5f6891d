"""The RLM for one call of a `ChatRLM`: its own RLM, with the tools, the schema and the model of that call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from rlm_langchain.errors import ConfigurationError, NoAnswer
from rlm_langchain.integrations.agents.tool import tool_output
from rlm_langchain.integrations.chat_model.question import question_of
from rlm_langchain.integrations.chat_model.reply import ChatReply, as_text, cut_at_stop
from rlm_langchain.integrations.chat_model.structured import answer_schema
from rlm_langchain.integrations.chat_model.tools import BoundTools, bound_tools
from rlm_langchain.records import RLMInput, RLMOutput, output_of

if TYPE_CHECKING:
    from rlm_langchain.runnable.runnable import RLMRunnable

IGNORED = {"strict", "parallel_tool_calls", "stream_usage"}
"""Arguments that agents pass to every chat model. They change nothing: answers always fit, usage is always
given."""
ACCEPTED = {"tools", "tool_choice", "response_format", "model", "include_raw", *IGNORED}
MAX_CACHED_CALLS = 8
"""The most RLMs that are kept for later calls. To build one takes as long as a short run."""


class NoTypedAnswer(NoAnswer, OutputParserException):
    """There is no answer that fits the requested type. Chains handle it like any error of an output parser."""


class RLMCall(NamedTuple):
    """The RLM for calls with the same arguments, and how its answers become replies."""

    rlm: RLMRunnable
    tools: BoundTools
    model: str
    """The name of the model in a reply's metadata."""
    typed: bool = False
    """Whether the reply must be an answer of a type, or tool calls."""
    keep_alive: Any = None
    """The objects whose ids are in the key of the cache. While they live, no other object can have the same id."""

    def input(self, messages: Sequence[BaseMessage], long: int) -> RLMInput:
        """Return the question and the context in a conversation. Raises `InputError`."""
        query, context = question_of(messages, long)
        return {"query": self.tools.with_tools(query), "context": context}

    def reply(self, output: RLMOutput, stop: Sequence[str] | None) -> ChatReply:
        """Return an output as a reply. The text of a failed run says why it failed.

        Raises `NoTypedAnswer` for a failed run whose answer must have a type, because an agent would take the text
        for an answer, or ask again and again.
        """
        if self.typed and output["status"] == "failed":
            raise NoTypedAnswer(output)
        calls = self.tools.calls(output["answer"])
        text = "" if calls else cut_at_stop(as_text(output["answer"]), stop)
        if output["status"] == "failed":
            text = tool_output(output)[0]
        return ChatReply(text, calls, output, self.model)

    def final_chunks(self, state: dict[str, Any], stop: Sequence[str] | None) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of the answer, from the final state of the graph."""
        output = output_of(state)
        for message in self.reply(self.rlm.checked(output), stop).chunks():
            yield ChatGenerationChunk(message=message)


class RLMCache(dict[Any, RLMCall]):
    """A cache of the RLMs of the last calls, by the arguments of the calls."""

    def call_for(self, rlm: RLMRunnable, kwargs: dict[str, Any], tools_in: Any) -> RLMCall:
        """Return the RLM for a call with these arguments. Raises `ConfigurationError` for an unknown argument."""
        if unknown := set(kwargs) - ACCEPTED:
            raise ConfigurationError(
                f"a ChatRLM does not take {', '.join(sorted(unknown))}: set that on the models of its RLM"
            )
        arguments = {key: value for key, value in kwargs.items() if key not in IGNORED and value is not None}
        options = [getattr(rlm, name) for name in type(rlm).model_fields]
        key = (
            id(rlm),
            *map(id, options),
            tools_in,
            *((name, _key_of(value)) for name, value in sorted(arguments.items())),
        )
        call = self.get(key)
        if call is None:
            self[key] = call = _build(rlm, arguments, tools_in)._replace(keep_alive=(rlm, options, arguments))
            for old in list(self)[:-MAX_CACHED_CALLS]:
                self.pop(old, None)
        return call


def model_name(model: Any) -> str:
    """Return the name of a root model after "rlm:". So a sum of tokens by model name does not count them twice."""
    name = model if isinstance(model, str) else getattr(model, "model_name", None) or getattr(model, "model", None)
    return f"rlm:{name or type(model).__name__}"


def _build(rlm: RLMRunnable, arguments: dict[str, Any], tools_in: Any) -> RLMCall:
    tools = bound_tools(arguments.get("tools", ()), arguments.get("tool_choice"), tools_in)
    requested = answer_schema(arguments.get("response_format"))
    without_tools = rlm.answer_schema if requested is None else requested
    update: dict[str, Any] = {
        "answer_schema": tools.schema(without_tools),
        "tools": (*rlm.tools, *tools.in_repl),
        "checkpointer": None,
    }
    if "model" in arguments:
        update["root_model"] = arguments["model"]
    changed = {key: value for key, value in update.items() if value != getattr(rlm, key)}
    changes = bool(tools.in_repl or "model" in arguments or changed.keys() & {"answer_schema", "checkpointer"})
    return RLMCall(
        rlm.model_copy(update=update) if changes else rlm,
        tools,
        model_name(arguments.get("model", rlm.root_model)),
        (requested is not None or tools.required) and not arguments.get("include_raw"),
    )


def _key_of(value: Any) -> Any:
    """Return a hashable key of an argument: its text, or for other objects their id."""
    if isinstance(value, list | tuple):
        return tuple(_key_of(one) for one in value)
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=id)
    return value if isinstance(value, str | bool) else id(value)
