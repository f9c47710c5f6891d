"""Asks the questions and says how many answers are right.

python -m tests.dev_questions.run                      # the development set, with the local model
python -m tests.dev_questions.run --set held --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

from rlm_langchain import Budget, create_rlm
from tests.dev_questions.contexts import CONTEXTS
from tests.dev_questions.questions import DEV, HELD_OUT, Question
from tests.dev_questions.score import is_right


def ask(rlm: Any, question: Question) -> dict[str, Any]:
    """One question: what was answered, whether it is right, and how long it took."""
    context = CONTEXTS[question.context]()
    began = time.perf_counter()
    output = rlm.completion(question.text, context)
    truth = question.answer(context)
    return {
        "context": question.context,
        "question": question.text,
        "right": is_right(output["answer"], truth, question.text),
        "answer": output["answer"],
        "truth": truth,
        "seconds": round(time.perf_counter() - began, 1),
        "turns": output["iterations"],
        "stop_reason": output["stop_reason"],
        "trajectory": output["trajectory"],
    }


def main() -> int:
    """The command."""
    options = argparse.ArgumentParser()
    options.add_argument("--set", choices=["dev", "held"], default="dev")
    options.add_argument("--model", default="local")
    options.add_argument("--only", help="questions whose text or context contains this")
    options.add_argument("--iterations", type=int, default=8)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    questions = DEV if given.set == "dev" else HELD_OUT
    chosen = [q for q in questions if not given.only or given.only in f"{q.context} {q.text}"]
    rlm = create_rlm(given.model, budget=Budget(iterations=given.iterations, calls=40))
    results = []
    for question in chosen:
        result = ask(rlm, question)
        results.append(result)
        if given.json:
            print(json.dumps(result), flush=True)
        else:
            mark = "right" if result["right"] else "WRONG"
            said = f"{result['answer']!r}"[:60]
            print(
                f"{mark} {result['seconds']:5.1f} s {result['turns']:2} turns {result['stop_reason']:10} "
                f"{question.context}: {question.text[:60]} -> {said} ({result['truth']!r})",
                flush=True,
            )
    right, seconds = sum(r["right"] for r in results), [r["seconds"] for r in results]
    print(
        f"{right} of {len(results)} right ({right / len(results):.0%}); "
        f"seconds: median {statistics.median(seconds):.1f}, longest {max(seconds):.1f}",
        file=sys.stderr if given.json else sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
