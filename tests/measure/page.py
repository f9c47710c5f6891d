"""Measures the page of a run in a real browser: size, opening, scrolling, searching.

python -m tests.measure.page --calls 500 20000

The records are made by hand: a quarter of the calls in one fan-out of the top run, the others in child runs of a
hundred calls each. Times are the browser's own; for scrolling, the longest task while a view is scrolled through.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from rlm_langchain.records import Record
from rlm_langchain.types import Usage
from rlm_langchain.viewer.page import RunPage
from tests.browser import browser
from tests.records import RecordBuilder

WORDS = (
    "the",
    "ticket",
    "says",
    "that",
    "a",
    "customer",
    "was",
    "charged",
    "twice",
    "and",
    "nobody",
    "has",
    "answered",
)
TASKS = """window.long = [];
new PerformanceObserver((list) => window.long.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });"""
SCROLL = """async (selector) => {
  const box = selector ? document.querySelector(selector) : document.scrollingElement;
  window.long.length = 0;
  const step = Math.max(400, box.scrollHeight / 60);
  for (let at = 0; at < box.scrollHeight; at += step) {
    box.scrollTop = at;
    await new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)));
  }
  box.scrollTop = 0;
  await new Promise((next) => setTimeout(next, 300));
  return Math.max(0, ...window.long);
}"""
SEARCH = """async (query) => {
  const field = document.getElementById("query");
  const before = performance.now();
  field.value = query;
  field.dispatchEvent(new Event("input"));
  await new Promise((done) => {
    const look = () => (document.body.dataset.view === "found" && document.querySelector("#hits")?.textContent
      && new URLSearchParams(location.hash.slice(1)).get("q") === query ? done() : requestAnimationFrame(look));
    look();
  });
  return performance.now() - before;
}"""


def main() -> None:
    """For each number of calls, one page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, nargs="+", default=[500, 20_000])
    for calls in options.parse_args().calls:
        measure(calls)


def measure(calls: int) -> None:
    """Write a page, open it, and say how long everything took: by the clock, and in work of the page's thread."""
    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        path, records = Path(folder, "run.html"), run_of(calls)
        before = time.perf_counter()
        RunPage(records).to_html(path)
        print(
            f"{calls:,} calls: {path.stat().st_size / 1e6:.2f} MB, written in {time.perf_counter() - before:.1f} s"
        )
        with opened.showing(path, before=TASKS) as page:
            work = Work(page)
            page.reload()
            page.wait_for_selector("html[data-ready]")
            print(
                f"  opening: {page.locator('html').get_attribute('data-ready')} ms, {work.since():.0f} ms of work"
            )
            for name, selector in (("run", ""), ("timeline", ".chart"), ("costs", ""), ("search", "#found")):
                page.get_by_role("tab", name=name).click()
                work.since()
                longest = page.evaluate(SCROLL, selector)
                print(
                    f"  scrolling {name}: longest task {longest:.0f} ms, {work.since() / 60:.0f} ms of work a step"
                )
            for query in ("nobody", "error cost>0.01 path:3", "customer was charged"):
                took = page.evaluate(SEARCH, query)
                print(f"  searching {query!r}: {took:.0f} ms, {work.since():.0f} ms of work")


class Work:
    """The processor time of a page's thread, which other programs of the machine do not lengthen."""

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._then = 0.0

    def since(self) -> float:
        """Milliseconds since this was last asked."""
        metrics = {one["name"]: one["value"] for one in self._session.send("Performance.getMetrics")["metrics"]}
        now = metrics["TaskDuration"] * 1000
        passed, self._then = now - self._then, now
        return passed


def run_of(calls: int) -> list[Record]:
    """A run of so many calls."""
    chance, below = random.Random(0), max(1, calls * 3 // 4 // 100)
    top = RecordBuilder().question("What do the tickets say?").turn(0, "```\nask\n```", CODE).cell(0, CODE)
    here = calls - below * 100
    top.wave(0, 0, here)
    for number in range(here):
        call(top, chance, number)
    top.output(0, "done").turn(1, "", CODE).cell(1, CODE, 1).wave(1, here, below)
    for number in range(here, here + below):
        child = top.below(number).question(text(chance, 40), None).turn(0, "", CODE).cell(0, CODE).wave(0, 0, 100)
        for leaf in range(100):
            call(child, chance, leaf)
        child.output(0, text(chance, 100), outcome="answered").answer(text(chance, 30))
        used = Usage(101, 5_100, 0, 510, 10.5).record()
        top.call(1, number, text(chance, 30), kind="rlm", usage=used, child=child.records)
    return top.output(1, "done").turn(2, "", "FINAL(1)").cell(2, "FINAL(1)", 2).answer("Twice.").records


CODE = "# Ask about every ticket\nanswers = llm_query_batched(questions)\nprint(answers)"


def call(of: RecordBuilder, chance: random.Random, number: int) -> None:
    """One sub-call; some fail."""
    more: dict[str, Any] = {"preview": text(chance, 36)[:200], "prompt_chars": 4_000}
    of.call(0, number, text(chance, 30), error="the provider failed" if chance.random() < 0.02 else None, **more)


def text(chance: random.Random, words: int) -> str:
    """So many words, and a number that no other text has."""
    return f"{next(NUMBERS)} {' '.join(chance.choices(WORDS, k=words))}"


NUMBERS = count()

if __name__ == "__main__":
    main()
