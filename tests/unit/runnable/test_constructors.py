"""Every option of every public constructor: a value of a wrong type, and a keyword that is none, is a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import (
    Budget,
    ChatRLM,
    ConfigurationError,
    HostFunction,
    InputError,
    Limits,
    Price,
    RLMContextMiddleware,
    RLMRetriever,
    RLMRunnable,
    Strategy,
    create_hybrid_rlm,
    create_rlm,
    create_rlm_graph,
    rlm_tool,
)
from rlm_langchain.integrations.hybrid import HybridRLM
from rlm_langchain.integrations.mcp_server import create_mcp_server
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.testing.models import FunctionModel, script


class Nothing(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        return []


class Wrong:
    """What no option is."""


MODEL = script("FINAL(1)")
RLM = create_rlm(MODEL)


def with_function(**given: Any) -> RLMRunnable:
    return create_rlm(MODEL, functions=[HostFunction(**given)])


CONSTRUCTORS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "create_rlm": (create_rlm, create_rlm, {"root_model": MODEL}),
    "create_rlm_graph": (create_rlm_graph, create_rlm_graph, {"root_model": MODEL}),
    "RLMRunnable": (RLMRunnable, RLMRunnable, {"root_model": MODEL}),
    "create_hybrid_rlm": (create_hybrid_rlm, create_hybrid_rlm, {"retriever": Nothing(), "root_model": MODEL}),
    "HybridRLM": (HybridRLM, HybridRLM, {"retriever": Nothing(), "rlm": RLM}),
    "ChatRLM": (ChatRLM, ChatRLM, {"rlm": RLM}),
    "rlm_tool": (rlm_tool, rlm_tool, {"rlm": RLM, "context": "x"}),
    "RLMContextMiddleware": (RLMContextMiddleware, RLMContextMiddleware, {"rlm": RLM}),
    "create_mcp_server": (create_mcp_server, create_mcp_server, {"rlm": RLM}),
    "RLMRetriever": (RLMRetriever, RLMRetriever, {"corpus": "text"}),
    "as_node": (RLM.as_node, RLM.as_node, {}),
    "Budget": (Budget, Budget, {}),
    "Limits": (Limits, Limits, {}),
    "Price": (Price, Price, {"input": 1.0, "output": 1.0}),
    "Strategy": (Strategy, Strategy, {"name": "a", "description": "b", "guidance": "c"}),
    "HostFunction": (
        HostFunction,
        with_function,
        {"name": "f", "signature": "", "guidance": "g", "function": lambda: 1},
    ),
}
LATER = {("RLMRetriever", "corpus")}
"""What is looked at when it is used."""
OPTIONS = [
    (name, option.name)
    for name, (described, _, _) in CONSTRUCTORS.items()
    for option in inspect.signature(described).parameters.values()
    if option.kind is not option.VAR_KEYWORD and (name, option.name) not in LATER
]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=" ".join)
def test_a_value_of_a_wrong_type_is_a_sentence(name: str, option: str) -> None:
    _, make, given = CONSTRUCTORS[name]
    with pytest.raises((ConfigurationError, InputError)):
        make(**{**given, option: Wrong()})


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_so_is_a_keyword_that_there_is_not(name: str) -> None:
    _, make, given = CONSTRUCTORS[name]
    with pytest.raises(ConfigurationError, match="bugdet"):
        make(**given, bugdet=1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Budget(bugdet=1), "no option 'bugdet'"),
        (lambda: Budget(call=1), "did you mean 'calls'"),
        (lambda: Budget(approve_above=20), "approve_above_calls=20 for calls, approve_above_usd=0.50 for dollars"),
        (lambda: Budget("much"), "usd"),
        (lambda: Price(input=1.0), "output"),
        (lambda: create_rlm(MODEL, retriever=5), "retriever"),
        (lambda: create_rlm(MODEL, sandbox="docker"), "docker"),
        (lambda: create_rlm(MODEL, checkpointer="sqlite"), "checkpointer|saver"),
        (lambda: create_hybrid_rlm(Nothing(), MODEL, bugdet=Budget()), "did you mean 'budget'"),
        (lambda: rlm_tool("name", "x"), "give an RLM"),
        (lambda: RLMContextMiddleware("name"), "give an RLM"),
        (lambda: ChatRLM("name"), "give an RLM"),
        (lambda: create_mcp_server(RLM, roots=["a text"]), "give Path"),
        (
            lambda: create_rlm(MODEL, checkpointer=SqliteSaver.from_conn_string("x")),
            r"with SqliteSaver.from_conn_string\(\.\.\.\) as saver",
        ),
        (
            lambda: create_rlm(MODEL, checkpointer=AsyncSqliteSaver.from_conn_string("x")),
            r"async with AsyncSqliteSaver.from_conn_string\(\.\.\.\) as saver",
        ),
        (lambda: create_rlm(MODEL, checkpointer=InMemorySaver), r"a class.*InMemorySaver\("),
        (lambda: create_rlm(MODEL, checkpointer="runs.db"), "'runs.db' .*with SqliteSaver.from_conn_string"),
        (lambda: create_rlm(MODEL, checkpointer="postgres://u:secret@h/db"), "^(?!.*secret).*saver"),
        (lambda: create_rlm(FunctionModel), "FunctionModel is a class.*instance"),
        (lambda: create_rlm(MODEL, recursive_model=FunctionModel), "FunctionModel is a class.*instance"),
        (lambda: create_rlm(MODEL, sandbox=MontySandbox), r"a class.*MontySandbox\(\)"),
        (lambda: create_rlm(MODEL, sandbox="mony"), "did you mean 'monty'"),
        (lambda: create_rlm(MODEL, strategies="peak").graph, "did you mean 'peek'"),
        (lambda: create_rlm(MODEL, budget=Budget), r"a class.*Budget\("),
        (lambda: create_rlm(MODEL, budget=3), "budget=3 .*instance of Budget"),
        (lambda: create_rlm(MODEL, strategies=Strategy), r"a class.*Strategy\("),
        (lambda: create_rlm(MODEL, strategies=3), "valid string or: .*path"),
        (lambda: create_rlm(MODEL, tools=len), r"give a list, tools=\["),
        (lambda: create_rlm(MODEL, tools=[StructuredTool]), "StructuredTool is a class of tools"),
        (lambda: create_rlm(MODEL, output_schema={"name": "str"}), "names no type, so that any answer would fit"),
        (lambda: create_rlm(MODEL, output_schema={"properties": {"a": {}}}), '"type": "object"'),
        (lambda: create_rlm(MODEL, output_schema={"a": int}), "dict of types.*TypedDict"),
        (
            lambda: create_rlm(MODEL, output_schema={"name": "x", "schema": {}}),
            "under 'schema': give that one alone",
        ),
        (
            lambda: create_rlm(MODEL, output_schema={"type": "json_schema", "json_schema": {"schema": {}}}),
            "under 'json_schema': give that one alone",
        ),
        (lambda: RLM.fork("a thread"), "config='a thread' .*thread_id"),
        (lambda: RLM.batch("abc"), "a batch takes a list of inputs, not a str"),
        (lambda: RLM.batch(["a", "b"], [{}]), "a batch of 2 inputs was given 1 configs"),
        (lambda: RLM.configurable_fields(bugdet=ConfigurableField("b")), "did you mean 'budget'"),
        (lambda: RLM.configurable_fields(budget="b"), "give ConfigurableField"),
        (lambda: RLM.model_copy(update={"budget": {"calls": 3}}).graph, "budget=.* give Budget"),
        (lambda: rlm_tool(RLM, "x", name="has a space"), "name='has a space': a tool's name is"),
        (lambda: RLM.invoke("q", "a thread"), "config='a thread' .*thread_id"),
        (lambda: RLM.bind(temperature=0).invoke("q"), r"'temperature'.*create_rlm\(model.bind\(temperature="),
        (lambda: RLM.invoke("q", stop=["x"]), r"'stop'.*create_rlm\(model.bind\(stop="),
        (lambda: RLM.pick("anwser"), "did you mean 'answer'"),
        (lambda: RLM.pick(["answer", "trajetory"]), "did you mean 'trajectory'"),
        (lambda: ChatRLM(RLM, top_p=1), "top_p: set that on the models"),
        (lambda: ChatRLM(RLM, stop="END"), r"stop='END' .*give a list of words"),
        (lambda: ChatRLM(RLM).invoke("q", stop="END"), r"stop='END' .*give a list of words"),
        (lambda: ChatRLM(RLM).invoke("q", stop=[""]), "give a list of words"),
        (lambda: ChatRLM(RLM).invoke("q", tool_choice="any"), "no tool is bound"),
    ],
)
def test_slips_are_told_with_the_way_out(make: Callable[[], Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make()


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize(
    ("code", "line", "fault"),
    [
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError"),
        ("def f():\n    raise ValueError('no')\nf()\n", 3, "ValueError: no"),
        ("\n\nimport nothing_there", 3, "ModuleNotFoundError"),
        ("def f():\n    return missing\nf()", 3, "NameError"),
    ],
)
def test_helpers_that_fail_are_named_with_strategy_and_line(
    tmp_path: Path, sandbox: str, code: str, line: int, fault: str
) -> None:
    for name, text in (("fine", "a = 1\nb = 2\n"), ("mine", code), ("later", "c = 3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: d\n---\nDo it.")
        (tmp_path / name / "helpers.py").write_text(text)
    rlm = create_rlm(
        script("FINAL(1)"), sandbox=sandbox, strategies=[tmp_path / "fine", tmp_path / "mine", tmp_path]
    )
    with pytest.raises(ConfigurationError, match=rf"(?s)'mine' \(helpers.py\) fail in line {line}: .*{fault}"):
        rlm.invoke("q")


@pytest.mark.parametrize(
    "code", ["def llm_query(x): ...", "x = 1\nFINAL = print", "import json as context", "class budget: ..."]
)
def test_helpers_that_would_replace_a_function_of_the_repl_are_refused(code: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'mine' define '\w+' in line \d, a name that"):
        create_rlm(script("FINAL(1)"), strategies=Strategy("mine", "d", "g", code)).invoke("q")


def test_helpers_that_are_no_python_are_named_with_strategy_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "SKILL.md").write_text("---\nname: mine\ndescription: d\n---\nGo.\n")
    (tmp_path / "helpers.py").write_text("def f():\n    return 1\ndef g(:\n")
    with pytest.raises(ConfigurationError, match=r"'mine'.*helpers.py.*line 3"):
        create_rlm(MODEL, strategies=tmp_path).graph  # noqa: B018 - builds it
