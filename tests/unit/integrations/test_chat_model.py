"""The RLM as a chat model."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import InjectedToolCallId, tool
from langchain_tests.unit_tests import ChatModelUnitTests
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from rlm_langchain import (
    Budget,
    ChatRLM,
    ConfigurationError,
    InputError,
    NoAnswer,
    create_rlm,
)
from rlm_langchain.integrations.chat_model.chat_model import PROVIDERS_OPTIONS
from rlm_langchain.integrations.chat_model.per_call import RLMCache
from rlm_langchain.integrations.chat_model.question import question
from rlm_langchain.integrations.chat_model.tools import bound_tools
from rlm_langchain.testing.models import script

ANSWER = "An answer that is long enough to come in several pieces,\n\nof which none is lost and none is doubled."
LONG = "word " * 2000


class TestStandard(ChatModelUnitTests):
    """LangChain's own suite for chat models."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatRLM

    @property
    def chat_model_params(self) -> dict:
        return {"rlm": create_rlm(script("FINAL('hello')"))}

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True


def chat(*cells: str) -> ChatRLM:
    return ChatRLM(rlm=create_rlm(script(*cells), sandbox="monty"))


def test_a_long_message_is_the_context_and_the_last_short_one_the_question():
    messages = [HumanMessage(LONG), AIMessage("I have read it."), HumanMessage("How many words?")]
    asked = question(messages, 4000)
    assert asked.query == "How many words?"
    assert asked.context == messages[:2]


@pytest.mark.parametrize("text", [f"How long is it?\n\n{LONG}", f"{LONG}\n\nHow long is it?"])
def test_a_question_and_its_text_in_one_message_are_taken_apart(text):
    asked = question([SystemMessage("Be brief."), HumanMessage(text)], 4000)
    assert asked.query == "Be brief.\n\nHow long is it?"
    assert asked.context.strip() == LONG.strip()


