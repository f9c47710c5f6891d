"""An RLM inside other people's programs: a node of their graph, a tool of their agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig

from rlm_langchain.graph.graph import Lambda
from rlm_langchain.records import RLMInput, RLMOutput
from rlm_langchain.run.cancellation import supervised
from rlm_langchain.run.event_loops import run_interruptible
from rlm_langchain.runnable.contract import Runs
from rlm_langchain.runnable.run_scope import invocation_of


def node(rlm: Runs, keys: Mapping[Literal["query", "context", "answer", "output"], str]) -> Any:
    """A node that reads a parent's state and writes the answer into it.

    `rlm` has no checkpointer of its own: its graph has that of the parent, its streams and its interrupts. The
    function that is wrapped names the graph, by which LangGraph finds a subgraph.
    """
    built = rlm.built
    graph = built.graph

    def asked(state: Any) -> RLMInput:
        return {"query": _read(state, keys["query"]), "context": _read(state, keys["context"])}

    def ask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = rlm.settings(config, threads=True)
        with built.run_scope(asked(state), settings) as (begun, _):
            invocation = invocation_of(settings)
            found = run_interruptible(
                lambda: graph.invoke(begun, settings), invocation.cancel, invocation.context()
            )
            return _written(rlm.checked(cast(RLMOutput, found)), keys)

    async def aask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = rlm.settings(config)

        async def work() -> dict[str, Any]:
            async with built.arunning(asked(state), settings) as (begun, _):
                return _written(rlm.checked(cast(RLMOutput, await graph.ainvoke(begun, settings))), keys)

        return await supervised(invocation_of(settings), work())

    found = Lambda(ask, aask, name="rlm")
    found.deps.append(graph)
    return found


def _read(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _written(output: RLMOutput, keys: Mapping[Any, str]) -> dict[str, Any]:
    whole = {keys["output"]: output} if "output" in keys else {}
    return {keys["answer"]: output["answer"], **whole}
