"""The RLM as a chat model."""

from __future__ import annotations

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from rlm_langchain import ChatRLM, ConfigurationError, InputError, create_rlm
from rlm_langchain.chat_model import question
from rlm_langchain.testing import script

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
        return False  # an RLM calls its tools itself: its replies hold no tool calls

    @property
    def has_structured_output(self) -> bool:
        return True


def chat(*cells: str) -> ChatRLM:
    return ChatRLM(rlm=create_rlm(script(*cells)))


def test_a_long_message_is_the_context_and_the_last_short_one_the_question():
    messages = [HumanMessage(LONG), AIMessage("I have read it."), HumanMessage("How many words?")]
    asked = question(messages, 4000)
    assert asked.query == "How many words?"
    assert [part["role"] for part in asked.context] == ["human", "ai"]


@pytest.mark.parametrize("text", [f"How long is it?\n\n{LONG}", f"{LONG}\n\nHow long is it?"])
def test_a_question_and_its_text_in_one_message_are_taken_apart(text):
    asked = question([SystemMessage("Be brief."), HumanMessage(text)], 4000)
    assert asked.query == "Be brief.\n\nHow long is it?"
    assert asked.context.strip() == LONG.strip()


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


async def test_it_answers_asynchronously_and_streams():
    model = chat("FINAL('done')")
    assert (await model.ainvoke("q")).content == "done"
    assert "".join([part.content async for part in model.astream("q")]) == "done"


def test_stop_words_cut_the_reply():
    assert chat("FINAL('one two three')").invoke("q", stop=["two"]).content == "one "


def test_bound_tools_are_functions_of_the_repl():
    def double(n: int) -> int:
        """Twice a number."""
        return n * 2

    assert chat("FINAL(str(double(21)))").bind_tools([double]).invoke("q").content == "42"
    with pytest.raises(ConfigurationError, match="schemas"):
        chat("FINAL(1)").bind_tools([{"type": "function"}])


def test_structured_output_is_an_instance():
    class Count(BaseModel):
        n: int

    model = chat("FINAL({'n': len(context)})").with_structured_output(Count)
    assert model.invoke([HumanMessage(LONG), HumanMessage("How long?")]) == Count(n=len(LONG))
