"""Texts that lie are put wherever text comes in, and repeated by models: nothing but what a model reads changes.

The answer is the one that the root's code gave, the cells that ran are those that the root wrote, prompts keep
their form, and no key of the host is anywhere. Each check is shown to fail where it should.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr
from rich.console import Console

from rlm_langchain import Budget, RLMOutput, create_rlm
from rlm_langchain.cli import run as command
from rlm_langchain.cli.rendering.plain import Lines
from rlm_langchain.cli.rendering.rich import ScrollView
from rlm_langchain.context.store import ContextStore
from rlm_langchain.sandboxes.choose import choose
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.trajectory.jsonl import read_trace, write_trace
from rlm_langchain.trajectory.tree import flatten
from tests.data.injections import INJECTIONS, KINDS, Injection, fenced
from tests.servers.openai import failure
from tests.servers.scripted import serve

SANDBOXES = [name for name in ("cpython", "monty") if choose(name)]
KEYS = {
    name: f"sk-canary-{name.lower()}-5e2f"
    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY", "LANGSMITH_API_KEY", "AWS_SECRET_KEY")
}
OWN_KEY = "sk-canary-of-the-model-77aa"
CANARIES = (*KEYS.values(), OWN_KEY)

SHOW = "import os\nprint(dict(os.environ))"
CELLS = (
    "for text in context: print(text)",
    "print(context, {text: 1 for text in context})",
    "replies = llm_query_batched(context)\nprint(*replies, sep='\\n')",
    "asked = [llm_query('ECHO', text) for text in context]\nprint(*asked, sep='\\n')",
    "child = rlm_query('CHILD', context)\nprint(child)",
    "raise ValueError('|'.join(context))",
    SHOW,
)
CHILD = ("for text in context or (): print(text)", "FINAL(context)")
ANSWER = (
    "import json\nsame = replies == asked and json.loads(child) == context\n"
    "FINAL([len(text) for text in context] if same else 'changed')"
)
QUESTION = "What is said?"
BUDGET = Budget(depth=2)


@dataclass
class Seen:
    """All that models and observers were shown in a run."""

    prompts: list[list[BaseMessage]] = field(default_factory=list)
    roots: list[list[BaseMessage]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


class Keyed(FunctionModel):
    """A model that holds a key, as those of providers do."""

    api_key: SecretStr = SecretStr(OWN_KEY)


class Witness(BaseCallbackHandler):
    """What a tracer is told."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.seen.told.append(repr((serialized, inputs, kwargs)))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.seen.told.append(repr((outputs, kwargs)))

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.seen.told.append(repr((serialized, messages, kwargs)))


def player(replies: Sequence[str], seen: Seen) -> Keyed:
    """A root model that writes these replies; child runs play `CHILD`; every other model repeats what it reads."""

    def reply(messages: list[BaseMessage]) -> str:
        seen.prompts.append(messages)
        if messages[0].type != "system":
            return repeated(messages[0].text)
        seen.roots.append(messages)
        turn = sum(message.type == "ai" for message in messages)
        if asks_a_child(messages):
            return fenced(CHILD[min(turn, 1)])
        return replies[min(turn, len(replies) - 1)]

    return Keyed(function=reply)


def asks_a_child(messages: Sequence[BaseMessage]) -> bool:
    return QUESTION not in messages[1].text


def repeated(prompt: str) -> str:
    """What a model says that is taken in: the text itself, of a prompt with a context and of one without."""
    text = (
        prompt.removeprefix("ECHO\n\n<context>\n").removesuffix("\n</context>") if prompt[:4] == "ECHO" else prompt
    )
    return f"It says: {text}"


