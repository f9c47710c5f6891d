"""Receipts on a disk that fills up in the middle of one."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlm_langchain.durability.receipts import Receipts, recorded, recorded_value
from rlm_langchain.errors import JournalError
from rlm_langchain.types import CallResult, Usage


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may be longer: a write that passes it is cut short, as by a disk that has so much room left."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signals = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signals)


def kept(receipts: Receipts, key: str, text: str) -> None:
    receipts.reserve_space()
    try:
        receipts.write(key, {"place": "", "usage": {"calls": 1}, "text": text})
    finally:
        receipts.release()


def test_a_receipt_that_is_written_in_part_is_none_and_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    receipts = Receipts(path)
    with at_most(150_000):
        kept(receipts, "before", "x" * 1_000)
        with pytest.raises(JournalError, match="cannot be stored"):
            kept(receipts, "cut", "x" * 200_000)
    kept(receipts, "after", "y")
    found = Receipts(path)  # of a process that comes while the other one still has the file open, or was killed
    assert [(found.find(key) or {}).get("text") for key in ("before", "cut", "after")] == ["x" * 1_000, None, "y"]
    receipts.close()
    assert (Receipts(path).find("after") or {})["text"] == "y"


def test_a_reply_is_made_once_and_a_failure_again(tmp_path: Path) -> None:
    made: list[CallResult] = []

    async def ask(receipts: Receipts | None, reply: CallResult) -> CallResult:
        async def make() -> CallResult:
            made.append(reply)
            return reply

        return await recorded(receipts, "0 tool x", "0", make)

    async def process(*replies: CallResult) -> list[CallResult]:
        receipts = Receipts(tmp_path / "receipts.jsonl")
        try:
            return [await ask(receipts, reply) for reply in replies]
        finally:
            receipts.close()

    failed, good, other = CallResult(None, "down"), CallResult("yes"), CallResult("another")
    assert asyncio.run(process(failed)) == [failed]
    assert asyncio.run(process(good)) == [good], "a failure is made again by the process that resumes"
    assert asyncio.run(process(other)) == [good]
    assert made == [failed, good]
    assert asyncio.run(ask(None, other)) == other, "where nothing is kept, it is made each time"


def test_a_value_that_would_differ_the_next_time_is_made_once(tmp_path: Path) -> None:
    values = iter([{"calls": 3}, {"calls": 2}, {"calls": 1}])
    for _ in range(2):
        receipts = Receipts(tmp_path / "receipts.jsonl")
        assert recorded_value(receipts, "0 budget", lambda: next(values)) == {"calls": 3}
        receipts.close()
    assert recorded_value(None, "0 budget", lambda: next(values)) == {"calls": 2}


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    usage = Usage(1, 100, 0, 10, 0.5)
    receipts = Receipts(path)
    settled = receipts.write_sent({"place": "0", "usage": usage.record()})
    receipts.write("a reply", {"place": "0", "usage": usage.record(), "settles": settled})
    receipts.write_sent({"place": "1", "usage": usage.record()})
    receipts.close()
    path.write_bytes(b"".join(2 * line for line in path.read_bytes().splitlines(keepends=True)))
    assert [(one.call_path, one.used, one.lost) for one in Receipts(path).requests()] == [
        ("0", usage, False),
        ("1", usage, True),
    ]
