"""`llm_query(prompt, images=[...])`: what is refused, what is asked once, what is reserved."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import ModelProfile
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from PIL import Image

from rlm_langchain import Budget, create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.models.estimate import most_prompt_tokens
from rlm_langchain.models.images import image_tokens, message_with_images
from rlm_langchain.testing.models import FunctionModel, script

THREAD: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a large picture, a small one, and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", (3_000, 1_500)), ("b.png", (60, 40))):
        Image.new("RGB", size).save(folder / name)
    (folder / "notes.txt").write_text("two pictures")
    return folder


def calls(output: Any) -> list[Any]:
    return [record for record in output["trajectory"] if record["type"] == "call"]


def test_a_model_that_reads_only_text_is_told_before_anything_is_paid(pictures: Path) -> None:
    cell = "try:\n    llm_query('What?', images=context['b.png'])\nexcept LLMError as error:\n    FINAL(str(error))"
    asked: list[str] = []
    model = script(cell, leaf=lambda prompt: str(asked.append(prompt)))
    blind = model.model_copy(update={"profile": ModelProfile(image_inputs=False)})
    output = create_rlm(model, recursive_model=blind, strategies="auto").invoke({"query": "q", "context": pictures})
    assert output["answer"].startswith("not asked: function reads only text, and nothing else in this REPL sees")
    assert "recursive_model= or --sub-model" in output["answer"]
    assert asked == []
    assert output["usage"]["sub"]["calls"] == 0
    [question] = [record for record in output["trajectory"] if record["type"] == "question"]
    assert "No model here can see them, because function reads only text" in question["text"]
    assert "direct" not in question["strategies"]
    [note] = [record for record in output["trajectory"] if record["type"] == "note"]
    assert (note["to"], note["text"][:40]) == ("reader", "nobody sees the 2 pictures of the contex")


WRONG = {
    "{'image': '0' * 32}": "images[0] is not a picture of this context",
    "{'image': '../../' + 'a' * 26}": "images[0] is not a picture of this context",
    "[context['b.png'], 'a.png']": "images[1] is no handle",
    "[{'image': 7}]": "images[0] is no handle",
    "[dict(context['b.png'], page=2)]": "images[0] cannot be sent: only the handle of a page of a PDF",
    "[dict(context['b.png'], page=True)]": "images[0] is no handle",
    "[]": "there are no pictures in images",
    "[context['b.png']] * 21": "images has 21 pictures, and at most 20",
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_what_is_no_picture_of_the_context_is_an_error_of_the_program(sandbox: str, pictures: Path) -> None:
    tries = "\n".join(
        f"try:\n    llm_query('p', images={images})\nexcept LLMError as error:\n    said.append(str(error))"
        for images in WRONG
    )
    wrong = (
        f"try:\n    {code}\nexcept (TypeError, ValueError) as error:\n    said.append(str(error))\n"
        for code in ("llm_query('p', images='a.png')", "llm_query_batched(['p', 'q'], images=[context['b.png']])")
    )
    forged = (
        "try:\n    _host_call('vision', 'p', {'images': 7})\nexcept LLMError as error:\n    said.append(str(error))"
    )
    asked: list[str] = []
    model = script(
        f"said = []\n{tries}\n{''.join(wrong)}{forged}\nFINAL(said)", leaf=lambda p: str(asked.append(p))
    )
    output = create_rlm(model, sandbox=sandbox).invoke({"query": "q", "context": pictures})
    expected = [
        *WRONG.values(),
        "images of llm_query must be a list of handles, not str",
        "2 prompts need as many images",
        "there are no pictures in images",
    ]
    for said, start in zip(output["answer"], expected, strict=True):
        assert start in said
    assert asked == []


def test_equal_questions_about_different_pictures_are_different_questions(pictures: Path) -> None:
    cell = (
        "a, b = context['a.png'], context['b.png']\n"
        "llm_query_batched(['What?'] * 4, images=[a, b, [a], [a, b]])\n"
        "FINAL(rlm_query('What?', b))"
    )
    child = {"What?": ["FINAL(llm_query('Within?', images=[context]))"]}
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return f"saw for {prompt}"

    rlm = create_rlm(script(cell, children=child, leaf=leaf), budget=Budget(depth=2))
    output = rlm.invoke({"query": "q", "context": pictures})
    assert output["answer"] == "saw for Within?"
    assert sorted(asked) == ["What?", "What?", "What?", "Within?"]
    assert [bool(call.get("memo")) for call in calls(output)[:4]] == [False, False, True, False]


def test_after_a_kill_no_question_about_pictures_is_asked_again(pictures: Path, tmp_path: Path) -> None:
    live, killed = tmp_path / "live", tmp_path / "killed"
    live.mkdir()
    cell = "FINAL(llm_query_batched(['one', 'two'], images=context['b.png']))"

    def invoke(folder: Path, leaf: Any, input: Any) -> Any:
        connection = sqlite3.connect(folder / "threads.sqlite", check_same_thread=False)
        rlm = create_rlm(
            script(cell, leaf=leaf),
            checkpointer=SqliteSaver(connection),
            home=folder / "home",
            budget=Budget(concurrency=1),
        )
        try:
            return rlm.invoke(input, THREAD)
        finally:
            connection.close()

    def leaf(prompt: str) -> str:
        if prompt == "two":
            shutil.copytree(live, killed)  # what is on the disk if the process is killed now
        return f"saw {prompt}"

    asked: list[str] = []
    whole = invoke(live, leaf, {"query": "q", "context": pictures})
    again = invoke(killed, lambda prompt: asked.append(prompt) or f"saw {prompt}", None)
    assert asked == ["two"]
    assert again["answer"] == whole["answer"] == ["saw one", "saw two"]


def test_the_reservation_counts_pictures_and_not_their_characters(pictures: Path) -> None:
    data = (pictures / "b.png").read_bytes()
    text = most_prompt_tokens([HumanMessage("What?")])
    assert most_prompt_tokens([message_with_images("What?", [(data, "image/png")] * 3)]) == text + 3 * image_tokens(
        60, 40
    )
    assert most_prompt_tokens([message_with_images("What?", [(b"?", "image/png")])]) == text + image_tokens()
    published = {  # by the rules of OpenAI (tiles; patches of gpt-4.1-nano), Anthropic and Google
        (1_024, 1_024): (765, 1_024 * 2.46, 1_024 * 1_024 / 750, 4 * 258),
        (1_092, 1_092): (765, 1_225 * 2.46, 1_590, 4 * 258),
        (200, 200): (255, 49 * 2.46, 54, 258),
        (1_568, 768): (1_445, 1_176 * 2.46, 1_568 * 768 / 750, 3 * 258),
    }
    for size, known in published.items():
        assert image_tokens(*size) >= max(known)
    assert image_tokens() < 4_000
    cell = "FINAL(llm_query_batched(['one', 'two'], images=context['a.png']))"
    output = create_rlm(script(cell), budget=Budget(tokens=9_000)).invoke({"query": "q", "context": pictures})
    assert [call["refused"] for call in calls(output) if call["error"]] == ["tokens"] * 2


def test_a_picture_that_is_gone_ends_no_run(pictures: Path, home: Path) -> None:
    ref = ContextStore().reference(pictures)
    shutil.rmtree(home / "images")
    model = FunctionModel(function=script("llm_query_batched(['a'], images=[context['b.png']])\nFINAL(1)").function)
    output = create_rlm(model).invoke({"query": "q", "context": ref})
    assert output["status"] == "complete" or output["answer"] == 1
    assert "not a picture of this context" in calls(output)[0]["error"]