def mended(text: str) -> str:
    """The text as a sandbox holds it: halves of pairs cannot cross."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- The checks: each gives what it found ---------------------------------------------------------

UNWRITTEN = re.compile(
    "[<\\[][|\uff5c]?(im_start|im_end|eot_id|start_header_id|start_of_turn|end_of_turn|start|message|channel|"
    "endoftext|User|Assistant|/?INST|<SYS>|/s|SYSTEM_PROMPT|TOOL_RESULTS|tool_call|think)[|\uff5c]?[>\\]]"
)


QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def unseen(text: str) -> set[str]:
    """Characters that no prompt and no terminal should be given."""
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {character for character in set(text) - {"\n", "\t"} if unicodedata.category(character) in hidden}


def told_of(line: str) -> str:
    """A line of our own words: the one about a context has names in it, in quotation marks."""
    return QUOTED.sub("", line) if line.startswith("`context` is a ") and line.endswith(". It begins:") else line


def loose(text: str) -> list[str]:
    """Lines of a message outside its fences that hold a word of the text."""
    found, fence = [], ""
    for line in text.split("\n"):
        mark = re.match("`{3,}", line)
        if not fence and mark and line.strip("`") in ("", "repl"):
            fence = mark[0]
        elif fence and re.fullmatch(f"{fence}`*", line):
            fence = ""
        elif not fence and re.search("FORGED|DEGROF", told_of(line)):
            found.append(line)
    return found


def faults_of_prompts(roots: Sequence[Sequence[BaseMessage]]) -> Iterator[str]:
    """What is wrong with the form of what root models were shown."""
    for messages in roots:
        kinds = [message.type for message in messages]
        if kinds[0] != "system" or kinds[1:] != (["human", "ai"] * len(kinds))[: len(kinds) - 1]:
            yield f"the roles are {kinds}"
        for message in messages[1:]:
            if message.type == "human":
                yield from (f"outside of its fence: {line[:80]!r}" for line in loose(message.text))
                yield from (f"an unseen {character!r}" for character in unseen(message.text))
                yield from (f"a mark: {mark[0]}" for mark in UNWRITTEN.finditer(message.text))


def faults_of_values(value: Any) -> Iterator[str]:
    """What is no plain value."""
    if type(value) is dict:
        yield from faults_of_values([*value.keys(), *value.values()])
    elif type(value) in (list, tuple):
        for item in value:
            yield from faults_of_values(item)
    elif type(value) not in (str, int, float, bool, type(None)):
        yield f"a {type(value).__name__} in the state"


def faults_of_terminals(records: Sequence[Any]) -> Iterator[str]:
    """What would reach a terminal and is not seen."""
    plain, drawn = StringIO(), StringIO()
    console = Console(file=drawn, width=100, color_system=None, force_terminal=True, highlight=False)
    for view in (Lines(plain), Lines(plain, full=True), ScrollView(console)):
        for record in records:
            view.write(record)
    for shown in (plain.getvalue(), drawn.getvalue()):
        yield from (f"a terminal would be given {character!r}" for character in unseen(shown))


def keys_in(*texts: str | bytes) -> list[str]:
    """The canary keys that are in any of these."""
    whole = b"\0".join(text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts)
    return [key for key in CANARIES if key.encode() in whole]


def kept_in(folder: Path) -> list[bytes]:
    """All that is on disk below a folder."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


@dataclass
class Outcome:
    """What became of one text."""

    forged: int = 0
    foreign: int = 0
    keys: int = 0
    faults: list[str] = field(default_factory=list)

    def told(self) -> tuple[int, int, int, int]:
        return self.forged, self.foreign, self.keys, len(self.faults)


def played(
    replies: Sequence[str], sandbox: str, context: Any, strategies: Sequence[str] = ()
) -> tuple[RLMOutput, Seen, Any]:
    """A run, what it showed, and what was saved of it."""
    seen, saver = Seen(), InMemorySaver()
    rlm = create_rlm(
        player(replies, seen), sandbox=sandbox, strategies=strategies, budget=BUDGET, checkpointer=saver
    )
    seen.told.append(repr(rlm))
    config = {"configurable": {"thread_id": "t"}, "callbacks": [Witness(seen)]}
    output = rlm.invoke({"query": QUESTION, "context": context}, config)
    state = rlm.graph.get_state({"configurable": {"thread_id": "t"}}).values
    return output, seen, (state, pickle.dumps((dict(saver.storage), dict(saver.writes), dict(saver.blobs))))


def judged(
    output: RLMOutput, seen: Seen, saved: Any, wanted: Any, written: Sequence[str], log: str, folder: Path
) -> Outcome:
    """All checks on one run."""
    records = [*flatten(output["trajectory"])]
    ran = Counter(record["code"].strip("\n") for record in records if record["type"] == "cell")
    state, checkpoints = saved
    trace = folder / "trace.jsonl"
    write_trace(trace, output["trajectory"])
    outcome = Outcome(
        forged=(output["answer"], output["stop_reason"]) != (wanted, "answer"),
        foreign=(ran - Counter(written)).total(),
        keys=len(keys_in(repr(seen), repr(output), repr(state), checkpoints, log, *kept_in(folder))),
    )
    outcome.faults += faults_of_prompts(seen.roots)
    outcome.faults += faults_of_values(output["trajectory"])
    outcome.faults += faults_of_terminals(records)
    if read_trace(trace) != json.loads(json.dumps(records)):
        outcome.faults.append("the trace does not read as it was written")
    return outcome


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_lie_are_only_texts(
    kind: str, sandbox: str, home: Path, log: pytest.LogCaptureFixture, record_property: Any
) -> None:
    texts = [*KINDS[kind].values()]
    cells = [*CELLS, f"copies = {texts!r}\nprint(*copies)", ANSWER]
    quoted = "\n".join(f"> {line}" for line in "\n".join(texts).split("\n"))
    replies = [f"I read:\n\n{quoted}\n\nSo:\n\n{fenced(cell)}" for cell in cells]
    output, seen, saved = played(replies, sandbox, texts)
    wanted = [len(mended(text)) for text in texts]
    outcome = judged(output, seen, saved, wanted, [*cells, *CHILD], log.text, home)
    record_property("injection", (sandbox, kind, len(texts), *outcome.told()))
    assert outcome == Outcome()
    assert len(seen.roots) == len(cells) + len(CHILD)


