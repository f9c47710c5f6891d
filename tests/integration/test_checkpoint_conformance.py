"""A saver as we use it, guarded and strict, passes LangGraph's own suite; what is on disk is plain."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import Budget, JournalError, create_rlm
from rlm_langchain.durability.checkpointer import checked_saver
from rlm_langchain.graph.nodes.approve import answered
from rlm_langchain.testing.models import script

THREAD: Any = {"configurable": {"thread_id": "t"}}


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Any]:
    yield InMemorySaver()


def sqlite(folder: Path) -> AbstractAsyncContextManager[Any]:
    return AsyncSqliteSaver.from_conn_string(str(folder / f"{len(list(folder.iterdir()))}.sqlite"))


async def report_of(opening: Any, folder: Path) -> CapabilityReport:
    """What the suite says of a saver as we use it."""

    @checkpointer_test(name="guarded")
    async def factory() -> Any:
        async with opening(folder) as saver:
            yield checked_saver(saver)

    return await validate(factory)


@pytest.mark.parametrize("opening", [memory, sqlite], ids=["memory", "sqlite"])
async def test_a_guarded_saver_passes_langgraphs_own_suite(opening: Any, tmp_path: Path) -> None:
    report = await report_of(opening, tmp_path)
    assert report.passed_all_base(), report.to_dict()
    assert report.conformance_level() == "FULL"


class Extensions(list[str]):
    """What in a value is more than plain msgpack, by its class."""

    def read(self, blob: bytes) -> None:
        self._walk(ormsgpack.unpackb(blob, ext_hook=self._hook, option=ormsgpack.OPT_NON_STR_KEYS))

    def _hook(self, code: int, data: bytes) -> Any:
        told = ormsgpack.unpackb(data, ext_hook=self._hook, option=ormsgpack.OPT_NON_STR_KEYS)
        if code != EXT_DELTA_SNAPSHOT:
            self.append(f"{told[0]}.{told[1]}")
        return told

    def _walk(self, value: Any) -> None:
        if type(value) is dict:
            assert all(type(key) is str for key in value)
        for part in value.values() if type(value) is dict else value if type(value) is list else ():
            self._walk(part)
        assert type(value) in (str, int, float, bool, type(None), list, dict), type(value)


def test_what_is_on_disk_is_plain_and_no_pickle(tmp_path: Path) -> None:
    """A run with all that there is: children, batches, failed calls, an approval, citations, a conversation."""

    def leaf(prompt: str) -> str:
        if prompt == "bad":
            raise ValueError(prompt)
        return prompt

    cells = (
        "kids = rlm_query_batched(['child a', 'child b'], [context[:2], {'k': [1, 2.5, None, True]}])",
        "print(llm_query_batched(['x', 'bad', 'y']), budget())",
        "1 / 0",
        "FINAL([kids, {'n': 1}])",
    )
    model = script(*cells, leaf=leaf)
    connection = sqlite3.connect(tmp_path / "threads.sqlite", check_same_thread=False)
    rlm = create_rlm(
        model, checkpointer=SqliteSaver(connection), budget=Budget(depth=2, approve_above_calls=6, iterations=9)
    )
    output: Any = rlm.invoke({"query": "q", "context": "text"}, THREAD)
    while "__interrupt__" in output:
        output = rlm.invoke(answered(output, lambda _: True), THREAD)
    rlm.invoke({"query": "and?", "context": ["more"]}, THREAD)
    found, seen = Extensions(), 0
    for table, column in (("checkpoints", "checkpoint"), ("writes", "value")):
        for kind, blob in connection.execute(f"select type, {column} from {table}"):
            assert kind in ("msgpack", "null"), kind
            seen += 1
            if kind == "msgpack":
                found.read(blob)
    connection.close()
    assert seen > 50
    assert set(found) <= {"langgraph.types.Send", "langgraph.types.Interrupt"}
    assert "langgraph.types.Send" in found


class Planted:
    """A class that a row could name."""

    def __init__(self, *given: object) -> None:
        raise AssertionError("it was made")


def test_a_class_that_a_row_names_is_not_made_whatever_the_saver_allows(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "threads.sqlite", check_same_thread=False)
    loose = SqliteSaver(connection, serde=JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=True))
    rlm = create_rlm(script("x = 1", "FINAL(x)"), checkpointer=loose)
    rlm.invoke("q", THREAD)
    planted = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb((__name__, "Planted", {}))))
    connection.execute("update writes set value = ? where channel = 'trajectory'", (planted,))
    connection.commit()
    with pytest.raises(JournalError):
        rlm.invoke("again", THREAD)
    connection.execute("update writes set type = 'pickle', value = ? where channel = 'trajectory'", (PICKLED,))
    connection.commit()
    with pytest.raises(JournalError):
        rlm.invoke("again", THREAD)
    connection.close()


PICKLED = b"cos\n_exit\n(I3\ntR."
"""Ends the process of whoever unpickles it."""


class Cipher:
    """Stands for a real one: hides what it is given, and knows when that was not its own."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "flipped", bytes(byte ^ 0x5A for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "flipped"
        return bytes(byte ^ 0x5A for byte in ciphertext)


def test_a_saver_that_encrypts_stays_one(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "threads.sqlite", check_same_thread=False)
    saver = SqliteSaver(connection, serde=EncryptedSerializer(Cipher()))
    rlm = create_rlm(
        script("secret = llm_query('a secret')", "FINAL(secret)", "FINAL(secret * 2)"), checkpointer=saver
    )
    assert rlm.invoke("q", THREAD)["answer"] == "<a secret>"
    assert rlm.invoke("again", THREAD)["answer"] == "<a secret><a secret>"
    connection.commit()
    connection.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a secret" not in written
    assert bytes(byte ^ 0x5A for byte in b"a secret") in written
