"""A text that begins like a table is told from prose; what a small model is then told of its columns."""

from __future__ import annotations

import pytest

from rlm_langchain import create_rlm
from rlm_langchain.context.describe import find_table
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


@pytest.mark.parametrize(("profile", "told"), [("compact", True), ("default", False)])
def test_a_small_model_is_told_the_columns(profile, told):
    model = Model("m", script("FINAL(1)"), profile)
    rows = "\n".join(f"{n}|row" for n in range(9_000))
    output = create_rlm(model).completion("How many?", f"number|word\n{rows}")
    hint = 'line.split("|") of its first line is [0] "number", [1] "word"'
    assert (hint in output["trajectory"][0]["text"]) is told
