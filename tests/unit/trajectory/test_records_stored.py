"""Records of one run of each kind, compared byte for byte with those that an earlier version wrote.

Left out: times, checksums (they cover the times), the words that a model is shown, which may be improved, and the
tokens that they are.
`python -m tests.unit.trajectory.test_records_stored` writes the file again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import Budget, create_rlm
from rlm_langchain.testing.models import FunctionModel, script

STORED = Path(__file__).parents[2] / "data" / "records.json"
LEFT_OUT = ("time", "seconds", "seal", "signature", "input")


def double(n: int) -> int:
    """Twice a number."""
    if n < 0:
        raise ValueError("negative")
    return n * 2


def leaf_calls() -> Any:
    code = """
same = llm_query_batched(['one', 'two', 'one', 'cut'])
again = llm_query('one')
about = llm_query('about it', 'a text')
left = budget()
try:
    _host_call('nothing', 'x')
except Exception as e:
    print(e)
print(same, again, about)
FINAL(left['iterations'])
"""
    model = script(code, leaf=lambda prompt: "" if prompt == "cut" else f"<{prompt}>")
    return create_rlm(model, budget=Budget(seconds=None)).completion("q", "a long context " * 40)


def child_runs() -> Any:
    code = (
        "a = rlm_query('KID', 'text')\nb = rlm_query('KID', 'text')\nc = rlm_query('NONE')\nFINAL(a + b + str(c))"
    )
    model = script(code, "FINAL('end')", children={"KID": ["FINAL(llm_query('in'))"], "NONE": ["FINAL(None)"]})
    budget = Budget(depth=2, seconds=None, iterations=3)
    return create_rlm(model, budget=budget).completion("q")


def used_up_depth() -> Any:
    return create_rlm(script("FINAL(rlm_query('q', 'text'))"), budget=Budget(depth=1)).completion("q")


def tools() -> Any:
    code = """
said = []
for n in (1, -1, 2):
    try:
        said.append(double(n))
    except Exception as e:
        said.append(str(e))
FINAL(said)
"""
    return create_rlm(script(code), tools=[double], budget=Budget(tool_calls=2)).completion("q")


def searches() -> Any:
    code = "FINAL([hit['text'] for hit in search('whale', 2)])"
    context = ["the whale is white", "a ship", "the sea"]
    return create_rlm(script(code), retriever="bm25").completion("q", context)


def last_turn() -> Any:
    code = "print(1)\ntry:\n    llm_query('late')\nexcept Exception as e:\n    print(e)"
    return create_rlm(script(code), budget=Budget(iterations=1)).completion("q")


def a_call_too_many() -> Any:
    code = "print(llm_query_batched(['a', 'b', 'c']))\nFINAL('so')"
    return create_rlm(script(code), budget=Budget(calls=3)).completion("q")


def words_and_errors() -> Any:
    model = script("prose: hm", "1/0", "FINAL('')", "FINAL('at last')")
    return create_rlm(model).completion("q")


def died() -> Any:
    model = script(
        "while True:\n    try:\n        llm_query('x')\n    except Exception:\n        pass", "FINAL('end')"
    )

    def leaf(messages: Any) -> Any:
        if messages[0].type != "system":
            raise ValueError("no")
        return model.function(messages)

    return create_rlm(FunctionModel(function=leaf)).completion("q")


def approval() -> Any:
    rlm = create_rlm(
        script("print(llm_query_batched(['a', 'b']))", "FINAL(llm_query('c'))"),
        budget=Budget(approve_above_calls=2),
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "t"}}
    output: Any = rlm.invoke("q", config)
    for granted in (True, False, False):
        if "__interrupt__" in output:
            output = rlm.invoke(Command(resume=granted), config)
    return output


def two_questions() -> Any:
    rlm = create_rlm(script("FINAL(llm_query('a'))", "FINAL(llm_query('b'))"), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    rlm.invoke({"query": "first", "context": "text"}, config)
    return rlm.invoke({"query": "second"}, config)


def history() -> Any:
    code = "text = _host_call('history', '')\nFINAL(len(text) > 0)"
    return create_rlm(script("print('one')", code)).completion("q")


RUNS: tuple[Callable[[], Any], ...] = (
    leaf_calls,
    child_runs,
    used_up_depth,
    tools,
    searches,
    last_turn,
    a_call_too_many,
    words_and_errors,
    died,
    approval,
    two_questions,
    history,
)


def comparable(value: Any) -> Any:
    """Return records without what differs from run to run, and without the words that a model is shown."""
    if isinstance(value, list):
        return [comparable(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: comparable(one) for key, one in value.items() if key not in LEFT_OUT}
    is_shown = value.get("type") in ("question", "output") or value.get("to") == "model"
    return {**kept, "text": "(shown to a model)"} if is_shown else kept


def recorded(run: Callable[[], Any]) -> list[str]:
    """Return the records of a run, each as a line of JSON."""
    return [json.dumps(record) for record in comparable(run()["trajectory"])]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_records_of_a_run_are_what_they_were(run: Callable[[], Any]) -> None:
    assert recorded(run) == json.loads(STORED.read_text())[run.__name__]


def main() -> None:
    """Write the file again."""
    os.environ["RLM_HOME"] = tempfile.mkdtemp()
    STORED.write_text(json.dumps({run.__name__: recorded(run) for run in RUNS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
