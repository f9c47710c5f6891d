"""Receipts: every reply of a model is on disk before it is used, so that no crash makes us ask, and pay, again.

A checkpoint is written when a node ends, and a node may make a hundred calls. The replies that arrive in between
are stored here: one file of JSON lines for each run. A line holds a reply, its key and a checksum of both. Space
for a reply is allocated before the request, so that a full disk refuses the call and does not lose its answer. The
files survive any end of the process; after a power failure they are as complete as the disk's cache was.

A request has a line of its own before it is sent, with the most that it may use. The line of its reply settles it.
A request that is unsettled when the file is read was in flight when a process ended. The provider may have billed
it, so it counts as spent, with the most that it may have used.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlm_langchain.errors import JournalError
from rlm_langchain.trajectory.checksum import checksum, is_intact
from rlm_langchain.types import CallResult, Plain, Usage

SENT = "sent "
"""Prefix of the key of a request. The position in the file follows it."""
REPLY_SPACE = 64 * 1024
"""Bytes allocated for one reply in flight."""


class SentRequest(NamedTuple):
    """A request that an earlier process sent."""

    call_path: str
    """Path of the call in the tree."""
    used: Usage
    """Its usage. If that is not known: the most that it may have used, as an estimate."""
    tools: int = 0
    """1 for a call of a tool or a function."""
    lost: bool = False
    """Whether the process ended before its reply came."""


class Receipts:
    """The receipts of one run. Only one process may write them at a time; its threads and tasks may share them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replies: dict[str, Any] | None = None
        self._requests: dict[str, Any] = {}
        """The latest record of each request by key, without the requests that a reply has settled."""
        self._settled: dict[str, Any] = {}
        """Receipts of replies that were paid for, by request, so that a line that is stored twice counts once."""
        self._file = -1
        self._end = 0
        self._allocated = 0
        self._in_flight = 0
        self._lock = threading.Lock()

    def find(self, key: str) -> Any | None:
        """Return the reply that an earlier process stored under this key, or None."""
        with self._lock:
            if self._replies is None:
                self._replies = self._read()
            return self._replies.get(key)

    def requests(self) -> list[SentRequest]:
        """Return the requests that earlier processes sent."""
        self.find("")
        return [
            SentRequest(one["place"], Usage(**one["usage"]), one.get("tool", 0), bool(one.get("open")))
            for one in [*self._settled.values(), *self._requests.values()]
        ]

    def seconds_worked(self) -> float:
        """Return the seconds that all processes had worked on the run when they last wrote a receipt."""
        self.find("")
        return max((reply.get("worked", 0.0) for reply in (self._replies or {}).values()), default=0.0)

    async def open(self) -> None:
        """Open the file in a thread, because a slow disk would block the event loop. Raises `JournalError`."""
        if self._file < 0:
            await asyncio.to_thread(self._open_locked)

    def reserve_space(self) -> None:
        """Reserve disk space for one more reply. Raises `JournalError` when the disk is full."""
        with self._lock:
            self._allocate_for(self._in_flight + 1)
            self._in_flight += 1

    def write(self, key: str, reply: dict[str, Any]) -> None:
        """Store a reply. Raises `JournalError` if it cannot be written."""
        with self._lock:
            self._append(key, reply)

    def write_sent(self, request: dict[str, Any]) -> str:
        """Record that a request is about to be sent, and return its key. Raises `JournalError`."""
        with self._lock:
            self._open()
            key = f"{SENT}{self._end}"
            self._append(key, {**request, "open": True})
        return key

    def release(self) -> None:
        """Release the space reserved for one reply, whether the reply came or not."""
        with self._lock:
            self._in_flight -= 1

    def close(self) -> None:
        """Close the file. An empty file is deleted."""
        with self._lock:
            if self._file >= 0:
                os.ftruncate(self._file, self._end)
                os.close(self._file)
                if not self._end:
                    self.path.unlink(missing_ok=True)
            self._file = -1

    def _append(self, key: str, fields: dict[str, Any]) -> None:
        record = {**fields, "key": key}
        line = json.dumps({**record, "seal": checksum(record)}, ensure_ascii=True).encode() + b"\n"
        self._open()
        try:
            _write(self._file, line, self._end)
        except OSError as error:
            raise self._write_error(error) from error
        self._end += len(line)

    def _allocate_for(self, replies: int) -> None:
        wanted = self._end + replies * REPLY_SPACE
        if wanted <= self._allocated:
            return
        self._open()
        for size in (max(wanted, 2 * self._allocated), wanted):  # large steps, while the disk has room for them
            try:
                _allocate(self._file, self._allocated, size - self._allocated)
            except OSError as error:
                full = error
            else:
                self._allocated = size
                return
        raise self._write_error(full) from full

    def _open_locked(self) -> None:
        with self._lock:
            self._open()

    def _open(self) -> None:
        if self._file >= 0:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._write_error(error) from error
        if self._replies is None:
            self._replies = self._read()
        os.ftruncate(self._file, self._end)  # removes what a killed process had allocated or half written
        self._allocated = self._end

    def _read(self) -> dict[str, Any]:
        """Return all receipts by key. An incomplete last line, left by a process that was killed, is ignored."""
        if not self.path.exists():
            return {}
        data = self.path.read_bytes().rstrip(b"\0")
        whole, newline, _ = data.rpartition(b"\n")
        self._end = len(whole) + len(newline)
        try:
            replies = [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError) as error:
            raise self._damaged_error() from error
        if not all(isinstance(reply, dict) and is_intact(reply) and "key" in reply for reply in replies):
            raise self._damaged_error()
        for reply in replies:
            if reply["key"].startswith(SENT):
                self._requests[reply["key"]] = reply
            elif "settles" in reply:
                self._requests.pop(reply["settles"], None)
                self._settled[reply["settles"]] = reply
        return {reply["key"]: reply for reply in replies}

    def _damaged_error(self) -> JournalError:
        return JournalError(
            f"the receipts in {self.path} are damaged: move the file away to continue without them; "
            "then calls since the last checkpoint are made, and paid for, again"
        )

    def _write_error(self, error: OSError) -> JournalError:
        return JournalError(
            f"replies cannot be stored in {self.path.parent}: {error.strerror}. Make room and resume the run; "
            "nothing that was paid for is lost"
        )


async def recorded(
    receipts: Receipts | None, key: str, call_path: str, make: Callable[[], Awaitable[CallResult]]
) -> CallResult:
    """Return the reply that an earlier process stored under this key, or else make it and write its receipt.

    The receipt is on disk before the reply is used. A failed call has no receipt, so it is made again. Raises
    `JournalError` if a reply cannot be stored.
    """
    known = receipts.find(key) if receipts else None
    if known is not None:
        return CallResult(known["text"])
    reply = await make()
    if receipts and reply.text is not None:
        await receipts.open()
        receipts.write(key, {"place": call_path, "text": reply.text})
    return reply


def recorded_value(receipts: Receipts | None, key: str, make: Callable[[], Plain]) -> Plain:
    """Return the value that an earlier process stored under this key, or else make and store it.

    For values that would be different if they were made again, such as the time.
    """
    if receipts is None:
        return make()
    known = receipts.find(key)
    if known is None:
        known = {"value": make()}
        receipts.write(key, known)
    value: Plain = known["value"]
    return value


def _allocate(file: int, offset: int, size: int) -> None:
    """Extend a file, and reserve the disk space, so that later writes cannot fail because the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, offset, size)
    else:
        _write(file, bytes(size), offset)


def _write(file: int, data: bytes, offset: int) -> None:
    """Write all of `data`. A disk that fills up takes only a part, and raises at the next attempt."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
