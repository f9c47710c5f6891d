"""The hostile corpus as a pytest suite: programs that attack, and a sandbox that must contain them.

    class TestMySandboxIsHostileProof(HostileConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def sandbox(cls):
            return MySandbox()

Every program runs with 5 s, 256 MB and 1 MiB of output. It is contained if no secret gets out, nothing changes
on the host or is printed on its standard error, each step ends within its limit plus 1.5 s, the host does not
grow by more than 32 MB, no process is left, and the next session works. `RLM_HOSTILE_CORPUS` names another
corpus in the same format.

Programs run in several processes at once, because most of them wait for a limit. So the sandbox must support
pickling.
"""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import pytest

from rlm_langchain.protocols import Sandbox
from rlm_langchain.testing.hostile.controls import CONTROLS, Unconfined
from rlm_langchain.testing.hostile.judge import Snippet, judged
from rlm_langchain.types import Limits

CORPUS = Path(__file__).with_name("hostile_snippets.json")
MORE = Path(__file__).with_name("hostile_more.json")
"""Additions to the corpus: the worker's own objects, system calls by number, threads that outlive a cell."""

LANES = min(3 * (os.cpu_count() or 1), 12)
"""Number of programs that run at once. Most of them wait for a limit of wall-clock time."""

Verdict = tuple[str, ...]


class Verdicts(NamedTuple):
    """The verdict on each program."""

    of: dict[str, Future[Verdict]]
    again: Callable[[Snippet], Verdict]
    """Judges a program a second time, alone."""

    def on(self, snippet: Snippet) -> Verdict:
        """Return the problems with a program. One that only took too long is judged again, because other programs
        ran beside it."""
        problems = self.of[snippet["id"]].result()
        late = bool(problems) and all(problem.startswith("a step took") for problem in problems)
        return self.again(snippet) if late else problems


def corpus() -> list[Snippet]:
    """Return the programs."""
    other = os.environ.get("RLM_HOSTILE_CORPUS")
    paths = [Path(other)] if other else [CORPUS, MORE]
    read = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return cast("list[Snippet]", [snippet for snippets in read for snippet in snippets])


class HostileConformance:
    """One test for each program of the corpus, and one for each control."""

    limits: ClassVar[Limits] = Limits(seconds=5, memory=256 << 20, output=1 << 20)

    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls) -> Sandbox:
        """Return the sandbox under test."""
        raise NotImplementedError("give the subclass a `sandbox` fixture with scope='class'")

    @pytest.fixture(scope="class")
    @classmethod
    def verdicts(cls, sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Verdicts]:
        """Yield the verdicts on all programs, as they arrive."""
        wanted = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
        chosen = [snippet for snippet in corpus() if snippet["id"] in wanted]
        chosen.sort(key=lambda snippet: snippet["category"] != "resource")  # the slowest first
        with _judges(LANES) as pool:
            found = {s["id"]: pool.submit(judged, sandbox, s, cls.limits) for s in chosen}

            def again(snippet: Snippet) -> Verdict:
                wait(found.values())
                return pool.submit(judged, sandbox, snippet, cls.limits).result()

            yield Verdicts(found, again)
            pool.shutdown(cancel_futures=True)

    @pytest.mark.parametrize("snippet", corpus(), ids=lambda snippet: snippet["id"])
    def test_it_is_contained(
        self, sandbox: Sandbox, snippet: Snippet, verdicts: Verdicts, record_property: Any
    ) -> None:
        record_property("hostile", (sandbox.name, snippet["category"]))
        assert verdicts.on(snippet) == ()

    @pytest.mark.parametrize("check", CONTROLS)
    def test_without_a_sandbox_it_is_seen(self, check: str, control: Any) -> None:
        assert any(CONTROLS[check].problem in problem for problem in control(check))

    @pytest.fixture(scope="class")
    @classmethod
    def control(cls) -> Iterator[Any]:
        """Yield a function that judges a harmless program without a sandbox, in another process."""
        with _judges(1) as pool:

            def judge(check: str) -> tuple[str, ...]:
                snippet = Snippet(id=check, category="control", code=CONTROLS[check].code)
                return pool.submit(judged, Unconfined(), snippet, CONTROLS[check].limits).result()

            yield judge


def _judges(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes that only judge programs, one at a time each."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    clean = multiprocessing.get_context("forkserver")
    clean.set_forkserver_preload([judged.__module__])
    return ProcessPoolExecutor(count, clean, initializer=gc.freeze)


def summary(reports: dict[str, list[Any]]) -> list[str]:
    """Summarise pytest's reports as "contained N/N", for each sandbox and category."""
    counts: dict[tuple[str, str], list[int]] = {}
    for outcome in ("passed", "failed"):
        for report in reports.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "hostile" and report.when == "call":
                    count = counts.setdefault(tuple(value), [0, 0])
                    count[0] += outcome == "passed"
                    count[1] += 1
    return [
        f"{sandbox:10} {category:15} contained {good}/{all_}"
        for (sandbox, category), (good, all_) in sorted(counts.items())
    ]
