"""A question about pictures over HTTP: what a model is sent, what it costs, and where the pictures never are."""

from __future__ import annotations

import base64
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image

from rlm_langchain import Budget, create_rlm
from rlm_langchain.models.compatible_chat import CompatibleChat
from tests.servers.openai import Reply
from tests.servers.scripted import rlm, serve

THREAD: Any = {"configurable": {"thread_id": "t"}}
SIZES = {"a.png": (3_000, 1_500), "b.png": (60, 40)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a large picture, a small one, and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in SIZES.items():
        Image.radial_gradient("L").resize(size).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("two pictures")
    return folder


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_question_about_pictures_goes_end_to_end(sandbox: str, pictures: Path, home: Path) -> None:
    code = (
        "both = [context['a.png'], context['b.png']]\n"
        "first = llm_query('Compare.', context['notes.txt'], images=both)\n"
        "second = llm_query_batched(['One?', 'None?', 'Both?'], images=[both[0], None, both])\n"
        "print(context)\nFINAL([first, second])"
    )
    asked: list[Any] = []

    def leaf(messages: list[Any]) -> Reply | str:
        if messages[0]["role"] == "system":
            prompts.append(str(messages))
            return str(plan(messages))
        content = messages[0]["content"]
        asked.append(content)
        seen = sum(block["type"] == "image_url" for block in content) if isinstance(content, list) else 0
        usage = {"prompt_tokens": 1_000 * seen + 9, "completion_tokens": 2, "total_tokens": 1_000 * seen + 11}
        return Reply(f"saw {seen}", usage=usage)

    plan, prompts = rlm(code), list[str]()
    with serve(leaf) as server:
        model = CompatibleChat(model="m", base_url=server.url, api_key="k")  # type: ignore[arg-type]
        saver = InMemorySaver()
        output = create_rlm(model, sandbox=sandbox, checkpointer=saver, budget=Budget(tokens=60_000)).invoke(
            {"query": "What is there?", "context": pictures}, THREAD
        )

    assert output["answer"] == ["saw 2", ["saw 1", "saw 0", "saw 2"]]
    assert output["usage"]["sub"]["input"] == 5_000 + 4 * 9
    assert not output["usage"]["sub"]["estimated"]
    sent = next(content for content in asked if "Compare." in str(content))
    urls = [block["image_url"]["url"] for block in sent[:2]]
    sizes = []
    for url in urls:
        kind, _, data = url.partition(";base64,")
        assert kind == "data:image/png"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert sizes == [(1_568, 784), (60, 40)]
    assert sent[2] == {"type": "text", "text": "Compare.\n\n<context>\ntwo pictures\n</context>"}
    assert "2 PNG image, 1 text" in prompts[0]
    assert "The context has 2 pictures" in prompts[0]

    calls = [record for record in output["trajectory"] if record["type"] == "call"]
    assert [(call["kind"], call.get("images")) for call in calls] == [
        ("vision", ["a.png", "b.png"]),
        ("vision", ["a.png"]),
        ("llm", None),
        ("vision", ["a.png", "b.png"]),
    ]
    stored = [path for path in home.rglob("*") if path.is_file() and path.parent.parent.name != "images"]
    kept = pickle.dumps([dict(saver.storage), saver.blobs, saver.writes], protocol=5)
    held = b"".join([json.dumps(output).encode(), kept, *(path.read_bytes() for path in stored)])
    for data in (*urls, *((pictures / name).read_bytes() for name in SIZES)):
        piece = data[100:160].encode() if isinstance(data, str) else data[100:160]
        assert piece not in held
