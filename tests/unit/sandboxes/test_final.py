"""`FINAL` ends its cell, wherever it is called: no call after it is paid for, and the first answer stands."""

from __future__ import annotations

import pytest

from rlm_langchain import create_rlm
from rlm_langchain.testing.conformance.answers import ANSWERED
from rlm_langchain.testing.models import script

POOL = "from concurrent.futures import ThreadPoolExecutor\n"
THREADS = (
    f"{POOL}def work(n):\n    FINAL('one')\n    llm_query('paid')\n"
    "with ThreadPoolExecutor(4) as pool:\n    list(pool.map(work, range(4)))\nllm_query('paid')",
    f"{POOL}def work(n):\n    if n:\n        llm_query('paid')\n    FINAL('one')\n"
    "pool = ThreadPoolExecutor(4)\nwork = [pool.submit(work, n) for n in range(4)]\nllm_query('paid')",
    f"{POOL}def work(n):\n    llm_query('paid') if n else FINAL('one')\n"
    "with ThreadPoolExecutor(4) as pool:\n    waiting = [pool.submit(work, n) for n in (1, 2, 0)]\nFINAL('two')",
    "import threading\nthread = threading.Thread(target=FINAL, args=('one',))\n"
    "thread.start()\nthread.join()\nllm_query('paid')\nFINAL('two')",
    "import asyncio\nasync def work():\n    FINAL('one')\n    llm_query('paid')\n"
    "await asyncio.gather(work(), work())\nllm_query('paid')",
    "import asyncio\nawait asyncio.to_thread(FINAL, 'one')\nllm_query('paid')",
    "import contextlib\nwhile True:\n    with contextlib.suppress(BaseException):\n        FINAL('one')",
    "exec('try:\\n    FINAL(\"one\")\\nexcept BaseException:\\n    llm_query(\"paid\")')\nllm_query('paid')",
)


@pytest.mark.parametrize(
    ("sandbox", "code"),
    [
        *((sandbox, code) for sandbox in ("cpython", "monty") for code in ANSWERED),
        *(("cpython", c) for c in THREADS),
    ],
)
def test_the_first_answer_ends_the_run_and_no_call_after_it_is_paid(sandbox, code):
    asked: list[str] = []
    output = create_rlm(script(code, leaf=lambda p: asked.append(p) or p), sandbox=sandbox).invoke("q")
    assert (output["answer"], output["status"], asked) == ("one", "complete", [])


def test_tasks_that_an_answer_has_ended_ask_nothing_in_a_later_cell():
    asked: list[str] = []
    schema = {"type": "integer"}  # "one" does not fit, so that the run goes on with the same REPL
    model = script(THREADS[2], "print(llm_query('later'))", "FINAL(1)", leaf=lambda p: asked.append(p) or p)
    output = create_rlm(model, sandbox="cpython", output_schema=schema).invoke("q")
    assert (output["answer"], asked) == (1, ["later"])
