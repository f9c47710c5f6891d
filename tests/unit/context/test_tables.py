"""A text that begins like a table is told from prose; what a small model is then told of its columns."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

from rlm_langchain import create_rlm
from rlm_langchain.context.describe import find_table
from rlm_langchain.context.store import ContextStore
from rlm_langchain.graph.strategy_choice import MANY_ITEMS, suitable_names
from rlm_langchain.models.model import Model
from rlm_langchain.testing.models import script


@pytest.mark.parametrize(
    ("text", "mark", "cells"),
    [
        ("code|name\nU+0020|SPACE\nU+0021|MARK\nU+00", "|", ("code", "name")),
        ("name;city\n\nAnn;Rome\nBen;Oslo\n", ";", ("name", "city")),
        ("a,b,c,d\n1,2,3,4\n5,6", ",", ("a", "b", "c", "d")),
        ("a\tb, c\n1\t2, 3\n4\t5\n", "\t", ("a", "b, c")),
        (",height,width\n0,1,2\n1,3,4\n", ",", ("", "height", "width")),
    ],
)
def test_a_table_is_known_by_lines_with_as_many_cells(text, mark, cells):
    assert find_table(text) == (mark, cells)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one line, and no more",
        "Dear Sir,\nYours,\nx,\ny",
        "Once, long ago.\nA king, so old.\nHe, too, died.\n",
        "2026-01-01 10:00:00,123 INFO a\n2026-01-01 10:00:00,124 INFO b\n2026-01-01 10:00:00,125 INFO c\n",
        '{"a": 1, "b": 2, "c": 3, "d": 4}\n{"a": 1, "b": 2, "c": 3, "d": 4}\n',
        "a|b\n1|2|3\n4|5\n",
        f"a|{'prose ' * 20}\n1|2\n3|4\n",
    ],
)
def test_prose_logs_and_json_are_no_tables(text):
    assert find_table(text) is None


ROWS = "number|word\n" + "\n".join(f"{n}|row" for n in range(900))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("some prose", "str"),
        (b"some bytes", "str"),
        (ROWS, "table"),
        (ROWS.encode("utf-16"), "table"),
        ("list of 3,000 things, and no list", "str"),
        (["a"], "list"),
        ([ROWS], "list"),
        ({"list": 1}, "dict"),
        (Document("text"), "list"),
        ([HumanMessage("text")], "list"),
    ],
)
def test_a_reference_says_the_type_of_its_context(value, kind):
    ref = ContextStore().reference(value)
    assert ref["type"] == kind
    assert ContextStore().reference(ref) == ref


def test_references_to_files_and_folders_say_their_type(tmp_path):
    (tmp_path / "prose.txt").write_text("some prose")
    (tmp_path / "rows.txt").write_text(ROWS)
    (tmp_path / "utf16.txt").write_text(ROWS, "utf-16")
    store = ContextStore()
    refs = {path.name: store.reference(path)["type"] for path in tmp_path.iterdir()}
    assert refs == {"prose.txt": "str", "rows.txt": "table", "utf16.txt": "table"}
    assert store.reference(tmp_path)["type"] == "dict"


def test_a_table_whose_preview_is_cut_to_its_first_line_is_a_str():
    store = ContextStore()
    ref = store.reference(ROWS)
    assert store.with_short_preview(ref, 5)["type"] == "str"
    assert store.with_short_preview(ref, 50)["type"] == "table"
    model = Model("m", script("FINAL(1)"), "compact")
    assert create_rlm(model).completion("How many?", store.with_short_preview(ref, 5))["answer"] == 1


@pytest.mark.parametrize(("number", "many"), [(MANY_ITEMS - 1, False), (MANY_ITEMS, True)])
def test_only_long_lists_are_classified_and_counted(number, many):
    store = ContextStore()
    assert ("classify_count" in suitable_names(store.reference(["item"] * number))) is many
    assert "classify_count" not in suitable_names(store.reference({f"{n}": n for n in range(number)}))
    assert "classify_count" not in suitable_names(store.reference("list of many\n" * number))


@pytest.mark.parametrize(("profile", "told"), [("compact", True), ("default", False)])
def test_a_small_model_is_told_the_columns(profile, told):
    model = Model("m", script("FINAL(1)"), profile)
    rows = "\n".join(f"{n}|row" for n in range(9_000))
    output = create_rlm(model).completion("How many?", f"number|word\n{rows}")
    hint = 'line.split("|") of its first line is [0] "number", [1] "word"'
    assert (hint in output["trajectory"][0]["text"]) is told
