"""The page as a file, and its data."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.errors import InputError
from rlm_langchain.trajectory.tree import flatten
from rlm_langchain.types import Usage
from rlm_langchain.viewer.data import page_data
from rlm_langchain.viewer.page import MODULES, RunPage, _part
from tests.records import RecordBuilder, nested


def test_the_content_security_policy_allows_only_our_script() -> None:
    page = RunPage([]).html()
    policy = html.unescape(re.search(r'Security-Policy" content="(.*?)"', page)[1])
    assert policy.startswith("default-src 'none'; ")
    for element, source in (("style", "style-src"), ('script type="module"', "script-src")):
        text = re.search(rf"<{element}>(.*?)</{element.split()[0]}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}';" in policy


def test_the_page_is_small_and_has_no_external_references() -> None:
    page = RunPage([]).html()
    assert len(page) < 200_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|\bfetch\(|innerHTML|eval\(", page)


def test_a_module_imports_only_earlier_modules() -> None:
    for number, name in enumerate(MODULES):
        used = re.findall(r'^import .* from "\./(.*)";$', _part(name), re.MULTILINE)
        assert set(used) <= set(MODULES[:number]), name
    assert set(MODULES) == {path.name for path in Path(__file__).parents[3].glob("rlm_langchain/viewer/page/*.js")}


@pytest.mark.parametrize("query", ["</title><script>", "a\u202eb", "{{program}} {{data}}", "\ud800"])
def test_text_outside_the_data_is_escaped(query: str) -> None:
    top = RecordBuilder().question(query).answer(f"{query}</noscript>")
    page = RunPage(top.records).html()
    head, _, rest = page.partition("</title>")
    assert "<script" not in head
    assert "\u202e" not in page
    assert rest.count("</noscript>") == 1
    page.encode()


def test_an_unwritable_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give another file"):
        RunPage([]).to_html(tmp_path / "missing" / "run.html")


def test_to_html_replaces_a_page_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.touch()
    RunPage([]).to_html(path)
    RunPage(nested()).to_html(path)
    path.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(InputError, match="not overwritten"):
        RunPage([]).to_html(path)
    assert "mine" in path.read_text()


def test_a_notebook_does_not_embed_a_large_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<iframe" in RunPage(nested())._repr_html_()
    monkeypatch.setattr("rlm_langchain.viewer.page.MAX_NOTEBOOK_CHARS", 100)
    assert "to_html(path)" in RunPage(nested())._repr_html_()


def states(**more: Any) -> str:
    top = RecordBuilder().question().turn(0, "", "x").cell(0, "x").wave(0, 0, 1).call(0, 0, **more)
    [call] = page_data(top.records)["runs"][0]["steps"][0]["cells"][0]["batches"][0]["calls"]
    return str(call["state"])


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "ok"),
        ({"memo": True}, "memo"),
        ({"from_cache": True}, "cached"),
        ({"flaw": "cut"}, "cut"),
        ({"error": "no"}, "failed"),
        ({"error": "no", "refused": "usd"}, "refused"),
        ({"error": "no", "refused": "declined"}, "declined"),
        ({"child": RecordBuilder("0").question().answer("x", "partial", "usd").records}, "partial"),
    ],
)
def test_a_call_has_a_state(more: dict[str, Any], state: str) -> None:
    assert states(**more) == state


@pytest.mark.parametrize("form", [list, lambda records: [*flatten(records)]])
def test_totals_equal_the_ledger_for_an_output_and_for_a_trace(form: Any) -> None:
    runs = page_data(form(nested()))["runs"]
    assert [run["path"] for run in runs] == ["", "1"]
    assert runs[0]["own"] == [2, 200, 0, 20, 1.0, 0]
    assert runs[0]["below"] == [3, 200, 0, 20, 0.7, 0]


def test_lost_turns_count_and_calls_without_a_batch_record_are_shown() -> None:
    top = (
        RecordBuilder()
        .question()
        .turn(0, "", "x")
        .cell(0, "x")
        .call(0, 0, memo=True)
        .call(0, 1)
        .wave(0, 2, 2)
        .call(0, 2)
    )
    top.note("lost", "reader").records[-1].update(usage=Usage(1, 9, 0, 1, 0.25).record(), lost=1)
    [run] = page_data(top.records)["runs"]
    assert run["own"][:2] == [2, 109]
    batches = run["steps"][0]["cells"][0]["batches"]
    assert [[call["call"] for call in batch["calls"]] for batch in batches] == [[0, 1], [2, 3]]
    assert batches[1]["calls"][1] == {"call": 3, "state": "open"}


def test_repeated_code_is_marked() -> None:
    top = RecordBuilder().question()
    for turn, code in enumerate(("x = 1", "x = 2", "x = 1")):
        top.turn(turn, "", code).cell(turn, code, turn).output(turn, "")
    turns = page_data(top.records)["runs"][0]["steps"]
    assert [turn.get("repeats") for turn in turns] == [None, None, 0]
    assert all(one["time"] < other["time"] for one, other in pairwise(turns))


def test_a_page_limits_its_text_and_says_what_it_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlm_langchain.viewer.data.MAX_TOTAL_CHARS", 1_000)
    top = RecordBuilder().question().turn(0, "", "x").cell(0, "x").wave(0, 0, 3)
    for number in range(3):
        top.call(0, number, "y" * 800)
    [batch] = page_data(top.records)["runs"][0]["steps"][0]["cells"][0]["batches"]
    assert [len(call["reply"]) for call in batch["calls"]] == [800, 800, 500]
    assert [call.get("reply_of") for call in batch["calls"]] == [None, None, 800]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_contrast_with_their_background(scheme: int) -> None:
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", _part("page.css"))
    colours = {name: (light, dark)[scheme] for name, light, dark in found}
    behind = {"paper", "ground", "sunken"}
    pairs = [(text, back) for text in ("ink", "soft", "link") for back in behind]
    pairs += [(f"{name}-text", f"{name}-soft") for name in ("ok", "cut", "bad")]
    pairs += [(f"{name}-text", back) for name in ("ok", "cut", "bad") for back in ("paper", "ground")]
    pairs += [("ink", "child"), ("soft", "child")]
    for text, back in pairs:
        high, low = sorted((luminance(colours[text]), luminance(colours[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)


def test_a_citation_says_where_it_stands_and_an_older_one_names_its_source() -> None:
    records = RecordBuilder().question("Who?").answer("Ada").records
    older = {"quote": "rent", "source": "0.text", "start": 0, "end": 4}
    records[-1]["citations"] = [{**older, "place": {"file": "b.xlsx", "sheet": "Q1", "row": 17}}, older]
    assert [one["where"] for one in page_data(records)["citations"]] == ["b.xlsx, sheet Q1, row 17", "0.text"]