def test_what_a_conversation_held_before_is_read_in_order_calls_and_results_too():
    call = {"name": "look", "args": {"at": "sky"}, "id": "1", "type": "tool_call"}
    messages = [
        HumanMessage("My name is Bob."),
        AIMessage("Hello."),
        HumanMessage(f"What is the weather?\n\n{LONG}"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("sunny", tool_call_id="1"),
    ]
    code = "FINAL([(m['role'], m['content'][:5], m.get('tool_calls')) for m in context])"
    told = json.loads(chat(code).invoke(messages).content)
    assert [role for role, *_ in told] == ["user", "assistant", "user", "assistant", "tool"]
    assert told[2][1] == "word "
    assert told[3][2] == [{"name": "look", "args": {"at": "sky"}}]


def test_a_picture_is_refused_not_overlooked():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    with pytest.raises(InputError, match="reads text"):
        question([HumanMessage([{"type": "text", "text": "What is this?"}, picture])], 4000)


def test_nobody_asking_is_an_error():
    with pytest.raises(InputError):
        question([SystemMessage("x")], 4000)


def test_it_answers_in_a_chain_with_usage():
    model = chat("FINAL(len(context))")
    assert (ChatPromptTemplate.from_template("How long?\n\n{text}") | model | StrOutputParser()).invoke(
        {"text": LONG}
    ) == str(len(LONG))
    reply = model.invoke(f"How long?\n\n{LONG}")
    assert reply.usage_metadata["total_tokens"] > 0
    assert reply.response_metadata["status"] == "complete"


def test_the_usage_is_that_of_the_whole_tree_and_nobody_counts_it_twice():
    model = chat("FINAL(llm_query_batched(['one two', 'three']))")
    with get_usage_metadata_callback() as counted:
        reply = model.invoke("q")
    assert counted.usage_metadata["function"]["total_tokens"] == reply.usage_metadata["total_tokens"]
    assert set(counted.usage_metadata) == {"function", "rlm:function"}


async def test_a_stream_shows_the_work_while_it_happens_and_then_the_answer_in_pieces():
    model = chat("print(llm_query('x'))", f"FINAL({ANSWER!r})")
    for chunks in ([*model.stream("q")], [c async for c in model.astream("q")]):
        first = next(i for i, chunk in enumerate(chunks) if chunk.content)
        thinking = "".join(chunk.additional_kwargs.get("reasoning_content", "") for chunk in chunks[:first])
        assert thinking.index("print(llm_query") < thinking.index("asks 1 model") < thinking.index("<x>")
        assert "".join(chunk.content for chunk in chunks[:first]) == ""
        assert "".join(chunk.content for chunk in chunks) == ANSWER
        assert len(chunks) > first + 3


async def test_a_reply_is_the_sum_of_its_stream():
    model = chat("print(1)", "FINAL('done')")
    replies = [model.invoke("q"), await model.ainvoke("q"), sum_of(model.stream("q"))]
    for reply in replies:
        assert [block["type"] for block in reply.content_blocks] == ["reasoning", "text"]
        assert reply.content_blocks == replies[0].content_blocks
        assert reply.usage_metadata == replies[0].usage_metadata
        assert reply.response_metadata == replies[0].response_metadata


def test_without_reasoning_there_is_the_answer_only():
    model = ChatRLM(rlm=create_rlm(script("print(1)", "FINAL('done')")), reasoning=False)
    assert "reasoning_content" not in model.invoke("q").additional_kwargs
    assert next(model.stream("q")).content == "done"


def test_a_stream_that_is_left_leaves_no_run_alive():
    model = chat("print(1)", "FINAL('done')")
    stream = model.stream("q")
    next(stream)
    stream.close()
    assert not model.rlm.built.components.trees._alive


async def test_a_reply_without_an_answer_says_why_there_is_none():
    model = ChatRLM(create_rlm(script("print(41 + 1)"), sandbox="monty", budget=Budget(iterations=2)))
    for reply in (model.invoke("q"), await model.ainvoke("q"), sum_of(model.stream("q"))):
        assert reply.text.startswith("(no answer: iterations)\nWhat was seen last:\n")
        assert "42" in reply.text
        assert reply.response_metadata["status"] == "failed"


@pytest.mark.parametrize("option", sorted(PROVIDERS_OPTIONS))
def test_an_option_of_providers_is_taken_and_logged_with_where_it_belongs(option, caplog):
    ChatRLM(create_rlm(script("FINAL(1)")), **{option: 0})
    assert f"{option} of a ChatRLM: it changes nothing; set it on the models of the RLM" in caplog.text


def test_stop_words_cut_the_reply():
    assert chat("FINAL('one two three')").invoke("q", stop=["two"]).content == "one "
    always = ChatRLM(rlm=create_rlm(script("FINAL('one two three')")), stop=["three"])
    assert sum_of(always.stream("q")).content == "one two "
    assert always.invoke("q", stop=["two"]).content == "one "


def test_what_is_meant_for_other_models_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="temperature"):
        chat("FINAL(1)").invoke("q", temperature=1.0)


def double(n: int) -> int:
    """Twice a number."""
    return n * 2


class Place(BaseModel):
    """Show a place on the map."""

    name: str


def test_bound_tools_are_functions_of_the_repl():
    assert chat("FINAL(str(double(21)))").bind_tools([double]).invoke("q").content == "42"


@pytest.mark.parametrize("options", [{"tool_choice": "any"}, {"tool_choice": "double"}])
def test_a_tool_that_the_reply_has_to_be_is_handed_back(options):
    code = "FINAL({'tool_calls': [{'name': 'double', 'args': {'n': 21}}]})"
    reply = chat("FINAL('no')", code).bind_tools([double], **options).invoke("q")
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("double", {"n": 21})]
    assert (reply.content, reply.response_metadata["finish_reason"]) == ("", "tool_calls")


def test_a_schema_is_handed_back_and_a_function_is_called_in_the_same_reply():
    code = "FINAL({'tool_calls': [{'name': 'Place', 'args': {'name': str(double(1))}}]})"
    [call] = chat(code).bind_tools([double, Place]).invoke("q").tool_calls
    assert (call["name"], call["args"]) == ("Place", {"name": "2"})
    assert chat("FINAL('just words')").bind_tools([double, Place]).invoke("q").content == "just words"
    assert chat("prose:just words").bind_tools([Place]).invoke("q").content == "just words"


def test_calls_that_do_not_fit_their_schema_are_sent_back():
    bad = "FINAL({'tool_calls': [{'name': 'Place', 'args': {'nme': 'x'}}]})"
    good = bad.replace("nme", "name")
    [call] = chat(bad, good).bind_tools([Place], tool_choice="any").invoke("q").tool_calls
    assert call["args"] == {"name": "x"}


