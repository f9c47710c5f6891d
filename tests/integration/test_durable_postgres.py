"""Runs over Postgres: killed and resumed, one process at a time, forked, and read with no class of anybody's.

The server is one of the tests' own. Without Postgres on this machine they are skipped, but not where `CI` is set:
`apt-get install postgresql`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any, TypedDict

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from rlm_langchain import JournalError, ThreadBusy, create_rlm
from rlm_langchain.durability.thread_lock import database_thread_lock
from rlm_langchain.runnable.garbage import references
from rlm_langchain.testing.models import script
from tests.durable.arena import Arena, arena, story
from tests.durable.limit import check_limit, check_usage
from tests.durable.postgres import postgres, tool
from tests.durable.program import Program

pytestmark = pytest.mark.skipif(
    not (tool("initdb") and tool("pg_ctl")) and not os.environ.get("CI"),
    reason="there is no Postgres on this machine: apt-get install postgresql",
)
KILLS = -(-int(os.environ.get("RLM_KILLS", "4")) // 2)
MODES = ("sync", "async")
OPTIONS: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as address:
        with PostgresSaver.from_conn_string(address) as saver:
            saver.setup()
        yield address


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("postgres")) as opened:
        yield opened


def program(field: Arena, database: str, mode: str, **options: Any) -> Program:
    return field.program(mode=mode, postgres=database, thread=f"{mode} {field.runs}", **options)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_a_checkpoint_it_goes_on(field: Arena, database: str, mode: str) -> None:
    expected = field.whole(program(field, database, mode))
    puts = expected["puts"]
    for i in range(KILLS):
        before = bool(i % 2)
        at = 1 + (i * puts // KILLS + puts // (2 * KILLS)) % puts
        done = field.survive(program(field, database, mode, kill_before=before), at)
        output = done.result["output"]
        assert story(output) == story(expected["output"])
        assert output["answer"] == expected["output"]["answer"]
        check_usage(output, expected["output"], 32)
        assert not done.paid_twice


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def test_forks_conversations_and_references_work_as_with_other_savers(database: str) -> None:
    with PostgresSaver.from_conn_string(database) as saver:
        rlm = create_rlm(script("a = llm_query('x')", "FINAL([a, context])", "FINAL('more')"), checkpointer=saver)
        first = rlm.invoke({"query": "q", "context": "c"}, thread("talk"))
        assert first["answer"] == ["<x>", "c"]
        assert rlm.invoke("and?", thread("talk"))["answer"] == "more"
        assert rlm.invoke(None, rlm.fork(thread("talk"), at=2))["answer"] == ["<x>", "c"]
        context = first["trajectory"][0]["context"]["sha256"]
        assert context in references(saver).contexts


def test_a_thread_that_another_machine_works_on_is_refused(database: str, tmp_path: Any) -> None:
    """Two homes are two machines: only the database is shared."""
    busy: list[str] = []

    def leaf(prompt: str) -> str:
        with PostgresSaver.from_conn_string(database) as other:
            twin = create_rlm(script("FINAL('stolen')"), checkpointer=other, home=tmp_path / "other")
            with pytest.raises(ThreadBusy, match="works on the thread 'shared', with the same database"):
                twin.invoke("q", thread("shared"))
        busy.append(prompt)
        return prompt

    with PostgresSaver.from_conn_string(database) as saver:
        rlm = create_rlm(script("FINAL(llm_query('x'))", leaf=leaf), checkpointer=saver, home=tmp_path / "one")
        assert rlm.invoke("q", thread("shared"))["answer"] == "x"
    assert busy == ["x"]


async def test_async_runs_hold_the_thread_too_and_the_loop_goes_on(database: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(database) as saver:
        rlm = create_rlm(script("FINAL(1)"), checkpointer=saver)
        with database_thread_lock(_Other(database), "asleep"):
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.ensure_future(tick())
            with pytest.raises(ThreadBusy):
                await rlm.ainvoke("q", thread("asleep"))
            ticking.cancel()
            assert ticks > 10
        assert (await rlm.ainvoke("q", thread("asleep")))["answer"] == 1


END_LOCKS = """
select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_run_whose_lock_was_lost_writes_nothing_more_and_another_one_goes_on(
    database: str, tmp_path: Any, mode: str
) -> None:
    """The lock's connection ends while a call is in flight, as it does when the network fails for a while."""
    config, others = thread(f"lost {mode}"), []

    def answer(prompt: str) -> str:
        others.append(prompt)
        if len(others) > 1:
            return "asked by the other"
        with PostgresSaver.from_conn_string(database) as other:
            other.conn.execute(END_LOCKS)
            twin = create_rlm(script(*cells, leaf=answer), checkpointer=other, home=tmp_path / "other")
            assert twin.invoke(None, config)["answer"] == "asked by the other"
        return "asked by the first"

    def ask() -> Any:
        with PostgresSaver.from_conn_string(database) as saver:
            rlm = create_rlm(script(*cells, leaf=answer), checkpointer=saver, home=tmp_path / "one")
            return rlm.invoke("q", config)

    async def aask() -> Any:
        async with AsyncPostgresSaver.from_conn_string(database) as saver:
            rlm = create_rlm(script(*cells, leaf=answer), checkpointer=saver, home=tmp_path / "one")
            return await rlm.ainvoke("q", config)

    cells = ("word = llm_query('x')", "FINAL(word)")
    with pytest.raises(JournalError, match=f"the lock is lost, .* \\(on the thread 'lost {mode}'\\)"):
        asyncio.run(aask()) if mode == "async" else ask()
    with PostgresSaver.from_conn_string(database) as saver:
        rlm = create_rlm(script(*cells, leaf=answer), checkpointer=saver, home=tmp_path / "other")
        assert rlm.invoke(None, config)["answer"] == "asked by the other", "which is what the thread holds"
    assert others == ["x", "x"]


