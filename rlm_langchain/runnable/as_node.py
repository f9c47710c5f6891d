"""An RLM in other people's programs: as a node of a graph, or a tool of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig

from rlm_langchain.graph.graph import Lambda
from rlm_langchain.records import RLMInput, RLMOutput
from rlm_langchain.run.cancellation import supervised
from rlm_langchain.runnable.contract import Runs
from rlm_langchain.runnable.run_scope import invocation_of


def node(rlm: Runs, keys: Mapping[Literal["query", "context", "answer", "output"], str]) -> Any:
    """Return a node that reads a parent's state and writes the answer to it.

    `rlm` has no checkpointer of its own; its graph uses the parent's checkpointer, streams and interrupts. The
    wrapped function refers to the graph, which is how LangGraph finds a subgraph.
    """
    built = rlm.built
    graph = built.graph

    def input_of(state: Any) -> RLMInput:
        return {"query": _read(state, keys["query"]), "context": _read(state, keys["context"])}

    def ask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = rlm.settings(config, threads=True)
        with built.run_scope(input_of(state), settings) as (graph_input, _):
            found = invocation_of(settings).context().run(graph.invoke, graph_input, settings)
            return _written(rlm.checked(cast(RLMOutput, found)), keys)

    async def aask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = rlm.settings(config)

        async def work() -> dict[str, Any]:
            async with built.arun_scope(input_of(state), settings) as (graph_input, _):
                return _written(rlm.checked(cast(RLMOutput, await graph.ainvoke(graph_input, settings))), keys)

        return await supervised(invocation_of(settings), work())

    found = Lambda(ask, aask, name="rlm")
    found.deps.append(graph)
    return found


def _read(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _written(output: RLMOutput, keys: Mapping[Any, str]) -> dict[str, Any]:
    whole = {keys["output"]: output} if "output" in keys else {}
    return {keys["answer"]: output["answer"], **whole}
