"""Makes a node for a parent graph from an RLM, behind `RLMRunnable.as_node`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.channels.base import BaseChannel
from pydantic import BaseModel

from rlm_langchain.context.sources.messages import refuse_pictures
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.graph.boundary import READ_KEY, storable_in_parent
from rlm_langchain.graph.graph import Lambda
from rlm_langchain.records import RLMInput, RLMOutput
from rlm_langchain.run.cancellation import run_supervised
from rlm_langchain.run.event_loops import run_interruptible
from rlm_langchain.runnable.contract import RLMProtocol
from rlm_langchain.runnable.run_scope import invocation_of

CONTEXT = "context"
"""The default key of the context."""
_INTERNAL = re.compile("__|branch:|join:")
"""Matches the names of LangGraph's internal channels."""
MESSAGES = "messages"
"""The key of LangGraph's `MessagesState`."""


def make_node(rlm: RLMProtocol, keys: Mapping[Literal["query", "context", "answer", "output"], str]) -> Any:
    """Return a node that reads a parent's state and writes the answer to it.

    `rlm` has no checkpointer of its own; its graph uses the parent's checkpointer, streams and interrupts. The
    wrapped function refers to the graph, which is how LangGraph finds a subgraph.
    """
    built = rlm.built
    graph = built.graph

    def input_of(state: Any, config: RunnableConfig) -> RLMInput:
        _check_keys(keys, state, _channels(config))
        query = _read(state, keys["query"])
        if query is None:
            raise InputError(
                f"as_node(query={keys['query']!r}): the state holds nothing there, so nothing is asked"
            )
        return {"query": _question_in(query), "context": _read(state, keys["context"])}

    def run(state: Any, config: RunnableConfig) -> dict[str, Any]:
        question = input_of(state, config)
        settings = rlm.settings(config, threads=True)
        with built.run_scope(question, settings) as (graph_input, _):
            invocation = invocation_of(settings)
            output = run_interruptible(
                lambda: graph.invoke(graph_input, settings), invocation.cancel, invocation.context()
            )
            return _state_update(rlm.checked(cast(RLMOutput, output)), keys)

    async def arun(state: Any, config: RunnableConfig) -> dict[str, Any]:
        question = input_of(state, config)
        settings = rlm.settings(config)

        async def work() -> dict[str, Any]:
            async with built.arun_scope(question, settings) as (graph_input, _):
                return _state_update(rlm.checked(cast(RLMOutput, await graph.ainvoke(graph_input, settings))), keys)

        return await run_supervised(invocation_of(settings), work())

    node = Lambda(run, arun, name="rlm")
    node.deps.append(graph)
    return node


def _channels(config: RunnableConfig) -> frozenset[str] | None:
    """Return the keys of the parent's state, which are the channels of the running task. None outside of a
    graph."""
    read = (config.get("configurable") or {}).get(READ_KEY)
    channels = next((one for one in getattr(read, "args", ()) if _is_channels(one)), None)
    return None if channels is None else frozenset(map(str, channels))


def _is_channels(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(one, BaseChannel) for one in value.values())


def _check_keys(keys: Mapping[Any, str], state: Any, channels: frozenset[str] | None) -> None:
    """Raise `ConfigurationError` for a key that the parent's state does not have. LangGraph would read nothing from
    it, and drop what is written to it. The default key of the context may be missing."""
    parent_keys = channels or frozenset()
    for option, key in keys.items():
        if option in ("query", "context"):
            exists = key in parent_keys or (key in state if isinstance(state, Mapping) else hasattr(state, key))
            exists = exists or (option, key) == ("context", CONTEXT)
        else:
            exists = channels is None or key in channels
        if not exists:
            own_keys = [*state] if isinstance(state, Mapping) else [*getattr(type(state), "__annotations__", ())]
            names = sorted(name for name in {*parent_keys, *map(str, own_keys)} if not _INTERNAL.match(name))
            raise ConfigurationError(
                f"as_node({option}={key!r}): the state has no such key; it has {', '.join(names) or 'none'}"
            )


def _read(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _state_update(output: RLMOutput, keys: Mapping[Any, str]) -> dict[str, Any]:
    """Return the update of the parent's state: the answer, or an `AIMessage` if the question was in messages."""
    more = {keys["output"]: output} if "output" in keys else {}
    answer = (
        [AIMessage(_answer_text(output))]
        if keys["answer"] == keys["query"]
        else storable_in_parent(output["answer"])
    )
    return {keys["answer"]: answer, **more}


def _question_in(value: Any) -> Any:
    """Return the question. In a list of messages, it is the last human message."""
    if not isinstance(value, list):
        return value
    human = [message for message in convert_to_messages(value) if message.type == "human"]
    if not human:
        raise InputError("there is no message of a person among the messages of the state: nothing is asked")
    refuse_pictures(human[-1:])
    return str(human[-1].text)


def _answer_text(output: RLMOutput) -> str:
    """Return the answer as the content of a message, or a note with the reason why there is none."""
    answer = output["answer"]
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    if output["status"] == "failed":
        return f"(no answer: {output['stop_reason']})"
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
