"""The page of a run in a real browser: every view, hostile texts, and numbers that are the ledger's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.store import ContextStore
from rlm_langchain.records import Record, RLMOutput
from rlm_langchain.types import Usage
from rlm_langchain.viewer.page import RunPage
from tests.browser import Browser, browser
from tests.integration import test_trees as trees
from tests.pages import demo
from tests.records import CONTEXT, RecordBuilder
from tests.servers.scripted import serve

INVISIBLE = " ".join(
    chr(code) for code in (*range(1, 0x10000), *range(0xE0000, 0xE0200)) if visible(chr(code)) != chr(code)
)
HOSTILE = (
    "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>{{program}}</script><b>bold</b>"
    "\u202etxt.exe\u202c \x1b[31m javascript:alert(1) &lt;i&gt; '\"`${window.hacked=1}"
)
TREES = 4


class Pages(NamedTuple):
    """What is opened in the browser."""

    browser: Browser
    folder: Path
    output: RLMOutput
    """Of the demo."""
    random: list[RLMOutput]
    """Of random trees of runs."""

    def write(self, name: str, records: Any, **more: Any) -> Path:
        """A page on disk."""
        path = self.folder / f"{name}.html"
        RunPage(records, **more).to_html(path)
        return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """One browser for all tests here, and the runs, which were there before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLM_HOME", str(tmp_path_factory.mktemp("home")))
        output, store = demo(), ContextStore()
        random = [*_random_trees()]
        with browser() as opened:
            made = Pages(opened, tmp_path_factory.mktemp("pages"), output, random)
            made.write("demo", output["trajectory"], limits={"usd": 1.0, "calls": 2_000}, store=store)
            yield made


def _random_trees() -> Iterator[RLMOutput]:
    playing: list[Any] = []
    found = 0
    with serve(lambda _: "", rule=lambda request: playing[-1].reply(request)) as server:  # noqa: PLW0108 - it changes
        for seed in count(1):
            planned = trees.plan(seed)
            playing.append(trees.ScriptedServer(planned.root))
            rlm, _ = trees.quick(planned, server.url)
            output = trees.attempt(lambda rlm=rlm: rlm.invoke({"query": playing[-1].query, "context": "some text"}))
            if isinstance(output, dict) and output["sub_calls"]:
                yield output
                found += 1
            if found == TREES:
                return


@pytest.fixture
def demo_page(pages: Pages) -> Iterator[Any]:
    with pages.browser.showing(pages.folder / "demo.html") as page:
        yield page


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


# --- Views ---


def test_the_answer_comes_first(demo_page: Any, pages: Pages) -> None:
    summary = demo_page.locator("#summary")
    assert pages.output["answer"] in summary.inner_text()
    assert "partial" in demo_page.locator("#pill").inner_text()
    for told in ("calls failed", "replies were cut off", "of $1.00 allowed"):
        assert told in summary.inner_text()
    share = float(demo_page.locator(".coverage data").get_attribute("value"))
    assert share == pages.output["coverage"]["share"]
    demo_page.locator(".cite").first.click()
    assert demo_page.locator(".around mark").inner_text() == pages.output["citations"][0]["quote"]
    demo_page.locator(".wrong button").first.click()
    assert "failed" in demo_page.locator("#detail h2").inner_text()


def test_a_fan_out_is_a_grid_at_its_line(demo_page: Any) -> None:
    fan = demo_page.locator(".fan").first
    assert "480 model calls" in fan.text_content()
    line = fan.locator("xpath=preceding-sibling::div[1]")
    assert "llm_query_batched(prompts)" in line.text_content()
    grid = fan.locator("canvas")
    grid.click(position={"x": 5, "y": 5})
    detail = demo_page.locator("#detail")
    assert "Call 0" in detail.inner_text()
    assert "Is this a complaint about billing?" in detail.inner_text()
    assert "yes: charged twice" in detail.inner_text()
    assert "at=call:0" in demo_page.url
    grid.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        demo_page.keyboard.press(key)
    assert "Call 2" in detail.inner_text()
    grid.hover(position={"x": 5, "y": 5})
    assert "0 · answered" in demo_page.locator("#tip").inner_text()
    fan.get_by_role("button", name=re.compile("failed")).click()
    assert "the provider rejected" in detail.inner_text()
    demo_page.keyboard.press("Escape")
    assert detail.is_hidden()