class _Other(PostgresSaver):
    """Somebody else's saver of the same database."""

    def __init__(self, database: str) -> None:
        self.conn = psycopg.connect(database)

    def __del__(self) -> None:
        self.conn.close()


def test_pools_are_savers_too(database: str) -> None:
    with ConnectionPool(database, min_size=1, max_size=1, kwargs=OPTIONS) as pool:
        rlm = create_rlm(script("FINAL(1)"), checkpointer=PostgresSaver(pool))
        assert rlm.invoke("q", thread("pool"))["answer"] == 1

    async def pooled() -> Any:
        async with AsyncConnectionPool(database, min_size=1, max_size=1, kwargs=OPTIONS) as pool:
            rlm = create_rlm(script("FINAL(1)"), checkpointer=AsyncPostgresSaver(pool))
            return await rlm.ainvoke("q", thread("async pool"))

    assert asyncio.run(pooled())["answer"] == 1


def test_killed_with_calls_in_flight_it_never_sends_more_than_the_limit(tmp_path, database):
    seed = os.environ.get("RLM_SEED") or str(random.randrange(10**6))
    print(f"RLM_SEED={seed}")
    with arena(tmp_path, latency=0.05) as slow:
        check_limit(slow, random.Random(seed), KILLS, postgres=database)


ROWS = {
    "checkpoints": "thread_id, checkpoint_ns, checkpoint_id",
    "checkpoint_writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx",
    "checkpoint_blobs": "thread_id, checkpoint_ns, channel, version",
}


def test_the_loss_of_any_row_is_an_error_or_does_no_harm(database: str) -> None:
    config = thread("lossy")
    with PostgresSaver.from_conn_string(database) as saver, psycopg.connect(database) as other:
        cells = (
            "a = llm_query_batched(['x', 'y'])",
            "FINAL([a, context])",
            "FINAL([len(a), earlier[0]['status']])",
        )
        rlm = create_rlm(script(*cells), checkpointer=saver, sandbox="monty")
        told = [rlm.invoke({"query": "q", "context": "c"}, config)["answer"], rlm.invoke("and?", config)["answer"]]
        refused = 0
        for table, key in ROWS.items():
            rows = other.execute(f"select {key} from {table} where thread_id = 'lossy'").fetchall()
            other.commit()
            for row in rows:
                where = f"({key}) = ({', '.join(['%s'] * len(row))})"
                other.execute("drop table if exists kept")
                other.execute(f"create table kept as select * from {table} where {where}", row)
                assert other.execute(f"delete from {table} where {where}", row).rowcount == 1
                other.commit()
                try:
                    values = rlm.graph.get_state(config).values
                    assert values["answer"] in told, (table, row)
                except JournalError as error:
                    refused += "'lossy'" in str(error)
                other.execute(f"insert into {table} select * from kept")
                other.commit()
        assert refused > 20


@pytest.mark.parametrize("text", ["a\x00b", "a\udc80b"])
def test_any_text_is_kept_though_postgres_refuses_some(database: str, text: str) -> None:
    kept = text if text.isascii() else "a\ufffdb"
    cells = ("FINAL(1)", f"FINAL({text!r})", f"prose:{text}", f"prose:{text}", f"FINAL(llm_query({text!r}))")
    config: Any = {"configurable": {"thread_id": ascii(text), f"user {text}": text}, "metadata": {text: [text]}}
    with PostgresSaver.from_conn_string(database) as saver:
        rlm = create_rlm(script(*cells), checkpointer=saver)
        answers = [rlm.invoke(f"what is {text}?", config)["answer"] for _ in range(4)]
        assert rlm.graph.get_state(config).values["answer"] == answers[-1]
    assert answers == [1, kept, kept, f"<{kept}>"]


class Asking(TypedDict, total=False):
    query: str
    answer: Any
    output: Any


@pytest.mark.parametrize("way", ["as_node", "graph"])
def test_an_answer_with_any_text_is_kept_in_the_state_of_a_parent_graph(
    database: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    rlm = create_rlm(script("FINAL('a\\x00b')"))
    parent = StateGraph(Asking).add_node("ask", rlm.graph if way == "graph" else rlm.as_node(output="output"))
    parent.add_edge(START, "ask")
    with PostgresSaver.from_conn_string(database) as saver:
        graph = parent.compile(checkpointer=saver)
        found = graph.invoke({"query": "q"}, thread(f"parent {way}"))
        assert graph.get_state(thread(f"parent {way}")).values == found
    assert found["answer"] == "a\ufffdb"
    assert way == "graph" or found["output"]["answer"] == "a\x00b"
    assert "U+FFFD stands for 1 character" in caplog.text
