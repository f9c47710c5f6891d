"""The graph for LangGraph's server, named in `langgraph.json`.

The models come from the assistant's configuration (`configurable`: `model`, `sub_model`), else from `RLM_MODEL` and
`RLM_SUB_MODEL`. The graph has no checkpointer, because the server has its own. The input is JSON: `query` and
`context`. Other keys of a client are left out or refused, see `boundary.py`.
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

MAX_GRAPHS = 16
"""Most graphs in the cache. The server asks for a graph with each run."""


async def rlm(config: RunnableConfig) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the graph for one assistant. Raises `ConfigurationError` if no model is named.

    It is built in a thread, because the server refuses code that blocks its event loop.
    """
    settings = config.get("configurable", {})
    model = settings.get("model") or os.environ.get("RLM_MODEL")
    if not model:
        raise ConfigurationError("no model is named: set RLM_MODEL, or `model` in the assistant's configurable")
    sub_model = settings.get("sub_model") or os.environ.get("RLM_SUB_MODEL") or model
    if not (isinstance(model, str) and isinstance(sub_model, str)):
        raise ConfigurationError(
            "`model` and `sub_model` in the assistant's configurable must be names of models, as texts"
        )
    return await asyncio.to_thread(_graph, model, sub_model)


@lru_cache(MAX_GRAPHS)
def _graph(model: str, sub_model: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    return create_rlm_graph(model, recursive_model=sub_model, strategies="auto").compile(name="rlm")