def test_every_call_can_be_reached_and_a_child_run_opened(demo_page: Any) -> None:
    demo_page.locator("#runs .row").nth(1).click()
    assert "Summarise the complaints" in demo_page.locator("#view h2").inner_text()
    demo_page.locator(".fan").nth(1).scroll_into_view_if_needed()
    demo_page.locator(".call", has_text="Name the theme").click()
    demo_page.locator("#detail").get_by_role("button", name=re.compile("Open run")).click()
    assert "Name the theme of these notes" in demo_page.locator("#view h2").inner_text()
    assert demo_page.locator(".crumbs").inner_text().startswith("top run")
    demo_page.keyboard.press("u")
    demo_page.keyboard.press("u")
    assert demo_page.locator("#runs .row[aria-selected=true]").inner_text().startswith("▾\ntop")


def test_the_code_is_shown_whole_with_output_and_error(demo_page: Any, pages: Pages) -> None:
    demo_page.evaluate("dispatchEvent(new Event('beforeprint'))")
    cells = [record["code"] for record in pages.output["trajectory"] if record["type"] == "cell"]
    shown_code = demo_page.evaluate(
        "[...document.querySelectorAll('.code')].map(one => "
        "[...one.querySelectorAll('.line')].map(line => line.textContent).join('\\n'))"
    )
    assert [code.rstrip("\n") for code in shown_code] == [code.rstrip("\n") for code in cells]
    assert "TypeError" in demo_page.locator("pre.out.bad").text_content()
    assert demo_page.locator("li.turn").count() == pages.output["iterations"]


@pytest.mark.parametrize("measure", ["Time", "Dollars", "Tokens"])
def test_the_timeline_shows_what_took_time_or_money(demo_page: Any, measure: str) -> None:
    tab(demo_page, "Timeline")
    demo_page.get_by_role("button", name=measure, exact=True).click()
    chart = demo_page.locator(".chart canvas")
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] / 2, "y": 26})
    assert "the top run" in demo_page.locator("#tip").inner_text()
    chart.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        demo_page.keyboard.press(key)
    assert demo_page.locator("#detail").is_visible()
    demo_page.locator("#runs .row").nth(1).click()
    assert "480" in demo_page.locator(".crumbs").inner_text()


def test_the_context_map_says_who_read_what(demo_page: Any) -> None:
    tab(demo_page, "Context")
    view = demo_page.locator("#view")
    assert re.search(r"9\d\.\d%\s+of 54\.\d kB was read by a model", view.inner_text())
    assert "Never read by a model" in view.inner_text()
    demo_page.locator(".map canvas").click(position={"x": 3, "y": 8})
    assert "ticket 0 product" in view.locator(".readers pre").inner_text()
    view.locator(".readers button").first.click()
    assert demo_page.locator("#detail").is_visible()


def test_search_filters_and_links_come_back(demo_page: Any, pages: Pages) -> None:
    demo_page.keyboard.press("/")
    demo_page.keyboard.type("error path:480")
    demo_page.get_by_text("2 hits of").wait_for()
    demo_page.locator("#found .row").first.click()
    address, detail = demo_page.url, demo_page.locator("#detail").inner_text()
    with pages.browser.showing(pages.folder / "demo.html", f"#{address.partition('#')[2]}") as again:
        assert again.locator("#query").input_value() == "error path:480"
        assert again.locator("#hits").inner_text().startswith("2 hits")
        assert again.locator("#detail").inner_text() == detail


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state:failed kind:call", lambda item: item["type"] == "call" and item["error"]),
        ("kind:call cost>0.00002", lambda item: item["type"] == "call" and item["usage"]["cost"] > 0.00002),
        ('"charged twice" kind:call -is', lambda item: False),
        ("kind:turn", lambda item: item["type"] == "turn"),
        ("kind:call state:cut", lambda item: item["type"] == "call" and item.get("flaw") == "cut"),
    ],
)
def test_a_query_finds_what_the_records_say(pages: Pages, query: str, expected: Any) -> None:
    from urllib.parse import quote

    from rlm_langchain.trajectory.tree import flatten

    number = sum(bool(expected(record)) for record in flatten(pages.output["trajectory"]))
    with pages.browser.showing(pages.folder / "demo.html", f"#view=found&q={quote(query)}") as page:
        assert page.locator("#hits").inner_text().split()[0] == f"{number:,}"


