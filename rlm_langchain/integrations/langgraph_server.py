"""The graph that `langgraph.json` names: what LangGraph's server serves.

The models come from the assistant's configuration (`configurable`: `model`, `sub_model`), else from `RLM_MODEL` and
`RLM_SUB_MODEL`. No checkpointer is compiled in: the server brings its own. Input is JSON: `query` and `context`.
What else a client sends is left out or refused, see `boundary.py`.
"""

from __future__ import annotations

import asyncio
import os
from functools import lru_cache
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.runnable.create import create_rlm_graph

ASSISTANTS = 16
"""Graphs that are kept: the server asks for one with each run."""


async def rlm(config: RunnableConfig) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph for one assistant. Raises `ConfigurationError` when no model is named.

    Built in a thread: the server's event loop is for everybody, and refuses what blocks it.
    """
    chosen = config.get("configurable", {})
    model = chosen.get("model") or os.environ.get("RLM_MODEL")
    if not model:
        raise ConfigurationError("no model is named: set RLM_MODEL, or `model` in the assistant's configurable")
    sub_model = chosen.get("sub_model") or os.environ.get("RLM_SUB_MODEL") or model
    if not (isinstance(model, str) and isinstance(sub_model, str)):
        raise ConfigurationError(
            "`model` and `sub_model` in the assistant's configurable are names of models, as texts"
        )
    return await asyncio.to_thread(_graph, model, sub_model)


@lru_cache(ASSISTANTS)
def _graph(model: str, sub_model: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    return create_rlm_graph(model, recursive_model=sub_model, strategies="auto").compile(name="rlm")