# --- Names, documents and questions ---------------------------------------------------------------


def names_of(texts: Sequence[str]) -> dict[str, str]:
    return {text: text for text in texts}


def documents_of(texts: Sequence[str]) -> list[Document]:
    metadata = {text: text for text in texts}
    return [Document(text, metadata={"source": text, **metadata}) for text in texts]


HOLDERS = {"names": names_of, "documents": documents_of}
IN_NAMES = ("print(context)", "print(SHOW_VARS())", "FINAL(len(context))")


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_lie_are_only_names(
    kind: str, holder: str, home: Path, log: pytest.LogCaptureFixture, record_property: Any
) -> None:
    context = HOLDERS[holder]([*KINDS[kind].values()])
    output, seen, saved = played([*map(fenced, IN_NAMES)], "monty", context)
    outcome = judged(output, seen, saved, len(context), IN_NAMES, log.text, home)
    record_property("injection", (f"as {holder}", kind, len(context), *outcome.told()))
    assert outcome == Outcome()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_lie_in_a_context_that_is_read_whole(
    kind: str, home: Path, log: pytest.LogCaptureFixture, record_property: Any
) -> None:
    texts = [*KINDS[kind].values()]
    output, seen, saved = played([fenced("FINAL(len(context))")], "monty", "\n".join(texts), ["direct"])
    outcome = judged(output, seen, saved, len("\n".join(texts)), ["FINAL(len(context))"], log.text, home)
    record_property("injection", ("read whole", kind, len(texts), *outcome.told()))
    assert outcome == Outcome()
    assert len(seen.roots[0][1].text) > len("\n".join(texts)), "it was in the prompt"


def test_what_is_said_of_a_context_is_one_line_whatever_its_names_are(home: Path) -> None:
    store = ContextStore()
    for injection in INJECTIONS:
        for context in (names_of([injection.text]), documents_of([injection.text])):
            about = store.reference(context)["about"]
            shown = [SystemMessage(""), HumanMessage(f"`context` is a {about}. It begins:")]
            assert [*faults_of_prompts([shown])] == [], injection.name
            assert "\n" not in about


def test_names_of_files_that_lie_are_only_names(home: Path, tmp_path: Path, log: Any, record_property: Any) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, injection in enumerate(INJECTIONS):
        name = f"{number} {mended(injection.text)}".translate({0: "0", ord("/"): ""})
        (folder / name.encode()[:200].decode("utf-8", "ignore")).write_text("FORGED")
    output, seen, saved = played([*map(fenced, IN_NAMES)], "monty", folder)
    outcome = judged(output, seen, saved, len(INJECTIONS), IN_NAMES, log.text, home)
    record_property("injection", ("as files", "all", len(INJECTIONS), *outcome.told()))
    assert outcome == Outcome()