def test_keys_step_through_problems_and_help_lists_them(demo_page: Any) -> None:
    total = int(re.search(r"(\d+) problems", demo_page.locator("#problems").inner_text())[1])
    seen = set()
    for _ in range(total):
        demo_page.keyboard.press("n")
        seen.add(demo_page.evaluate("location.hash"))
    assert len(seen) == total
    demo_page.keyboard.press("?")
    assert "next and previous problem" in demo_page.locator("dialog").inner_text()
    demo_page.keyboard.press("Escape")
    was = demo_page.evaluate("getComputedStyle(document.body).backgroundColor")
    demo_page.keyboard.press("t")
    assert demo_page.evaluate("getComputedStyle(document.body).backgroundColor") != was


def test_views_fit_a_phone_and_controls_have_names(pages: Pages) -> None:
    with pages.browser.showing(pages.folder / "demo.html", "#at=call:15", width=400, scheme="dark") as page:
        assert page.locator("#detail").bounding_box()["width"] == 400
        page.keyboard.press("Escape")
        for name in ("Run", "Timeline", "Context", "Costs", "Search"):
            tab(page, name)
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
            nameless = page.evaluate(
                "[...document.querySelectorAll('button, canvas, [role=listbox]')].filter(one => "
                "!(one.textContent.trim() || one.getAttribute('aria-label'))).map(one => one.outerHTML)"
            )
            assert nameless == []


# --- Texts ---


def hostile() -> list[Record]:
    """A run of which every text is hostile."""
    context = {**CONTEXT, "about": HOSTILE, "preview": HOSTILE}
    top = (
        RecordBuilder()
        .question(HOSTILE, context)
        .turn(0, f"{HOSTILE}\n```repl\n{HOSTILE}\n```", HOSTILE)
        .cell(0, HOSTILE)
    )
    top.wave(0, 0, 7)
    child = (
        top.below(0).question(HOSTILE, None).turn(0, HOSTILE, "x").cell(0, "x").output(0, HOSTILE).answer(HOSTILE)
    )
    top.call(0, 0, HOSTILE, kind="rlm", preview=HOSTILE, child=child.records, model=HOSTILE)
    for number in range(1, 7):
        top.call(0, number, HOSTILE, error=HOSTILE if number % 2 else None, preview=HOSTILE, model=HOSTILE)
    top.output(0, HOSTILE, error=True).note(HOSTILE + INVISIBLE, "reader").answer(HOSTILE, "partial", "degraded")
    top.records[-1]["citations"] = [{"quote": HOSTILE, "source": HOSTILE, "start": 0, "end": 5}]
    return top.records


def test_hostile_texts_are_shown_as_texts(pages: Pages) -> None:
    path = pages.write("hostile", hostile())
    with pages.browser.showing(path) as page:
        page.locator(".cite").click()
        texts = []
        for name in ("Run", "Timeline", "Context", "Costs", "Search"):
            tab(page, name)
            texts.append(page.locator("body").inner_text())
            for at in ("call:1", "call:0", "turn:.0", "cell:.0", "answer:", "question:"):
                page.evaluate(f"location.hash = location.hash.replace(/&?at=[^&]*/, '') + '&at={at}'")
                page.locator("#detail h2").wait_for()
                texts.append(page.locator("#detail").inner_text())
            page.keyboard.press("Escape")
        assert any("<script>window.hacked=1</script>" in text for text in texts)
        assert all("\\u202etxt.exe\\u202c \\x1b[31m" in text for text in texts if "txt.exe" in text)
        assert not any(set(text) & (set(INVISIBLE) - {" "}) for text in texts)
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.querySelectorAll('img, b + b, iframe, script:not([type])').length") == 0


def test_invisible_characters_are_what_they_are_in_the_terminal(pages: Pages) -> None:
    with pages.browser.showing(pages.write("invisible", hostile()), "#at=note:.1") as page:
        assert page.locator("#detail pre").text_content() == visible(HOSTILE + INVISIBLE)


# --- Numbers ---


def values(page: Any, selector: str) -> list[float]:
    return [float(one) for one in page.locator(f"{selector} data").evaluate_all("all => all.map(one => one.value)")]


def test_every_number_is_the_ledgers(pages: Pages) -> None:
    assert len(pages.random) >= TREES
    for number, output in enumerate([pages.output, *pages.random]):
        root, sub = Usage(**output["usage"]["root"]), Usage(**output["usage"]["sub"])
        total = root.plus(sub)
        path = pages.write(f"tree-{number}", output["trajectory"])
        with pages.browser.showing(path, "#view=costs") as page:
            cost, calls, tokens, turns = (
                values(page, f".figure.{name}")[0] for name in ("cost", "model-calls", "tokens", "turns")
            )
            assert (calls, tokens, turns) == (total.calls, total.tokens, output["iterations"])
            assert cost == pytest.approx(output["cost_usd"])
            rows = [
                values(page, f".table:nth-child(1) tbody tr:nth-child({row + 1})")
                for row in range(page.locator(".table").nth(0).locator("tbody tr").count())
            ]
            by_model = [sum(column) for column in zip(*rows, strict=True)]
            assert by_model[:4] == [total.calls, total.input, total.cached, total.output]
            assert by_model[4] == pytest.approx(output["cost_usd"])
            levels = values(page, ".table:nth-child(2) tbody")
            assert sum(levels[1::3]) + sum(levels[2::3]) == pytest.approx(output["cost_usd"])
            assert levels[1] == pytest.approx(root.cost)


