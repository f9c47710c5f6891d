"""Every kind of file answers a question in both sandboxes as an independent computation does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import create_rlm
from rlm_langchain.context.formats.detect import format_of
from rlm_langchain.context.formats.parsed import Reading, SourceFile
from rlm_langchain.context.formats.table import FORMATS
from rlm_langchain.context.images import Images
from rlm_langchain.context.places import place_at, repl_code
from rlm_langchain.context.store import ContextStore
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.testing.models import script
from rlm_langchain.types import Answered, Limits
from tests.kinds import KINDS, PAGES, TABLE, TEXT, mbox, pdf, xlsx

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
    opened = request.param().open(None, repl_code(references), Limits(), files)
    yield opened
    opened.close()


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_code_answers_a_question_about_each_kind(session, references, number):
    kind, name = KINDS[number], f"kind_{number}"
    assert kind.note in references[name]["about"]
    step = session.run(f"import json\nit = {name}\nFINAL(json.dumps({kind.code}))")
    assert isinstance(step, Answered), step
    assert json.loads(step.value) == kind.answer


JUNE = {"date": "2026-06-02T10:00:00+02:00", "from": "Jürgen <j@example.org>"}
ROW = ([2, "name"], 0, {"row": 3, "column": "name"})
PLACES: dict[str, tuple[list[Any], int, dict[str, Any]]] = {
    "text": ([], TEXT.index("Either"), {"line": 3}),
    "Markdown or source": ([], 5, {"line": 3}),
    "CSV": ROW,
    "TSV": ROW,
    "gzip of a CSV": ROW,
    "Parquet": ROW,
    "Arrow": ROW,
    "JSON": ([2, "name"], 0, {"item": 3, "field": "name"}),
    "notebook": ([1, "source"], 0, {"cell": 2}),
    "SQLite": (["orders", 2, "name"], 0, {"table": "orders", "row": 3, "column": "name"}),
    "PDF": ([2, "text"], 5, {"page": 3}),
    "DOCX": ([], 20, {"heading": "Lease", "line": 3}),
    "HTML": ([], 1, {"heading": "Rent", "line": 1}),
    "PPTX": ([1, "notes"], 0, {"slide": 2, "field": "notes"}),
    "XLSX": (["Orders", 2, "name"], 0, {"sheet": "Orders", "row": 4, "column": "name"}),
    "XLS": (["Orders", 2, "name"], 0, {"sheet": "Orders", "row": 4, "column": "name"}),
    "EPUB": ([1, "text"], 0, {"chapter": 2}),
    "mbox": ([1, "text"], 3, {"message": 2, **JUNE}),
    "chat of WhatsApp": ([1, "text"], 0, {"message": 2, "date": "2026-06-14T21:15:14", "from": "Ben"}),
    "ZIP": (["lease.pdf", 2, "text"], 0, {"page": 3}),
    "tar.gz": (["orders.csv", 2, "name"], 0, {"row": 3, "column": "name"}),
}
"""A path in a context of a kind, a character of the text there, and where people find that."""


@pytest.mark.parametrize("kind", PLACES)
def test_source_names_the_place_in_each_kind(session, store, references, kind):
    number = [one.name for one in KINDS].index(kind)
    (path, start, place), name = PLACES[kind], f"kind_{number}"
    file = f"{KINDS[number].file}/{path[0]}" if kind in ("ZIP", "tar.gz") else KINDS[number].file
    told = place_at(store.load(references[name]), path, start, references[name]["files"])
    assert told == {"file": file, **place}
    item = f"source({(name, *path)!r}, {start})"
    code = f"import json\nFINAL(json.dumps([{item}, source({name}, {start}) if {not path} else {item}]))"
    step = session.run(code)
    assert isinstance(step, Answered), step
    assert json.loads(step.value) == [{"context": name, **told}] * 2


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


SOURCE_CELLS = [
    ("source(context['a.pdf'][2])", {"file": "a.pdf", "page": 3}),
    ("source(context['a.pdf'][1:3])", {"file": "a.pdf", "page": 2, "to": 3}),
    ("source(context['a.pdf'], 1, 4)", {"file": "a.pdf", "page": 2, "to": 4}),
    ("source([context['a.pdf'][1], 3])", "ValueError"),
    ("source('rent is 300')", {"file": "a.pdf", "page": 3}),
    ("source(context['book.xlsx']['Q1'][15])", {"file": "book.xlsx", "sheet": "Q1", "row": 17}),
    (
        "source(('book.xlsx', 'Q1', 15, 'status'))",
        {"file": "book.xlsx", "sheet": "Q1", "row": 17, "column": "status"},
    ),
    ("source('no names')", {"file": "book.xlsx", "sheet": "raw", "row": 2, "column": "B"}),
    ("source('mail 2')", {"file": "b.mbox", "message": 2, **JUNE}),
    (
        "source('Dear Ann')",
        {"file": "b.mbox", "message": 1, **JUNE, "date": "2026-06-01T10:00:00+02:00", "others": 2},
    ),
    ("source(context['notes.txt'], 4, 9)", {"file": "notes.txt", "line": 2, "to": 3}),
    ("source('nowhere')", "ValueError"),
    ("source('')", "ValueError"),
    ("source(3)", "TypeError"),
]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_source_and_citations_say_where_a_text_of_a_folder_stands(tmp_path, sandbox):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(pdf(PAGES))
    (folder / "b.mbox").write_bytes(mbox(range(1, 4)))
    (folder / "book.xlsx").write_bytes(xlsx({"Q1": TABLE, "raw": [[1, 2], [3, "no names"]]}))
    (folder / "notes.txt").write_text("one\ntwo\nthree\n")
    tries = "".join(
        f"try: found.append({cell})\nexcept Exception as e: found.append(type(e).__name__)\n"
        for cell, _ in SOURCE_CELLS
    )
    code = (
        f"found = []\n{tries}FINAL({{'answer': found, 'quotes': ['rent is 300', 'no names', 'mail 2', 'three']}})"
    )
    result = create_rlm(script(code), sandbox=sandbox, citations=True).completion("?", folder)
    assert result["answer"] == [place for _, place in SOURCE_CELLS]
    assert [citation["place"] for citation in result["citations"]] == [
        SOURCE_CELLS[4][1],
        SOURCE_CELLS[7][1],
        SOURCE_CELLS[8][1],
        {"file": "notes.txt", "line": 3},
    ]


def test_the_place_in_values_that_were_no_files():
    document = {"page_content": "words", "metadata": {"source": "x.pdf", "page_label": "iv"}}
    mailed = {"from": "Ann", "date": "2026", "subject": "s", "text": "t", "attachments": []}
    inside = {**mailed, "attachments": [{"name": "a.xlsx", "content": {"Q1": [{"n": "x"}]}}]}
    for context, path, place in [
        ("a\nb", [], {"line": 2}),
        (["a", "b\nc"], [0], {"item": 1}),
        (["a", "b\nc"], [1], {"item": 2, "line": 2}),
        ({"k": {"x": ["a"]}}, ["k", "x", 0], {"key": "k", "field": "x.0"}),
        ({"example.com": [{"n": "a"}]}, ["example.com", 0, "n"], {"key": "example.com", "item": 1, "field": "n"}),
        ([document], [0, "page_content"], {"document": 1, "file": "x.pdf", "page": "iv"}),
        ([{"role": "user", "content": "hi"}], [0, "content"], {"message": 1, "from": "user"}),
        (mailed, ["subject"], {"date": "2026", "from": "Ann", "field": "subject"}),
        (
            [inside],
            [0, "attachments", 0, "content", "Q1", 0, "n"],
            {
                "message": 1,
                "date": "2026",
                "from": "Ann",
                "attachment": "a.xlsx",
                "sheet": "Q1",
                "row": 2,
                "column": "n",
            },
        ),
    ]:
        assert place_at(context, path, 3, {}) == place


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_named_and_later_contexts_are_named_in_places(tmp_path, sandbox):
    (tmp_path / "a.pdf").write_bytes(pdf(PAGES))
    code = "FINAL([source(contract[2]), source(rest), source(context['sheets']['Q1'][0])])"
    (tmp_path / "book.xlsx").write_bytes(xlsx({"Q1": TABLE}))
    later = "FINAL([source(context_1, 2), source(('context_1',)), source(('contract', 0))])"
    rlm = create_rlm(script(code, later), sandbox=sandbox, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "one"}}
    given = {"contract": tmp_path / "a.pdf", "sheets": tmp_path / "book.xlsx", "rest": "some words"}
    assert rlm.invoke({"query": "?", "context": given}, thread)["answer"] == [
        {"context": "contract", "page": 3},
        {"context": "rest", "line": 1},
        {"context": "sheets", "sheet": "Q1", "row": 2},
    ]
    assert rlm.invoke({"query": "?", "context": "a\nb"}, thread)["answer"] == [
        {"context": "context_1", "line": 2},
        {"context": "context_1", "line": 1},
        {"context": "contract", "page": 1},
    ]
