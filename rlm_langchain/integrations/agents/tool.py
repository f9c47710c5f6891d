"""An RLM as a tool of an agent."""

from __future__ import annotations

import re
from types import NoneType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field

from rlm_langchain.context.sources.text import warn_of_file_names
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.records import RLMOutput
from rlm_langchain.runnable.options import known_options
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.trajectory.degradation import describe_shortfalls
from rlm_langchain.validation import check_types

_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
"""What providers take as the name of a tool."""


class Query(BaseModel):
    """The arguments of the tool that `rlm_tool` creates."""

    query: str = Field(description="A question about the corpus, complete in itself.")


@known_options
def rlm_tool(
    rlm: RLMRunnable, context: Any, *, name: str = "ask_corpus", description: str | None = None
) -> BaseTool:
    """Create a tool that answers questions about a fixed context of any length, with the `RLMOutput` as artifact.

    Each call is a separate run, and as durable as the agent is: a checkpointer of the RLM is not used.
    """
    rlm = checked_rlm(rlm)
    check_types("rlm_tool", str, name=name)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"name={name!r}: a tool's name is up to 64 letters, digits, `_` and `-`")
    check_types("rlm_tool", (str, NoneType), description=description)
    rlm = rlm.model_copy(update={"checkpointer": None}) if rlm.checkpointer else rlm
    warn_of_file_names(context, "the context")
    reference = rlm.built.components.store.reference(context, seconds=rlm.budget.seconds)
    about = reference["about"] if reference else "nothing"

    def ask(query: str, config: RunnableConfig) -> tuple[str, RLMOutput]:
        return tool_output(rlm.invoke({"query": query, "context": reference}, config))

    async def aask(query: str, config: RunnableConfig) -> tuple[str, RLMOutput]:
        return tool_output(await rlm.ainvoke({"query": query, "context": reference}, config))

    return StructuredTool.from_function(
        ask,
        aask,
        name=name,
        description=description or f"Answers questions about a corpus that is too long to read: {about}",
        args_schema=Query,
        response_format="content_and_artifact",
    )


def tool_output(output: RLMOutput) -> tuple[str, RLMOutput]:
    """Return the answer for the agent, with a remark if it is not complete, and the output itself."""
    if output["status"] == "failed":
        found = f"\nWhat was seen last:\n{output['found']}" if output.get("found") else ""
        misfit = f"; the last one does not fit: {output['misfit']}" if output.get("misfit") else ""
        return f"(no answer: {output['stop_reason']}{misfit}){found}", output
    answer = output["answer"] if isinstance(output["answer"], str) else f"{output['answer']}"
    missing = f"; {describe_shortfalls(output['degraded'])}" if output["degraded"] else ""
    doubt = f"\n(a partial answer: {output['stop_reason']}{missing})" if output["status"] == "partial" else ""
    return f"{answer}{doubt}", output
