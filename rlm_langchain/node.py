"""An RLM inside other people's programs: a node of their graph, a tool of their agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field

from rlm_langchain.cancellation import supervised

# LangChain reads the signature of a tool's function at run time: its types must be there.
from rlm_langchain.degradation import described
from rlm_langchain.graph import Lambda
from rlm_langchain.lifecycle import invocation_of
from rlm_langchain.types import RLMInput, RLMOutput

if TYPE_CHECKING:
    from rlm_langchain.runnable import RLMRunnable


def node(rlm: RLMRunnable, keys: Mapping[Literal["query", "context", "answer", "output"], str]) -> Any:
    """A node that reads a parent's state and writes the answer into it.

    Its graph has the parent's checkpointer, streams and interrupts. The function that is wrapped names the graph,
    by which LangGraph finds a subgraph.
    """
    inner = rlm.model_copy(update={"checkpointer": None})
    built = inner.built
    graph = built.graph

    def asked(state: Any) -> RLMInput:
        return {"query": _read(state, keys["query"]), "context": _read(state, keys["context"])}

    def ask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = inner.settings(config, threads=True)
        with built.running(asked(state), settings) as (begun, _):
            found = invocation_of(settings).context().run(graph.invoke, begun, settings)
            return _written(inner.checked(cast(RLMOutput, found)), keys)

    async def aask(state: Any, config: RunnableConfig) -> dict[str, Any]:
        settings = inner.settings(config)

        async def work() -> dict[str, Any]:
            async with built.arunning(asked(state), settings) as (begun, _):
                return _written(inner.checked(cast(RLMOutput, await graph.ainvoke(begun, settings))), keys)

        return await supervised(invocation_of(settings), work())

    found = Lambda(ask, aask, name="rlm")
    found.deps.append(graph)
    return found


class Query(BaseModel):
    """What an agent asks of a corpus."""

    query: str = Field(description="A question about the corpus, complete in itself.")


def rlm_tool(
    rlm: RLMRunnable, context: Any, *, name: str = "ask_corpus", description: str | None = None
) -> BaseTool:
    """A tool for agents: questions over a fixed corpus of any length. The artifact of a call is the `RLMOutput`.

    Each call is a question of its own, durable where the agent is: a checkpointer of the RLM is not used.
    """
    rlm = rlm.model_copy(update={"checkpointer": None}) if rlm.checkpointer else rlm
    reference = rlm.built.machine.store.reference(context, seconds=rlm.budget.seconds)
    about = reference["about"] if reference else "nothing"

    def ask(query: str, config: RunnableConfig) -> tuple[str, RLMOutput]:
        return told(rlm.invoke({"query": query, "context": reference}, config))

    async def aask(query: str, config: RunnableConfig) -> tuple[str, RLMOutput]:
        return told(await rlm.ainvoke({"query": query, "context": reference}, config))

    return StructuredTool.from_function(
        ask,
        aask,
        name=name,
        description=description or f"Answers questions about a corpus that is too long to read: {about}",
        args_schema=Query,
        response_format="content_and_artifact",
    )


def _read(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def _written(output: RLMOutput, keys: Mapping[Any, str]) -> dict[str, Any]:
    whole = {keys["output"]: output} if "output" in keys else {}
    return {keys["answer"]: output["answer"], **whole}


def told(output: RLMOutput) -> tuple[str, RLMOutput]:
    """What the agent reads: the answer, and a word on it when it is not complete."""
    if output["status"] == "failed":
        found = f"\nWhat was seen last:\n{output['found']}" if output.get("found") else ""
        return f"(no answer: {output['stop_reason']}){found}", output
    answer = output["answer"] if isinstance(output["answer"], str) else f"{output['answer']}"
    missing = f"; {described(output['degraded'])}" if output["degraded"] else ""
    doubt = f"\n(a partial answer: {output['stop_reason']}{missing})" if output["status"] == "partial" else ""
    return f"{answer}{doubt}", output
