"""What users get wrong is told in a sentence that says what to do, and harms nothing of theirs."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.utils import ConfigurableFieldSingleOption
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from rlm_langchain import (
    Budget,
    ChatRLM,
    ConfigurationError,
    InputError,
    Price,
    RLMContextMiddleware,
    RLMRetriever,
    RLMRunnable,
    ThreadBusy,
    UnknownPlugin,
    create_hybrid_rlm,
    create_rlm,
    create_rlm_graph,
    rlm_tool,
)
from rlm_langchain.integrations.hybrid import HybridRLM
from rlm_langchain.integrations.mcp_server import create_mcp_server
from rlm_langchain.runnable.create import RLMOptions
from rlm_langchain.testing.models import script
from rlm_langchain.trajectory.jsonl import Trace, read_trace, write_trace

MODEL = script("FINAL(1)")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bugdet": Budget()}, "no option 'bugdet'; did you mean 'budget'"),
        ({"qqq": 5}, "no option 'qqq'; there are .*checkpointer.*output_schema"),
        ({"budget": -1}, "budget=-1 cannot be used"),
        ({"strategies": 5}, "strategies=5 cannot be used"),
    ],
)
def test_an_option_that_cannot_be_is_told_in_a_sentence(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        create_rlm(MODEL, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strategies": "qqq"}, "no strategy is called 'qqq'"),
        ({"prices": {"other": Price(input=1, output=1)}}, r"prices for \['other'\]"),
    ],
)
def test_what_cannot_be_made_of_options_is_told_before_anything_is_asked(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_rlm(MODEL, **options).invoke("q")


@pytest.mark.parametrize(
    "options",
    [{"strategies": "grpe"}, {"strategies": ["grep", "grpe"]}, {"sandbox": "docker"}, {"functions": ["grpe"]}],
    ids=str,
)
def test_a_plug_in_that_is_not_installed_is_an_error_of_its_own(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownPlugin, match=r"is called '(grpe|docker)'; installed: ") as raised:
        create_rlm(MODEL, **options).invoke("q")
    assert raised.value.name in ("grpe", "docker")


@pytest.mark.parametrize("wrong", [{"calls": "a"}, {"calls": 1.5}, {"usd": "0.5"}, {"depth": None, "tokens": "1"}])
def test_a_limit_is_a_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a (whole )?number"):
        Budget(**wrong)


def test_a_misspelt_key_of_the_input_is_told_before_anything_is_paid() -> None:
    with pytest.raises(InputError, match="no 'context', but 'contxt'"):
        create_rlm(MODEL, sandbox="monty").invoke({"query": "q", "contxt": "text"})  # type: ignore[typeddict-item]
    more: Any = {"query": "q", "context": "text", "language": "en"}
    assert create_rlm(MODEL, sandbox="monty").invoke(more)["answer"] == 1, "other keys may be for other steps"


@pytest.mark.parametrize("kind", ["image_url", "image", "file", "input_audio"])
def test_a_question_with_a_picture_is_refused_wherever_it_comes_from(kind: str) -> None:
    message = HumanMessage([{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:,x"}}])
    rlm = create_rlm(MODEL, sandbox="monty")
    node = StateGraph(MessagesState).add_node("ask", rlm.as_node(query="messages", answer="messages"))
    chain = ChatPromptTemplate.from_messages([MessagesPlaceholder("asked")]) | rlm
    for ask, given in (
        (rlm, [message]),
        (rlm, {"messages": [message]}),
        (chain, {"asked": [message]}),
        (node.add_edge(START, "ask").compile(), {"messages": [message]}),
        (ChatRLM(rlm), [message]),
    ):
        with pytest.raises(InputError, match=f"a part of type '{kind}', and an RLM reads text"):
            ask.invoke(given)  # type: ignore[attr-defined]


def test_a_text_that_names_a_file_is_asked_about_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("all of it")
    name = str(tmp_path / "notes.txt")
    rlm = create_rlm(script("FINAL(len(context))"), sandbox="monty")
    with pytest.warns(UserWarning, match=r"for the file, give Path\("):
        assert rlm.completion("q", name)["answer"] == len(name)
    assert rlm.completion("q", Path(name))["answer"] == len("all of it")
    for texts in ([name, name], {"a": name}):
        with pytest.warns(UserWarning, match=rf"holds the text '{name}': for the file, give Path\("):
            assert rlm.completion("q", texts)["answer"] == len(texts)
    assert rlm.completion("q", [name, "and more"])["answer"] == 2
    with pytest.warns(UserWarning, match="the corpus is the text"):
        RLMRetriever(corpus=name)
    with pytest.warns(UserWarning, match="the context is the text"):
        rlm_tool(rlm, name)


def test_a_trace_takes_the_place_of_a_trace_only(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("precious\n")
    with pytest.raises(InputError, match="not a record of a trajectory"):
        Trace(path)
    assert path.read_text() == "precious\n"


def test_an_earlier_trace_is_kept_until_there_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    write_trace(path, create_rlm(MODEL, sandbox="monty").invoke("q")["trajectory"])
    before = read_trace(path)
    Trace(path).close()
    assert read_trace(path) == before
    write_trace(path, before[:1])
    assert read_trace(path) == before[:1]


def test_a_typed_run_that_failed_has_no_answer_of_another_type() -> None:
    rlm = create_rlm(
        script("x = 1\nprint(x)"), sandbox="monty", budget=Budget(calls=1), output_schema={"type": "array"}
    )
    output = rlm.invoke("q")
    assert (output["status"], output["answer"]) == ("failed", None)


def test_an_answer_is_not_lost_when_there_is_no_folder_to_keep_anything_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rlm = create_rlm(MODEL, home=tmp_path / "file")
    assert rlm.invoke("q")["answer"] == 1


def bare(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"root_model": None}, "a model is a name or a LangChain chat model, not NoneType"),
        ({"root_model": "gpt"}, "'gpt' is not a valid model name"),
        ({"root_model": "locl"}, "did you mean local"),
        ({"root_model": "OpenAI:gpt-4o"}, "did you mean openai:gpt-4o"),
        ({"recursive_model": 5}, "not int"),
        ({"recursive_model": []}, "names no model: leave it out"),
        ({"recursive_model": ["a/b", "gpt"]}, "'gpt' is not a valid model name"),
        ({"recursive_model": "openai: gpt-4o"}, "did you mean openai:gpt-4o"),
        ({"tools": ["x"]}, "a tool is a LangChain tool or a function, not str"),
        ({"tools": [bare]}, "'bare' cannot be a tool: it needs a docstring"),
        ({"sub_tools": [lambda: 1]}, "cannot be a tool"),
        ({"citations": "yes"}, "citations='yes' cannot be used"),
        ({"memo": 1}, "memo=1 cannot be used"),
        ({"sandbox": 5}, "sandbox=5 cannot be used"),
        ({"sandbox": None}, "sandbox=None cannot be used"),
        ({"sandbox": "cpyhton"}, "no sandbox is called 'cpyhton'; installed: cpython, monty"),
        ({"sandbox": "docker"}, "no sandbox is called 'docker'; installed: cpython, monty"),
        ({"checkpointer": "sqlite"}, "checkpointer='sqlite' cannot be used"),
        ({"checkpointer": object}, "checkpointer=<class 'object'> cannot be used"),
        ({"output_schema": 5}, "output_schema is 5"),
        ({"output_schema": len}, "output_schema is <built-in function len>"),
        ({"retriever": 5}, "retriever is 5"),
        ({"retriever": "bm52"}, "retriever is 'bm52'; give 'bm25'"),
        ({"on_budget": "stop"}, "on_budget='stop' cannot be used"),
    ],
)
def test_what_is_no_option_at_sight_is_told_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_rlm(**{"root_model": MODEL, **options})


@pytest.mark.parametrize("options", [{"sandbox": "docker"}, {"citations": "yes"}, {"bugdet": 1}])
@pytest.mark.parametrize(
    "make",
    [
        RLMRunnable,
        create_rlm,
        create_rlm_graph,
        lambda model, **options: create_hybrid_rlm(RLMRetriever(corpus="text"), model, **options),
    ],
    ids=["RLMRunnable", "create_rlm", "create_rlm_graph", "create_hybrid_rlm"],
)
def test_every_way_to_make_an_rlm_checks_its_options(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"docker|citations|'bugdet'; did you mean 'budget'") as raised:
        make(MODEL, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["name", None, 5, {"root_model": "local"}, RLMRunnable], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda rlm: ChatRLM(rlm=rlm),
        lambda rlm: rlm_tool(rlm, "text"),
        RLMContextMiddleware,
        create_mcp_server,
        lambda rlm: HybridRLM(RLMRetriever(corpus="text"), rlm),
    ],
    ids=["ChatRLM", "rlm_tool", "RLMContextMiddleware", "create_mcp_server", "HybridRLM"],
)
def test_what_wants_an_rlm_is_given_one(make: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used: give an RLM") as raised:
        make(given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"logn": 5}, "no option 'logn'; did you mean 'long'"),
        ({"long": 0}, "long=0 cannot be used"),
        ({"tools_in": "rpel"}, "tools_in='rpel' cannot be used"),
        ({"tags": 5}, "tags=5 cannot be used"),
    ],
)
def test_a_chat_model_checks_its_options(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ChatRLM(create_rlm(MODEL), **options)


@pytest.mark.parametrize("sizes", [{"long": "a"}, {"long": 0}, {"long": 5, "history": 4}, {"history": 1e6}])
def test_the_middleware_checks_its_sizes(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="whole numbers above 0"):
        RLMContextMiddleware(create_rlm(MODEL), **sizes)


FIELDS = {field.alias or name: field for name, field in RLMRunnable.model_fields.items()}
MAKERS: list[Callable[..., Any]] = [RLMRunnable.__init__, create_rlm, create_rlm_graph]


@pytest.mark.parametrize("make", MAKERS)
def test_the_keywords_that_make_an_rlm_are_its_fields(make: Callable[..., Any]) -> None:
    keywords = {name: one for name, one in inspect.signature(make).parameters.items() if name != "self"}
    assert set(keywords) == set(FIELDS)
    for name, keyword in keywords.items():
        default = FIELDS[name].get_default()
        assert keyword.default == (keyword.empty if name == "root_model" else default), name
        assert keyword.kind == (keyword.POSITIONAL_OR_KEYWORD if name == "root_model" else keyword.KEYWORD_ONLY)


def test_a_hybrid_rlm_takes_all_options_but_the_two_that_it_has() -> None:
    assert set(RLMOptions.__annotations__) == set(FIELDS) - {"root_model", "retriever"}


@pytest.mark.parametrize("make", [create_rlm, RLMRunnable])
@pytest.mark.parametrize("name", FIELDS)
def test_help_says_what_each_option_means(make: Any, name: str) -> None:
    shown = " ".join(pydoc.render_doc(make, renderer=pydoc.plaintext).replace("|", " ").split())
    told = " ".join((FIELDS[name].description or "").replace("|", " ").split())
    assert len(told) > 30, "an attribute docstring"
    assert f"{name}: {told}" in shown


def test_every_option_of_the_integrations_is_described() -> None:
    for model in (ChatRLM, HybridRLM):
        own = model.__annotations__.keys() & model.model_fields.keys()
        assert own
        assert [name for name in own if not model.model_fields[name].description] == []


def test_a_stream_mode_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"no stream mode 'tokens'; there are .*custom"):
        list(create_rlm(MODEL, sandbox="monty").stream("q", stream_mode=["custom", "tokens"]))


def test_a_fork_needs_something_to_go_back_in() -> None:
    with pytest.raises(ConfigurationError, match="a fork needs a checkpointer"):
        create_rlm(MODEL).fork({"configurable": {"thread_id": "a"}})


async def _gather(parts: Any) -> list[Any]:
    return [part async for part in parts]


CALLS: dict[str, Callable[..., Any]] = {
    "invoke": lambda rlm, **more: rlm.invoke("q", **more),
    "ainvoke": lambda rlm, **more: asyncio.run(rlm.ainvoke("q", **more)),
    "stream": lambda rlm, **more: [*rlm.stream("q", **more)],
    "astream": lambda rlm, **more: asyncio.run(_gather(rlm.astream("q", **more))),
    "stream of events": lambda rlm, **more: [*rlm.stream("q", stream_mode="custom", **more)],
    "batch": lambda rlm, **more: rlm.batch(["q"], **more),
    "batch, errors returned": lambda rlm, **more: rlm.batch(["q"], return_exceptions=True, **more),
    "abatch": lambda rlm, **more: asyncio.run(rlm.abatch(["q"], **more)),
    "batch_as_completed": lambda rlm, **more: [*rlm.batch_as_completed(["q"], **more)],
    "completion": lambda rlm, **more: rlm.completion("q", "text", **more),
    "bind": lambda rlm, **more: rlm.bind(**more),
    "a chain": lambda rlm, **more: (rlm | RunnableLambda(lambda output: output)).invoke("q", **more),
    "transform": lambda rlm, **more: [*rlm.transform(iter(["q"]), **more)],
}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"budget": Budget(calls=3)},
            r"no 'budget': give it to create_rlm\(budget=...\).*configurable_fields\(budget=",
        ),
        ({"output_schema": int}, r"create_rlm\(output_schema=...\).*configurable_fields\(answer_schema="),
        ({"bugdet": 3}, "no option 'bugdet'; did you mean 'budget'"),
        ({"max_concurency": 1}, "did you mean 'max_concurrency'"),
        ({"max_concurrency": 1}, r"in its config: config=\{'max_concurrency'"),
    ],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_takes_no_option_of_an_rlm(call: Callable[..., Any], more: dict[str, Any], told: str) -> None:
    rlm = create_rlm(MODEL, sandbox="monty")
    with pytest.raises(ConfigurationError, match=told):
        call(rlm, **more)


def test_a_context_beside_the_question_is_told() -> None:
    with pytest.raises(ConfigurationError, match="give it with the question"):
        create_rlm(MODEL, sandbox="monty").invoke("q", context="text")


@pytest.mark.parametrize(
    "named", [{"budget": Budget(calls=3)}, {"limits": None}, {"sandbox": "cpython"}, {"output_schema": int}]
)
def test_an_option_that_is_not_left_to_calls_cannot_be_set_by_a_config(named: dict[str, Any]) -> None:
    rlm = create_rlm(MODEL, sandbox="monty")
    told = f"does not leave {next(iter(named))!r} to its calls"
    for ask in (
        lambda: rlm.with_config(configurable=named),
        lambda: rlm.with_config(**named),
        lambda: rlm.invoke("q", {"configurable": named}),
        lambda: rlm.batch(["q"], {"configurable": named}),
        lambda: rlm.invoke("q", cast(Any, {name: value or 1 for name, value in named.items()})),
    ):
        with pytest.raises(ConfigurationError, match=told):
            ask()


def test_an_option_that_is_left_to_calls_may_have_any_name_and_other_steps_may_have_it_too() -> None:
    left = create_rlm(MODEL, sandbox="monty").configurable_fields(
        budget=ConfigurableFieldSingleOption(id="limits", options={"few": Budget(calls=3)}, default="few")
    )
    chain = left | RunnableLambda(lambda output: str(output["answer"])) | create_rlm(MODEL, sandbox="monty")
    assert chain.with_config(configurable={"limits": "few"}).invoke("q")["answer"] == 1
    assert left.invoke("q", {"configurable": {"limits": "few", "budget": 3, "user": "a"}})["answer"] == 1


@pytest.mark.parametrize(
    "given",
    [
        [("human", "hi")],
        ("human", "hi"),
        [{"role": "user", "content": "hi"}],
        {"messages": [("human", "hi")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "remaining_steps": 3},
        {"messages": [HumanMessage("hi")], "context": "text"},
        ["hi"],
    ],
    ids=str,
)
def test_what_langchain_takes_for_messages_is_a_question(given: Any) -> None:
    output = create_rlm(MODEL, sandbox="monty").invoke(given)
    assert output["trajectory"][0]["query"] == "hi"
    is_told = isinstance(given, dict) and "context" in given
    assert bool(output["trajectory"][0].get("context")) == is_told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"query": 3}, "the query is an int"),
        ({"query": None}, "the query is None"),
        ({"query": ["q"]}, "the query is a list"),
        ({"question": "q"}, "there is no 'query'; you gave 'question'"),
        ({"input": "q", "context": "text"}, "there is no 'query'; you gave 'input', 'context'"),
        ({}, "there is no 'query'; you gave an empty dict"),
        (3, "the query is an int"),
        ([], "the query is a list"),
        ([3], "these are no messages"),
        ([("wizard", "hi")], "these are no messages"),
    ],
    ids=str,
)
def test_what_is_no_question_is_told_with_what_was_given(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        create_rlm(MODEL, sandbox="monty").invoke(given)


def test_a_resume_without_a_checkpointer_names_it() -> None:
    with pytest.raises(InputError, match=r"without a checkpointer no run is kept.*create_rlm\(..., checkpointer="):
        create_rlm(MODEL, sandbox="monty").invoke(None)


def test_a_thread_that_this_process_works_on_is_named_as_its_user_names_it() -> None:
    rlm, config = (
        create_rlm(MODEL, sandbox="monty", checkpointer=InMemorySaver()),
        {"configurable": {"thread_id": "mine"}},
    )
    with closing(cast(Any, rlm.stream("q", config, stream_mode="custom"))) as parts:
        next(parts)
        with pytest.raises(ThreadBusy, match=r"^another call in this process works on the thread 'mine' \("):
            rlm.invoke("q", config)
