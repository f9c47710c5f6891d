"""Threads: the calls of a thread pool go out together, and always in the same order."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    echo,
    fault,
    finish,
    output,
)
from rlm_langchain.testing.conformance.calls import FAILED
from rlm_langchain.types import Call, Completed, Suspended

POOLS = {
    "map": "with ThreadPoolExecutor() as pool:\n    print(list(pool.map(llm_query, 'abc')))",
    "submit": "pool = ThreadPoolExecutor(8)\ntasks = [pool.submit(llm_query, p) for p in 'abc']\n"
    "print([t.result() for t in tasks])",
    "as_completed": "with ThreadPoolExecutor() as pool:\n"
    "    print([t.result() for t in as_completed([pool.submit(llm_query, p) for p in 'abc'])])",
    "wait": "pool = ThreadPoolExecutor()\ntasks = [pool.submit(lambda p=p: llm_query(p)) for p in 'abc']\n"
    "wait(tasks)\nprint([t.result() for t in tasks])",
    "asyncio": "import asyncio\nasync def main():\n"
    "    return await asyncio.gather(*[asyncio.to_thread(llm_query, p) for p in 'abc'])\n"
    "print(asyncio.run(main()))",
    "await": "import asyncio\nprint(await asyncio.gather(*[asyncio.to_thread(llm_query, p) for p in 'abc']))",
}


class PoolClauses(Clauses):
    """Threads, in sandboxes that have them."""

    @pytest.mark.parametrize("way", POOLS)
    def test_a_thread_pool_asks_all_at_once_and_in_order(self, session: SandboxSession, way: str) -> None:
        self.needs("cpython")
        step = session.run("from concurrent.futures import *\n" + POOLS[way])
        assert step == Suspended((Call("llm", "a"), Call("llm", "b"), Call("llm", "c")))
        assert finish(session, step, echo) == Completed("['<a>', '<b>', '<c>']\n")

    def test_a_thread_pool_has_no_more_calls_under_way_than_workers(self, session: SandboxSession) -> None:
        self.needs("cpython")
        code = "with ThreadPoolExecutor(2) as pool:\n    print(list(pool.map(llm_query, 'abc')))"
        step = session.run("from concurrent.futures import ThreadPoolExecutor\n" + code)
        assert step == Suspended((Call("llm", "a"), Call("llm", "b")))
        assert finish(session, step, echo) == Completed("['<a>', '<b>', '<c>']\n")

    def test_a_failed_call_in_a_thread_pool_is_raised_where_its_result_is_asked_for(
        self, session: SandboxSession
    ) -> None:
        self.needs("cpython")
        code = "with ThreadPoolExecutor() as pool:\n    task = pool.submit(llm_query, 'a')\ntask.result()"
        error = fault(session, "from concurrent.futures import ThreadPoolExecutor\n" + code, lambda _: FAILED)
        assert f"LLMError: {FAILED.error}" in error

    def test_free_threads_can_ask(self, session: SandboxSession) -> None:
        self.needs("cpython")
        code = """
import threading
out = []
threads = [threading.Thread(target=lambda p=p: out.append(llm_query(p))) for p in "abc"]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(out))
"""
        assert output(session, code) == "['<a>', '<b>', '<c>']\n"
