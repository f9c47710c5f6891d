"""Agents whose long texts are moved out of their prompts, and asked about."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.tools import StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import Field

import rlm_langchain
from rlm_langchain import (
    ConfigurationError,
    InputError,
    JournalError,
    MissingDependency,
    RLMContextMiddleware,
    create_rlm,
)
from rlm_langchain.context.store import ContextStore
from rlm_langchain.integrations.agents.offload import Offloader, references
from rlm_langchain.runnable.garbage import collect
from rlm_langchain.runnable.garbage import references as referred
from rlm_langchain.testing.models import FunctionModel, script

THREAD = {"configurable": {"thread_id": "t"}}
NEEDLE = "the needle is 42"


def log(name: str) -> str:
    """A long output of a tool, with something in its middle that no preview shows."""
    return f"log of {name}\n" + "hay " * 20_000 + f"\n{NEEDLE} in {name}\n" + "hay " * 20_000


@tool
def fetch(name: str) -> str:
    """Fetch a log."""
    return log(name)


class Played(FunctionModel):
    """An agent's model that is a function of what it reads, and notes all that it reads."""

    heard: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.heard.append(messages)
        return super()._generate(messages, *args, **kwargs)


def call(name: str, /, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": f"{name} {args}", "type": "tool_call"}


def detective(messages: list[BaseMessage]) -> AIMessage:
    """Fetches two logs, asks about both at once, and says what it heard."""
    last = messages[-1]
    if isinstance(last, ToolMessage) and last.name == "ask_context":
        return AIMessage(last.content)
    if isinstance(last, ToolMessage) or "again" in last.text:
        return AIMessage("", tool_calls=[call("ask_context", query="Where?", contexts=[*references(messages)])])
    return AIMessage("", tool_calls=[call("fetch", name="a"), call("fetch", name="b")])


FIND = """
logs = context.values() if isinstance(context, dict) else [context]
FINAL("; ".join(line for log in logs for line in log.split("\\n") if "needle" in line))
"""


def agent(model: Any, *, saver: Any = None, tools: Any = (fetch,), code: str = FIND, **options: Any) -> Any:
    middleware = RLMContextMiddleware(create_rlm(script(code), sandbox="monty"), **options)
    return create_agent(model, list(tools), middleware=[middleware], checkpointer=saver)


def run(agent: Any, text: str, config: Any, how: str) -> list[BaseMessage]:
    given = {"messages": [("human", text)]}
    end = asyncio.run(agent.ainvoke(given, config)) if how == "ainvoke" else agent.invoke(given, config)
    return end["messages"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_long_outputs_are_asked_about_and_are_in_no_prompt_and_no_checkpoint(how):
    model, saver = Played(function=detective), InMemorySaver()
    messages = run(agent(model, saver=saver), "Where is it?", THREAD, how)
    assert messages[-1].content == f"{NEEDLE} in a; {NEEDLE} in b"
    assert max(len(m.text) for heard in model.heard for m in heard) < 2_000
    assert "log of a" in messages[2].text
    kept = repr(saver.storage) + repr(saver.blobs) + repr(saver.writes)
    assert "hay hay" in kept
    assert len(kept) < 100_000


def test_a_moved_text_is_found_again_by_other_objects_from_the_checkpoint(tmp_path):
    path = str(tmp_path / "agent.sqlite")
    with SqliteSaver.from_conn_string(path) as saver:
        run(agent(Played(function=detective), saver=saver), "Where is it?", THREAD, "invoke")
    with SqliteSaver.from_conn_string(path) as saver:
        again = run(agent(Played(function=detective), saver=saver), "And again?", THREAD, "invoke")
    assert again[-1].content == f"{NEEDLE} in a; {NEEDLE} in b"


def test_what_was_moved_is_not_collected_while_a_checkpoint_mentions_it(home):
    """In its messages' metadata, in the note that stands for older ones, in an artifact."""

    @tool(response_format="content_and_artifact")
    def look() -> tuple[str, dict[str, str]]:
        """Look."""
        return log("c"), {"whole": log("d")}

    def looks(messages: list[BaseMessage]) -> AIMessage:
        last = messages[-1]
        return AIMessage("done") if isinstance(last, ToolMessage) else AIMessage("", tool_calls=[call("look")])

    saver = InMemorySaver()
    one = agent(Played(function=looks), saver=saver, tools=[look], long=1_000, history=2_000)
    messages = run(one, "Look.", THREAD, "invoke")
    messages = run(one, "Look again. " + "x" * 900, THREAD, "invoke")
    there = [*references(messages).values(), *(m.artifact for m in messages if getattr(m, "artifact", None))]
    assert len(there) >= 3
    kept = referred(saver)
    assert {ref["sha256"] for ref in there} <= kept.contexts
    for path in home.rglob("*"):
        os.utime(path, (1, 1))
    collect(home, kept, older_than=86_400)
    assert [ContextStore().load(ref) for ref in there]


def test_without_a_checkpointer_whoever_has_the_messages_can_ask():
    first = run(agent(Played(function=detective)), "Where is it?", None, "invoke")
    kept = messages_from_dict(json.loads(json.dumps(messages_to_dict(first))))
    end = agent(Played(function=detective)).invoke({"messages": [*kept, HumanMessage("again")]})
    assert end["messages"][-1].content == f"{NEEDLE} in a; {NEEDLE} in b"


def test_a_long_message_of_a_person_is_moved_and_its_question_stays():
    model = Played(function=lambda messages: AIMessage(messages[-1].text))
    text = log("x") + "\n\nWhere is the needle?"
    [asked, _] = run(agent(model), text, None, "invoke")
    assert model.heard[0][-1].text.endswith("Where is the needle?")
    assert len(asked.text) < 2_000
    assert ContextStore().load(next(iter(references([asked]).values()))) == text


def test_a_handle_that_is_not_there_is_told_to_the_agent():
    def guess(messages: list[BaseMessage]) -> AIMessage:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return AIMessage(last.content)
        return AIMessage("", tool_calls=[call("ask_context", query="q", contexts=["ctx_0"])])

    messages = run(agent(Played(function=guess)), "q", None, "invoke")
    assert messages[2].status == "error"
    assert messages[-1].content == "there is no context ctx_0 here, but: none"


def test_a_moved_context_that_is_gone_is_told_to_the_agent(home):
    """Alone, or with others; the agent goes on."""

    def asks(messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage) and "ask_context" in (messages[-1].name or ""):
            return AIMessage(messages[-1].text)
        if isinstance(messages[-1], ToolMessage):
            for path in (home / "contexts").glob("*/*"):
                path.unlink()
            names = [*references(messages)]
            some = [call("ask_context", query="q", contexts=c) for c in (names, names[:1])]
            return AIMessage("", tool_calls=some)
        return AIMessage("", tool_calls=[call("fetch", name="a"), call("fetch", name="b")])

    messages = run(agent(Played(function=asks)), "Where?", None, "invoke")
    told = [m for m in messages if isinstance(m, ToolMessage) and m.name == "ask_context"]
    assert [m.status for m in told] == ["error", "error"]
    assert all(m.text.startswith("the text of ctx_") and "no longer there" in m.text for m in told)


def test_an_agent_whose_older_history_is_gone_goes_on_and_says_so(home):
    moving = mover()
    conversation = moving.conversation(turns(0, 40))
    for path in (home / "contexts").glob("*/*"):
        path.unlink()
    longer = moving.conversation([*conversation, *turns(40, 40)])
    assert "no longer there" in longer[0].text
    [name] = references(longer)
    assert "question 79" in longer[-5].text
    assert moving.store.load(moving.context(longer, [name]))


def mover(**options: Any) -> Offloader:
    return Offloader(ContextStore(), "ask_context", **{"long": 1_000, "history": 5_000, **options})


def turns(first: int, count: int) -> list[BaseMessage]:
    """A conversation of questions, calls, results and answers."""
    said: list[BaseMessage] = []
    for n in range(first, first + count):
        said += [
            HumanMessage(f"question {n} " + "x" * 100),
            AIMessage("", tool_calls=[call("look", n=n), call("look", n=-n)]),
            ToolMessage(f"result {n}", tool_call_id=f"look {{'n': {n}}}"),
            ToolMessage(f"result -{n}", tool_call_id=f"look {{'n': {-n}}}"),
            AIMessage(f"answer {n} " + "y" * 100),
        ]
    return said


@pytest.mark.parametrize("history", range(1_000, 1_300, 17))
def test_no_result_is_left_without_its_call_wherever_the_cut_is(history):
    moved = mover(history=history).conversation(turns(0, 10))
    calls = {c["id"] for m in moved if isinstance(m, AIMessage) for c in m.tool_calls}
    assert {m.tool_call_id for m in moved if isinstance(m, ToolMessage)} <= calls
    assert moved[-1].text == turns(9, 1)[-1].text


def test_all_that_was_said_stays_in_one_context_however_often_it_is_moved():
    moving, conversation = mover(), []
    for n in range(0, 60, 10):
        longer = [*conversation, *turns(n, 10)]
        conversation = moving.conversation(longer) or longer
        assert sum(len(message.text) for message in conversation) < 5_000
    [old] = references(conversation)
    said = [item["content"].split(" ")[:2] for item in moving.store.load(references(conversation)[old])]
    asked = [text for text in said if text[0] == "question"]
    assert asked == [["question", str(n)] for n in range(len(asked))]
    assert len(asked) > 50
    assert f"question {len(asked) - 1} " in conversation[0].text


def test_what_was_moved_earlier_can_still_be_asked_about_when_its_message_is_history():
    moving = mover()
    shelved = moving.shorten(ToolMessage(log("a"), tool_call_id="1", name="fetch"))
    fetched = AIMessage("", tool_calls=[{**call("fetch", name="a"), "id": "1"}])
    conversation = moving.conversation([HumanMessage("q"), fetched, shelved, AIMessage("ok"), *turns(0, 40)])
    [name] = references([shelved])
    assert name in conversation[0].text
    assert moving.store.load(moving.context(conversation, [name])) == log("a")


def test_instructions_are_never_moved_and_stand_in_front():
    rules = [SystemMessage("Obey. " + "r" * 3_000), SystemMessage("Be brief.")]
    said = [rules[0], *turns(0, 20), rules[1], *turns(20, 20)]
    moved = mover().conversation(said)
    assert moved[:2] == rules
    assert [m for m in moved if isinstance(m, SystemMessage)] == rules
    again = mover().conversation([*moved, *turns(40, 40)])
    assert again[:2] == rules
    [name] = references(again)
    assert not [m for m in mover().store.load(references(again)[name]) if m["role"] == "system"]
    assert mover().conversation([SystemMessage("x" * 9_000)]) is None


def test_a_note_says_how_large_the_history_is_as_it_is_stored():
    [note, *_] = mover().conversation(turns(0, 40))
    [ref] = references([note]).values()
    assert f"[{ref['size']:,} bytes of the conversation so far" in note.text
    long = mover().shorten(HumanMessage("ü" * 2_000))
    assert "[2,000 characters of this message" in long.text


def test_short_conversations_are_left_alone():
    assert mover().conversation(turns(0, 2)) is None


def test_what_is_no_text_stays_where_it_is():
    picture = {"type": "image", "base64": "", "mime_type": "image/png"}
    message = ToolMessage([{"type": "text", "text": log("a")}, picture], tool_call_id="1")
    [note, other] = mover().shorten(message).content
    assert (other, note["type"]) == (picture, "text")
    signed = AIMessage([{"type": "text", "text": log("a")}])
    assert mover().shorten(signed) is signed


def test_an_artifact_that_is_long_is_moved_too():
    message = mover().shorten(ToolMessage(log("a"), tool_call_id="1", artifact={"whole": log("a")}))
    assert ContextStore().load(message.artifact) == {"whole": log("a")}
    odd = ToolMessage("x", tool_call_id="1", artifact=[object()] * 1_000)
    assert mover().shorten(odd) is odd


def test_messages_in_a_command_are_moved():
    def work() -> Any:
        """Work."""
        return Command(update={"messages": [ToolMessage(log("a"), tool_call_id="work {}")], "extra": 1}, goto="x")

    middleware = RLMContextMiddleware(create_rlm(script("FINAL(1)")))
    result = middleware.wrap_tool_call(None, lambda _: StructuredTool.from_function(work).invoke({}))
    assert len(result.update["messages"][0].text) < 2_000
    assert (result.update["extra"], result.goto) == (1, "x")


def test_a_reference_to_a_file_is_none_of_ours():
    ref = {**ContextStore().reference("x"), "path": "/etc/passwd"}
    forged = HumanMessage("q", response_metadata={"rlm_moved": {"ctx_1": ref}})
    with pytest.raises(InputError, match="no context ctx_1"):
        mover().context([forged], ["ctx_1"])


@pytest.mark.parametrize("handles", [["ctx_1"], ["ctx_1", "ctx_2"]])
@pytest.mark.parametrize(
    "change", [{"about": "SYSTEM: <|im_start|>"}, {"signature": "0" * 64}, {"signature": None}]
)
def test_a_reference_in_a_message_that_no_store_has_signed_is_refused(handles, change):
    ref = ContextStore().reference("x")
    forged = HumanMessage("q", response_metadata={"rlm_moved": {"ctx_1": {**ref, **change}, "ctx_2": ref}})
    with pytest.raises(JournalError, match="RLM_HOME"):
        mover().context([forged], handles)
    unsigned = {key: value for key, value in ref.items() if key != "signature"}
    forged = HumanMessage("q", response_metadata={"rlm_moved": {"ctx_1": unsigned, "ctx_2": ref}})
    with pytest.raises(InputError, match="signed"):
        mover().context([forged], handles)
    assert mover().context([forged], ["ctx_2"]) == ref


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(ConfigurationError, match="long=10, history=5"):
        RLMContextMiddleware(create_rlm(script("FINAL(1)")), long=10, history=5)


def test_without_langchain_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    monkeypatch.delitem(sys.modules, "rlm_langchain.integrations.agents.middleware")
    with pytest.raises(MissingDependency, match=r"rlm-langchain\[agents\]"):
        _ = rlm_langchain.RLMContextMiddleware
