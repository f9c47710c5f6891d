"""The graph of a run. Read this module first.

START -> prepare -> generate -> execute -> finalise -> END
^    |  ^     |    ^
+----+  +-----+    +- approve, subcall x n

`prepare` records the question. `generate` asks the root model for cells, and `execute` runs them. `subcall` answers
the calls of a cell, each by a model, a tool, a search or a child run of this graph; `approve` asks a person first.
`finalise` closes the run. The state holds plain values only, no live objects. Everything else that a node needs is
in the `Components` that the graph was built from.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import END, START
from langgraph.types import Command

from rlm_langchain.graph.boundary import GuardedStateGraph
from rlm_langchain.graph.calls.child_run import child_config
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.approve import ask_person, check_saver
from rlm_langchain.graph.nodes.execute import ExecuteStep
from rlm_langchain.graph.nodes.finalise import finalise_run
from rlm_langchain.graph.nodes.generate import GenerateStep
from rlm_langchain.graph.nodes.prepare import prepare_run
from rlm_langchain.graph.nodes.subcall import SubcallNode
from rlm_langchain.graph.state import RLMRun, RLMState, SubcallTask
from rlm_langchain.records import RLMOutput
from rlm_langchain.run.event_loops import run_in_thread, run_sync


class Lambda(RunnableLambda[Any, Any]):
    """A function in a sync and an async form that lists the subgraphs it runs.

    Without a list, LangChain searches the closures of the function, and caches the last 256 functions that it has
    searched. The cache would keep an RLM and all that it holds in memory long after it was dropped.
    """

    @cached_property
    def deps(self) -> list[Runnable[Any, Any]]:
        """Return the runnables that the function calls. LangGraph looks for subgraphs among them."""
        return []


class Node(Lambda):
    """A node of the graph, whose function is called directly.

    LangGraph has started a traced run for the node already. A `RunnableLambda` would start another one inside it,
    which costs half a millisecond and a line in every trace. It is a subclass all the same, because LangGraph finds
    subgraphs only in `RunnableLambda`s.
    """

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the sync function."""
        return cast(Any, self.func)(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the async function."""
        return await cast(Any, self.afunc)(input, config)

    stream, astream = Runnable.stream, Runnable.astream


def rlm_graph(components: Components) -> GuardedStateGraph:
    """Return the graph over these components, not compiled: compile it with a checkpointer, or as a subgraph."""

    def prepare(state: RLMState, config: RunnableConfig) -> dict[str, Any]:
        check_saver(components, config)
        return prepare_run(components, state)

    def generate(state: RLMState, config: RunnableConfig) -> Command[Any]:
        step = GenerateStep.begin(components, state, config)
        return step.end(run_sync(step.tree, step.ask, config))

    async def agenerate(state: RLMState, config: RunnableConfig) -> Command[Any]:
        await components.load_tree(state["run"], config)
        step = await asyncio.to_thread(GenerateStep.begin, components, state, config)  # it may read the store
        return step.end(await step.ask(config))

    def execute(state: RLMState, config: RunnableConfig) -> Command[Any]:
        return ExecuteStep.begin(components, state, config).run()

    async def aexecute(state: RLMState, config: RunnableConfig) -> Command[Any]:
        await components.load_tree(state["run"], config)
        step = ExecuteStep.begin(components, state, config)
        return await run_in_thread(step.run, step.repl.close)

    def approve(state: RLMState) -> dict[str, Any]:
        return ask_person(state)

    def subcall(task: SubcallTask, config: RunnableConfig) -> dict[str, Any]:
        node = SubcallNode.begin(components, task, config)
        if (run := node.child_run()) is None:
            return run_sync(node.tree, node.answer_calls, config)
        if (answer := run.join()) is not None:
            return run.record_shared_answer(answer)
        with run.running(), node.tree.child_run_limiter.thread_semaphore(run.depth):
            run.set_outcome(child.invoke(run.input(), child_config(config)))
        return run.update()

    async def asubcall(task: SubcallTask, config: RunnableConfig) -> dict[str, Any]:
        await components.load_tree(task["run"], config)
        node = SubcallNode.begin(components, task, config)
        if (run := node.child_run()) is None:
            return await node.answer_calls(config)
        if (answer := await run.ajoin()) is not None:
            return await asyncio.to_thread(run.record_shared_answer, answer)
        with run.running():
            async with node.tree.child_run_limiter.task_semaphore(run.depth):
                outcome = await child.ainvoke(run.input(), child_config(config))
            await asyncio.to_thread(run.set_outcome, outcome)
        return run.update()

    def finalise(state: RLMState) -> dict[str, Any]:
        return finalise_run(components, state)

    graph = GuardedStateGraph(RLMState, input_schema=RLMRun, output_schema=RLMOutput)
    graph.components = components
    graph.add_node("prepare", prepare, input_schema=RLMState)
    graph.add_node("generate", Node(generate, agenerate), destinations=("generate", "execute", "finalise"))
    graph.add_node(
        "execute",
        Node(execute, aexecute),
        destinations=("generate", "approve", "subcall", "finalise"),
    )
    graph.add_node("approve", approve)
    calls = Node(subcall, asubcall)
    graph.add_node("subcall", calls, input_schema=SubcallTask)
    graph.add_node("finalise", finalise)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "generate")
    graph.add_edge("approve", "execute")
    graph.add_edge("subcall", "execute")
    graph.add_edge("finalise", END)
    child = graph.compile(name="rlm")
    calls.deps.append(child)
    return graph
