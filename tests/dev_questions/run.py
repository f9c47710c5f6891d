"""Ask the development questions: `python -m tests.dev_questions.run [--only dev|held] [--match TEXT] [--json]`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlm_langchain import Budget, create_rlm
from rlm_langchain.errors import RLMError
from tests.dev_questions import texts
from tests.dev_questions.questions import QUESTIONS, Question
from tests.dev_questions.scoring import right


@dataclass(frozen=True, slots=True)
class Result:
    """How one question went."""

    name: str
    query: str
    right: bool
    seconds: float
    turns: int
    stop_reason: str
    answer: str
    truth: str
    trajectory: list[Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, and print. The exit code says whether at least 60% were right."""
    options = _options(arguments)
    asked = [q for q in QUESTIONS if options.only in (None, q.set) and options.match in q.name]
    rlm = create_rlm(
        root_model=options.model, budget=Budget(iterations=options.iterations), sandbox=options.sandbox
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for question in asked:
            results.append(ask(rlm, question, Path(folder)))
            if not options.json:
                print(line(results[-1]), flush=True)
    if options.json:
        json.dump([asdict(result) for result in results], sys.stdout, indent=1)
    else:
        print(total(results))
    return 0 if sum(result.right for result in results) >= 0.6 * len(results) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.dev_questions.run", description=__doc__)
    parser.add_argument("--only", choices=["dev", "held"])
    parser.add_argument("--match", default="", help="only questions whose name holds this text")
    parser.add_argument("--model", default="local")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--json", action="store_true", help="everything, with trajectories")
    return parser.parse_args(arguments)


def ask(rlm: Any, question: Question, folder: Path) -> Result:
    """Put one question, and judge the answer."""
    context = question.context()
    given = texts.written(context, folder / question.name) if question.folder else context
    began = time.monotonic()
    try:
        output = rlm.invoke({"query": question.query, "context": given})
    except RLMError as error:
        output = {"answer": None, "iterations": 0, "stop_reason": type(error).__name__, "trajectory": [str(error)]}
    truths = question.truths(context)
    return Result(
        name=question.name,
        query=question.query,
        right=right(output["answer"], truths, question.query),
        seconds=round(time.monotonic() - began, 1),
        turns=output["iterations"],
        stop_reason=output["stop_reason"],
        answer=repr(output["answer"])[:300],
        truth=repr(truths[0]),
        trajectory=output["trajectory"],
    )


def line(result: Result) -> str:
    """One result for the eye."""
    mark = "right" if result.right else "WRONG"
    how = f"{result.seconds:6.1f} s  {result.turns} turns  {result.stop_reason:10}"
    return f"{mark}  {result.name:14} {how}  {result.answer[:60]}  (truth: {result.truth[:60]})"


def total(results: Sequence[Result]) -> str:
    """All results in a line."""
    if not results:
        return "no such question"
    correct, seconds = sum(result.right for result in results), [result.seconds for result in results]
    return (
        f"{correct} of {len(results)} right ({correct / len(results):.0%}); "
        f"seconds: median {statistics.median(seconds):.1f}, most {max(seconds):.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