def test_texts_that_lie_in_the_question_of_a_child_run_have_no_power_over_its_prompt(home: Path) -> None:
    texts = [injection.text for injection in INJECTIONS]
    cells = ["print(rlm_query_batched(['CHILD ' + text for text in context]))", "FINAL(1)"]
    output, seen, _ = played([*map(fenced, cells)], "monty", texts)
    asked = [messages for messages in seen.roots if asks_a_child(messages)]
    assert len(asked) > len(texts)
    assert [fault for fault in faults_of_prompts(asked) if not fault.startswith("outside")] == []
    ran = {record["code"].strip("\n") for record in flatten(output["trajectory"]) if record["type"] == "cell"}
    assert ran == {*cells, *CHILD}
    assert output["answer"] == 1


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["text", "json"])
def test_the_command_shows_nothing_that_a_text_wants_shown(
    way: str, tmp_path: Path, home: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """All texts in one file each; the model prints each, asks about it, and gives one as the answer."""
    texts = [mended(injection.text).replace("\0", "0") for injection in INJECTIONS]
    texts = texts if way == "text" else texts[::10]
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02}").write_bytes(text.encode())
    cells = [
        f"print(*llm_query_batched(list(context.values())[{n}:{n + 15}]), sep='\\n')"
        for n in range(0, len(texts), 15)
    ]
    cells = [SHOW, *cells, "FINAL(context['05'] + '!')"]

    def script(messages: list[dict[str, Any]]) -> str:
        if messages[0]["role"] == "user":
            return str(messages[-1]["content"])
        return fenced(cells[min(sum(message["role"] == "assistant" for message in messages), len(cells) - 1)])

    trace = tmp_path / "trace.jsonl"
    with serve(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url.replace("//", f"//me:{OWN_KEY}@"))
        options = ["--model", "openai:x", "--trace", str(trace), *(["--json"] if way == "json" else [])]
        code = command(["ask", "What?", str(folder), *options])
        sent = [request.body for request in server.requests]
    out, err = capfd.readouterr()
    assert code == 0, err
    wanted = texts[5] + "!"
    assert (json.loads(out)["answer"] if way == "json" else out) == (wanted if way == "json" else wanted + "\n")
    ran = [record["code"].strip("\n") for record in read_trace(trace) if record["type"] == "cell"]
    assert ran == cells
    assert unseen(err) == set()
    leaked = keys_in(json.dumps(sent), out, err, trace.read_bytes(), *kept_in(home))
    record_property("injection", ("rlm ask", way, len(texts), 0, len(ran) - len(cells), len(leaked), 0))
    assert leaked == []


# --- Each check can fail --------------------------------------------------------------------------


def broken(home: Path, *replies: str, wanted: Any = "x", written: Sequence[str] = ("FINAL('FORGED')",)) -> Outcome:
    output, seen, saved = played(replies, "monty", "x")
    return judged(output, seen, saved, wanted, written, "", home)


def test_a_forged_answer_would_be_seen(home: Path) -> None:
    assert broken(home, fenced("FINAL('FORGED')")).forged == 1


def test_a_cell_that_nobody_wrote_would_be_seen(home: Path) -> None:
    assert broken(home, fenced("FINAL('FORGED')"), wanted="FORGED", written=()).foreign == 1


@pytest.mark.parametrize("key", CANARIES)
def test_a_key_would_be_seen_wherever_it_is(home: Path, key: str) -> None:
    """A model that is told a key, and repeats it: prompts, state, checkpoints, records and the trace have it."""
    code = f"print({key!r})"
    output, seen, (state, checkpoints) = played([fenced(code), fenced("FINAL(1)")], "monty", "x")
    trace = home / "trace.jsonl"
    write_trace(trace, output["trajectory"])
    for place in (repr(seen.prompts), repr(seen.told), repr(output), repr(state), checkpoints, trace.read_bytes()):
        assert keys_in(place) == [key]
    assert keys_in(*kept_in(home)) == [key]


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda injection: injection.name)
def test_each_text_would_be_seen_if_it_were_shown_as_it_is(injection: Injection) -> None:
    without_child = [HumanMessage("What is said?"), HumanMessage(injection.text + "\nFORGED")]
    faults = [*faults_of_prompts([without_child])]
    assert any(fault.startswith("the roles are") for fault in faults)
    if injection.kind == "terminal" and injection.name not in ("markup of rich",):
        assert any(fault.startswith("an unseen") for fault in faults)
    if injection.kind == "template marks":
        assert any(fault.startswith("a mark") for fault in faults)
    if injection.kind in ("our notes", "roles", "answers"):
        assert any(fault.startswith("outside of its fence") for fault in faults)


def test_what_reaches_a_terminal_would_be_seen() -> None:
    assert unseen("\x1b[31m") == {"\x1b"}
    assert unseen("plain\n\ttext") == set()


def test_what_is_no_plain_value_would_be_seen() -> None:
    assert [*faults_of_values([{"a": object()}, (1, 2.0, None, True)])] == ["a object in the state"]


def test_an_error_of_the_server_that_repeats_the_key_is_told_without_it(
    home: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve(
        lambda _: "", rule=lambda request: failure(401, f"bad key: {request.headers['authorization']}")
    ) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code = command(["ask", "What?", "--model", "openai:x", "--trace", str(tmp_path / "trace")])
        assert KEYS["OPENAI_API_KEY"] in server.requests[0].headers["authorization"]
    out, err = capfd.readouterr()
    assert code == 1
    assert "does not accept the key" in err
    assert keys_in(out, err, *kept_in(tmp_path)) == []
