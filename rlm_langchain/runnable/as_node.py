"""An RLM in other people's programs: as a node of a graph, or a tool of an agent."""

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
from rlm_langchain.runnable.contract import Runs
from rlm_langchain.runnable.run_scope import invocation_of

CONTEXT = "context"
"""The key of the context, unless another one is named."""
_INTERNAL = re.compile("__|branch:|join:")
"""How LangGraph's own channels begin."""
MESSAGES = "messages"
"""The key of LangGraph's `MessagesState`."""


def node(rlm: Runs, keys: Mapping[Literal["query", "context", "answer", "output"], str]) -> Any:
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
        return {"query": _question(query), "context": _read(state, keys["context"])}

    def ask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        question = input_of(state, config)
        settings = rlm.settings(config, threads=True)
        with built.run_scope(question, settings) as (graph_input, _):
            invocation = invocation_of(settings)
            found = run_interruptible(
                lambda: graph.invoke(graph_input, settings), invocation.cancel, invocation.context()
            )
            return _written(rlm.checked(cast(RLMOutput, found)), keys)

    async def aask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        question = input_of(state, config)
        settings = rlm.settings(config)

        async def work() -> dict[str, Any]:
            async with built.arun_scope(question, settings) as (graph_input, _):
                return _written(rlm.checked(cast(RLMOutput, await graph.ainvoke(graph_input, settings))), keys)

        return await run_supervised(invocation_of(settings), work())

    found = Lambda(ask, aask, name="rlm")
    found.deps.append(graph)
    return found


def _channels(config: RunnableConfig) -> frozenset[str] | None:
    """The keys of the parent's state: the channels that a task of LangGraph reads. None outside of a graph."""
    read = (config.get("configurable") or {}).get(READ_KEY)
    channels = next((one for one in getattr(read, "args", ()) if _is_channels(one)), None)
    return None if channels is None else frozenset(map(str, channels))


def _is_channels(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(one, BaseChannel) for one in value.values())


def _check_keys(keys: Mapping[Any, str], state: Any, channels: frozenset[str] | None) -> None:
    """Raise `ConfigurationError` for a key that the parent's state does not have: LangGraph reads nothing there,
    and drops what is written. A context that was not named need not be there."""
    known = channels or frozenset()
    for option, key in keys.items():
        if option in ("query", "context"):
            is_there = key in known or (key in state if isinstance(state, Mapping) else hasattr(state, key))
            is_there = is_there or (option, key) == ("context", CONTEXT)
        else:
            is_there = channels is None or key in channels
        if not is_there:
            own = [*state] if isinstance(state, Mapping) else [*getattr(type(state), "__annotations__", ())]
            there = sorted(name for name in {*known, *map(str, own)} if not _INTERNAL.match(name))
            raise ConfigurationError(
                f"as_node({option}={key!r}): the state has no such key; it has {', '.join(there) or 'none'}"
            )


def _read(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _written(output: RLMOutput, keys: Mapping[Any, str]) -> dict[str, Any]:
    whole = {keys["output"]: output} if "output" in keys else {}
    said = [AIMessage(_text(output))] if keys["answer"] == keys["query"] else storable_in_parent(output["answer"])
    return {keys["answer"]: said, **whole}


def _question(given: Any) -> Any:
    """Return the question in a state. In messages, it is the last message of a person."""
    if not isinstance(given, list):
        return given
    said = [message for message in convert_to_messages(given) if message.type == "human"]
    if not said:
        raise InputError("there is no message of a person among the messages of the state: nothing is asked")
    refuse_pictures(said[-1:])
    return str(said[-1].text)


def _text(output: RLMOutput) -> str:
    answer = output["answer"]
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    if output["status"] == "failed":
        return f"(no answer: {output['stop_reason']})"
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