def test_tools_that_only_an_agents_loop_can_run_are_handed_back():
    @tool
    def remember(what: str, call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Remember."""
        return what

    @tool(return_direct=True)
    def show(what: str) -> str:
        """Show."""
        return what

    parts = bound_tools([remember, show, double, Place], None, "repl")
    assert parts.in_repl == (double,)
    assert [function["name"] for function in parts.returned] == ["remember", "show", "Place"]
    assert list(parts.returned[0]["parameters"]["properties"]) == ["what"]
    assert bound_tools([double, show], None, "reply").in_repl == ()
    assert bound_tools([double], "none", "repl") == bound_tools([], None, "repl")


@pytest.mark.parametrize("choice", ["triple", {"type": "function", "function": {"name": "triple"}}, 3])
def test_a_choice_that_names_no_tool_is_an_error(choice):
    with pytest.raises(ConfigurationError, match="tool_choice"):
        chat("FINAL(1)").bind_tools([double], tool_choice=choice)


def test_tools_that_a_provider_runs_are_refused():
    with pytest.raises(ConfigurationError, match="provider"):
        chat("FINAL(1)").bind_tools([{"type": "web_search_preview"}])


class Count(BaseModel):
    n: int = Field(ge=1)


def test_structured_output_is_an_instance_and_what_does_not_fit_is_sent_back():
    model = chat("FINAL({'n': 0})", "FINAL({'n': len(context)})").with_structured_output(Count)
    assert model.invoke([HumanMessage(LONG), HumanMessage("How long?")]) == Count(n=len(LONG))


def test_structured_output_with_its_raw_reply():
    typed = chat("FINAL({'n': 7})").with_structured_output(Count, include_raw=True, method="json_mode")
    whole = typed.invoke("q")
    assert (whole["parsed"], whole["parsing_error"]) == (Count(n=7), None)
    assert json.loads(whole["raw"].content) == {"n": 7}
    assert whole["raw"].usage_metadata["total_tokens"] > 0


def test_structured_output_that_never_came_is_an_error_and_not_a_value():
    model = ChatRLM(rlm=create_rlm(script("print(1)", "prose:no idea"), budget=Budget(iterations=1)))
    whole = model.with_structured_output(Count, include_raw=True).invoke("q")
    assert whole["parsed"] is None
    assert isinstance(whole["parsing_error"], OutputParserException)
    with pytest.raises(OutputParserException) as caught:
        model.with_structured_output(Count).invoke("q")
    assert isinstance(caught.value, NoAnswer)


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "Count", "schema": Count.model_json_schema()}},
    ],
)
def test_the_ways_to_ask_for_json(wanted):
    model = chat("FINAL('seven')", "FINAL({'n': 7})").bind(response_format=wanted)
    assert json.loads(model.invoke("q").content) == {"n": 7}


def test_an_rlm_is_built_once_for_calls_that_are_alike():
    model = chat("FINAL(str(double(21)))")
    bound_model = model.bind_tools([double])
    bound_model.invoke("q")
    bound_model.invoke("q")
    assert len(model._memory) == 1


def sum_of(chunks):
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


async def test_a_checkpointer_of_the_rlm_is_not_used_since_calls_have_no_thread():
    saver = InMemorySaver()
    model = ChatRLM(rlm=create_rlm(script("FINAL('hello')"), sandbox="monty", checkpointer=saver))
    assert (model.invoke("q").text, (await model.ainvoke("q")).text) == ("hello", "hello")
    assert "".join(chunk.text for chunk in model.stream("q")) == "hello"
    assert not saver.storage


def test_a_bound_model_goes_by_the_options_that_its_rlm_has_now():
    model = chat("print(1)", "FINAL(str(double(21)))")
    bound_model = model.bind_tools([double])
    assert bound_model.invoke("q").text == "42"
    model.rlm.budget = Budget(iterations=1)
    assert bound_model.invoke("q").text != "42"


def test_a_call_whose_rlm_another_thread_forgets_has_it_all_the_same():
    class Forgetful(RLMCache):
        def __setitem__(self, key, asked):
            """Another thread has filled the memory since."""

    rlm = create_rlm(script("FINAL('hello')"), sandbox="monty")
    assert Forgetful().asked(rlm, {}, "repl").rlm is rlm
