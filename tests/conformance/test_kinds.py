"""Every kind of file answers a question in both sandboxes as an independent computation does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlm_langchain import create_rlm
from rlm_langchain.context.formats.detect import format_of
from rlm_langchain.context.formats.parsed import Reading, SourceFile
from rlm_langchain.context.formats.table import FORMATS
from rlm_langchain.context.images import Images
from rlm_langchain.context.store import ContextStore
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.testing.models import script
from rlm_langchain.types import Answered, Limits
from tests.kinds import KINDS, PAGES, mbox, pdf

MANUAL = Path(__file__).parents[2] / "docs" / "how-to" / "contexts.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ContextStore:
    return ContextStore(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def references(store):
    """A reference to a file of each kind, by the name that it has in the REPL."""
    found = {}
    for number, kind in enumerate(KINDS):
        path = store.root / kind.file
        path.parent.mkdir(exist_ok=True)
        kind.make(path)
        found[f"kind_{number}"] = store.reference(path)
    return found


@pytest.fixture(scope="module", params=[CPythonSandbox, MontySandbox])
def session(request, store, references):
    """A REPL that has all of them."""
    if missing := request.param().missing():
        pytest.skip(missing)
    files = {name: store.open(ref) for name, ref in references.items()}
    opened = request.param().open(None, "", Limits(), files)
    yield opened
    opened.close()


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_code_answers_a_question_about_each_kind(session, references, number):
    kind, name = KINDS[number], f"kind_{number}"
    assert kind.note in references[name]["about"]
    step = session.run(f"import json\nit = {name}\nFINAL(json.dumps({kind.code}))")
    assert isinstance(step, Answered), step
    assert json.loads(step.value) == kind.answer


def test_a_kind_is_read_once_and_then_found_by_the_hash_of_the_file(store, references, monkeypatch):
    from rlm_langchain.context.formats import storing

    monkeypatch.setattr(storing, "read_as", lambda *_: pytest.fail("it was read again"))
    for number, kind in enumerate(KINDS):
        if "images" in references[f"kind_{number}"]:
            continue  # a handle has the name of its file
        path = store.root / kind.file
        copy = path.with_name(f"copy of {path.name}")
        copy.write_bytes(path.read_bytes())
        assert store.reference(path) == references[f"kind_{number}"]
        assert ContextStore(store.root).reference(copy)["sha256"] == references[f"kind_{number}"]["sha256"]
        copy.unlink()


def test_each_format_that_is_read_is_one_of_these_kinds(store, references):
    found = set()
    for kind in KINDS:
        data = (store.root / kind.file).read_bytes()
        found.add(format_of(SourceFile.of_bytes(data, kind.file, Reading(Images(store.images)))))
    assert found - {None} == FORMATS.keys()


def test_the_manual_lists_these_kinds():
    table = re.search(r"^\| kind \|.*?\n\n", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    assert table
    assert [line.split("|")[1].strip() for line in table[0].strip().splitlines()[2:]] == [
        kind.name for kind in KINDS
    ]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_named_contexts_are_variables_and_the_output_says_what_was_left_out(tmp_path, sandbox):
    (tmp_path / "a.pdf").write_bytes(pdf([*PAGES, ""]))
    (tmp_path / "b.mbox").write_bytes(mbox(range(1, 4)))
    code = "FINAL([contract[2]['page'], mails[0]['subject'], rest, len(context)])"
    rlm = create_rlm(root_model=script(code), sandbox=sandbox)
    context = {"contract": tmp_path / "a.pdf", "mails": tmp_path / "b.mbox", "rest": 3}
    result = rlm.invoke({"query": "Who pays?", "context": context})
    assert result["answer"] == [3, "Grüße aus Köln, die 1.", 3, 3]
    [report] = result["context"]
    assert "each is a variable, too: contract, mails, rest" in report["about"]
    [note] = report["notes"]
    assert note.startswith('"contract": left out: 1 page without text, perhaps scanned: 6')
    assert "context" not in rlm.graph.invoke({"query": "Who pays?", "context": context})
