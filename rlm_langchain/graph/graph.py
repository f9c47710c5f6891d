"""The graph of a run. Read this module first.

    START -> prepare -> generate -> execute -> finalise -> END
                        ^    |  ^     |    ^
                        +----+  +-----+    +- approve, subcall x n

`prepare` records the question. `generate` asks the root model for cells, and `execute` runs them. `subcall` answers
the calls of a cell, each by a model, a tool, a search or a child run of this graph; `approve` asks a person first.
`finalise` closes the run. State holds only the journal, and no live objects; everything else that a node needs was
captured when the graph was built.
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
    """A function in a sync and an async form. The subgraphs that it runs are named, not searched for.

    LangChain finds it by looking through closures, and keeps the last 256 that it has looked through: each would
    hold its machine, and all that this holds, long after an RLM was dropped.
    """

    @cached_property
    def deps(self) -> list[Runnable[Any, Any]]:
        """What the function runs: LangGraph looks for subgraphs in it."""
        return []


class Node(Lambda):
    """A node, called as it is. LangGraph has begun a run for it: a lambda would begin another inside it, half a
    millisecond and a line in every trace. In lambdas LangGraph finds subgraphs."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return what the function makes of this."""
        return cast(Any, self.func)(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return what the async form makes of it."""
        return await cast(Any, self.afunc)(input, config)

    stream, astream = Runnable.stream, Runnable.astream


def rlm_graph(components: Components) -> GuardedStateGraph:
    """The machine over these parts, not yet compiled: bring a checkpointer of your own, or be a subgraph."""

    def prepare(state: RLMState, config: RunnableConfig) -> dict[str, Any]:
        check_saver(components, config)
        return prepare_run(components, state)

    def generate(state: RLMState, config: RunnableConfig) -> Command[Any]:
        turn = GenerateStep.begin(components, state, config)
        return turn.end(run_sync(turn.tree, turn.ask, config))

    async def agenerate(state: RLMState, config: RunnableConfig) -> Command[Any]:
        await components.ready(state["run"], config)
        turn = await asyncio.to_thread(GenerateStep.begin, components, state, config)  # it may read the store
        return turn.end(await turn.ask(config))

    def execute(state: RLMState, config: RunnableConfig) -> Command[Any]:
        return ExecuteStep.begin(components, state, config).run()

    async def aexecute(state: RLMState, config: RunnableConfig) -> Command[Any]:
        await components.ready(state["run"], config)
        work = ExecuteStep.begin(components, state, config)
        return await run_in_thread(work.run, work.repl.close)

    def approve(state: RLMState) -> dict[str, Any]:
        return ask_person(state)

    def subcall(task: SubcallTask, config: RunnableConfig) -> dict[str, Any]:
        work = SubcallNode.begin(components, task, config)
        if (run := work.child_run()) is None:
            return run_sync(work.tree, work.answer_calls, config)
        if (answer := run.join()) is not None:
            return run.shared(answer)
        with run.running(), work.tree.child_run_limiter.thread_semaphore(run.depth):
            run.ended(child.invoke(run.input(), child_config(config)))
        return run.update()

    async def asubcall(task: SubcallTask, config: RunnableConfig) -> dict[str, Any]:
        await components.ready(task["run"], config)
        work = SubcallNode.begin(components, task, config)
        if (run := work.child_run()) is None:
            return await work.answer_calls(config)
        if (answer := await run.ajoin()) is not None:
            return await asyncio.to_thread(run.shared, answer)
        with run.running():
            async with work.tree.child_run_limiter.task_semaphore(run.depth):
                outcome = await child.ainvoke(run.input(), child_config(config))
            await asyncio.to_thread(run.ended, outcome)
        return run.update()

    def finalise(state: RLMState) -> dict[str, Any]:
        return finalise_run(components, state)

    graph = GuardedStateGraph(RLMState, input_schema=RLMRun, output_schema=RLMOutput)
    graph.machine = components
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
