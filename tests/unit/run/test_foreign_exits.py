"""What foreign code raises to end a process ends its own work: later runs of the process find their event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tools import BaseTool

from rlm_langchain import HostFunction, ModelError, create_rlm
from rlm_langchain.errors import ForeignExit
from rlm_langchain.testing.models import FunctionModel, script

EXITS = [SystemExit, KeyboardInterrupt, GeneratorExit]
WAYS = ["invoke", "ainvoke"]
CODE = "try:\n    said = f('x')\nexcept Exception as error:\n    said = str(error)\nFINAL(said)"


def ask(rlm: Any, way: str, config: Any = None) -> Any:
    return rlm.invoke("q", config) if way == "invoke" else asyncio.run(rlm.ainvoke("q", config))


@pytest.fixture(autouse=True)
def _later_runs_work() -> Any:
    yield
    assert create_rlm(script("FINAL(llm_query('after'))"), sandbox="monty").invoke("q")["answer"] == "<after>"


def sync_tool(kind: Any) -> Any:
    def f(x: str) -> str:
        """Ends."""
        raise kind

    return f


def async_tool(kind: Any) -> Any:
    async def f(x: str) -> str:
        """Ends."""
        raise kind

    return f


def own_tool(kind: Any) -> Any:
    class Own(BaseTool):
        name: str = "f"
        description: str = "Ends."

        def _run(self, x: str) -> str:
            raise kind

    return Own()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*EXITS, asyncio.CancelledError])
@pytest.mark.parametrize("made", [sync_tool, async_tool, own_tool])
def test_an_exit_in_a_tool_is_an_error_of_the_cell(made: Any, kind: Any, way: str) -> None:
    rlm = create_rlm(script(CODE), tools=[made(kind)], sandbox="monty")
    assert ask(rlm, way)["answer"] == f"f failed: {kind.__name__}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", EXITS)
@pytest.mark.parametrize("made", [sync_tool, async_tool])
def test_and_so_it_is_in_a_function_of_a_plug_in(made: Any, kind: Any, way: str) -> None:
    function = HostFunction(name="f", signature="x: str", guidance="Ends.", function=made(kind))
    assert ask(create_rlm(script(CODE), functions=[function], sandbox="monty"), way)["answer"].startswith(
        "f failed"
    )


@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_in_a_model_is_a_model_that_does_not_answer(kind: Any) -> None:
    def play(messages: Any) -> str:
        raise kind

    with pytest.raises(ModelError, match=kind.__name__):
        create_rlm(FunctionModel(function=play)).invoke("q")
    code = CODE.replace("f(", "llm_query(")
    answer = create_rlm(script(code, leaf=play), sandbox="monty").invoke("q")["answer"]
    assert answer == f"the model raised {kind.__name__}"


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
@pytest.mark.parametrize("base", [BaseCallbackHandler, AsyncCallbackHandler])
@pytest.mark.parametrize("event", ["on_chain_start", "on_chat_model_start", "on_llm_end"])
def test_an_exit_in_a_callback_is_an_error_of_ours(event: str, base: Any, kind: Any) -> None:
    def ends(self: Any, *args: Any, **more: Any) -> None:
        raise kind

    async def aends(self: Any, *args: Any, **more: Any) -> None:
        raise kind

    handler = type("Ends", (base,), {event: aends if base is AsyncCallbackHandler else ends})()
    rlm = create_rlm(script("FINAL(llm_query('x'))"), sandbox="monty")
    with pytest.raises(ForeignExit, match=kind.__name__):
        rlm.invoke("q", {"callbacks": [handler]})