# --- Runs that are not whole ---


def test_a_run_that_was_interrupted_is_shown_as_far_as_it_came(pages: Pages) -> None:
    top = (
        RecordBuilder()
        .question()
        .turn(0, "```repl\nllm_query('x')\n```", "llm_query('x')")
        .cell(0, "llm_query('x')")
    )
    top.wave(0, 0, 9).call(0, 0, preview="It is", prompt_chars=7_000).call(0, 3, error="no").output(0, "x")
    for cut in (0, 1, 2, 6):
        with pages.browser.showing(pages.write(f"cut-{cut}", top.records[:cut])) as page:
            for name in ("Timeline", "Context", "Costs", "Search", "Run"):
                tab(page, name)
            assert "No answer yet" in page.locator("#summary").inner_text()
    with pages.browser.showing(pages.folder / "cut-6.html", "#at=call:0") as page:
        assert "Only the first 5 of 7,000 characters were recorded" in page.locator("#detail").inner_text()
        assert "9 model calls" in page.locator(".fan").text_content()
        assert "7 not answered yet" in page.locator(".fan").text_content()


def test_whole_prompts_are_shown_where_they_were_kept(pages: Pages) -> None:
    top = RecordBuilder().question().turn(0, "", "llm_query(x)").cell(0, "llm_query(x)").wave(0, 0, 1)
    ref = ContextStore(pages.folder).reference([f"It is {'so ' * 2_000}"])
    top.records[-1].update(prompts_ref=ref)
    top.call(0, 0, preview="It is", prompt_chars=6_006)
    for store, shown in (
        (ContextStore(pages.folder), "so so so so"),
        (None, "the page contains the first 5 of 6,006"),
    ):
        with pages.browser.showing(pages.write("kept", top.records, store=store), "#at=call:0") as page:
            assert shown in page.locator("#detail").inner_text()


def test_an_idle_period_is_shortened_and_the_view_says_so(pages: Pages) -> None:
    top = RecordBuilder().question().turn(0, "x", "print(1)").cell(0, "print(1)").output(0, "1")
    late = (
        RecordBuilder(clock=count(90_000))
        .turn(1, "y", "FINAL(1)")
        .cell(1, "FINAL(1)", 1)
        .output(1, "", outcome="answered")
        .answer(1)
    )
    path = pages.write("pause", [*top.records, *late.records])
    with pages.browser.showing(path, "#view=time") as page:
        assert "An idle period is shortened: 24 h 43 min" in page.locator("#view").inner_text()
        tab(page, "Costs")
        assert "Idle for 24 h 43 min" in page.locator("#view").inner_text()


def test_a_conversation_shows_its_last_answer_first(pages: Pages) -> None:
    top = (
        RecordBuilder()
        .question("First?")
        .turn(0, "x", "FINAL(1)")
        .cell(0, "FINAL(1)")
        .output(0, "", outcome="answered")
        .answer("one")
    )
    top.question("Second?", None).turn(1, "x", "FINAL(2)").cell(1, "FINAL(2)", 1).output(
        1, "", outcome="answered"
    ).answer("two")
    with pages.browser.showing(pages.write("talk", top.records)) as page:
        assert page.locator("h1").inner_text() == "Second?"
        assert page.locator(".said").inner_text() == "two"
        assert "First?" in page.locator("#view").inner_text() or "one" in page.locator("#view").inner_text()


def test_a_notebook_shows_the_page_in_a_frame(pages: Pages) -> None:
    frame = RunPage(hostile())._repr_html_()
    path = pages.folder / "notebook.html"
    path.write_text(f"<!doctype html><html data-ready='yes'><body>{frame}</body></html>", encoding="utf-8")
    with pages.browser.showing(path) as page:
        inside = page.frame_locator("iframe")
        inside.locator("html[data-ready]").wait_for()
        inside.get_by_role("tab", name="Costs").click()
        inside.get_by_text("By model").wait_for()
