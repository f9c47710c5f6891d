"""The factory that `langgraph.json` names, against a scripted server."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain import ConfigurationError
from tests.servers.scripted import rlm as play
from tests.servers.scripted import serve

ROOT = Path(__file__).parents[2]


def factory() -> Any:
    """What the server would load."""
    place = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["rlm"]
    path, _, name = place.partition(":")
    spec = importlib.util.spec_from_file_location("served", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


async def test_the_served_graph_takes_json_and_gives_json(monkeypatch):
    with serve(play("FINAL([len(context), llm_query('x')])")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        graph = factory()({"configurable": {"model": "openai:any"}})
        end = await graph.ainvoke({"query": "How long?", "context": "abc"})
    assert end["answer"][0] == 3
    assert json.loads(json.dumps(end))["status"] == "complete"


def test_no_model_is_a_sentence():
    with pytest.raises(ConfigurationError, match="RLM_MODEL"):
        factory()({})
