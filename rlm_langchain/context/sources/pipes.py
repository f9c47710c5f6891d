"""Pipes and other sources that may block: read in blocks, up to a deadline that no writer can delay."""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Callable
from math import inf
from queue import Empty, Queue
from typing import Any

from rlm_langchain.context.decoding import BLOCK_BYTES
from rlm_langchain.context.reference import StoreWriter
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.errors import InputError

WRITER_TIMEOUT = 30.0
"""Seconds to wait for a writer to open a named pipe."""


class NamedPipe:
    """A named pipe that was opened without blocking. It ends when the last writer closes it."""

    def __init__(self, fd: int, name: str, store_writer: StoreWriter) -> None:
        self._fd, self._name, self._store_writer = fd, name, store_writer
        self._writer_deadline = time.monotonic() + WRITER_TIMEOUT
        self._ready = select.poll()
        self._ready.register(fd, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Return at most `size` of the next bytes, none at the end. Raises `InputError` if the time is over."""
        while True:
            left = min(self._store_writer.seconds_left(self._name), 1.0)
            events = self._ready.poll(left * 1000)
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:  # there is a writer, but no data yet
                self._writer_deadline = inf
                continue
            if data or events:
                self._writer_deadline = inf
                return data
            if time.monotonic() > self._writer_deadline:
                raise InputError(
                    f"nothing writes to the named pipe {one_line(self._name)}: start its writer, or give a file"
                )


def block_reader(file: Any, name: str, store_writer: StoreWriter) -> Callable[[], Any]:
    """Return a function that reads the next block of a stream. It raises `InputError` if the time is over."""
    if store_writer.deadline == inf or isinstance(file, NamedPipe | io.BytesIO | io.StringIO):
        return lambda: file.read(BLOCK_BYTES)
    fd = _pollable_descriptor(file)
    return (
        _threaded_reader(file, name, store_writer) if fd is None else _polling_reader(file, fd, name, store_writer)
    )


def _pollable_descriptor(file: Any) -> int | None:
    """Return the descriptor of a stream if polling it shows whether a read would block, that is if nothing is
    buffered."""
    raw = file.raw if isinstance(file, io.BufferedReader) else file
    try:
        return raw.fileno() if isinstance(raw, io.FileIO) and hasattr(select, "poll") else None
    except ValueError:  # it is closed, as reading it will say
        return None


def _polling_reader(file: Any, fd: int, name: str, store_writer: StoreWriter) -> Callable[[], Any]:
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    read = file.read1 if isinstance(file, io.BufferedReader) else file.read

    def block() -> Any:
        while not ready.poll(min(store_writer.seconds_left(name), 1.0) * 1000):
            pass
        return read(BLOCK_BYTES)

    return block


def _threaded_reader(file: Any, name: str, store_writer: StoreWriter) -> Callable[[], Any]:
    """Return a reader for objects that only have `read`. Each block is read in a thread, so that the wait can
    be given up.

    The thread of a `read` that never returns stays behind.
    """

    def block() -> Any:
        given = Queue[tuple[Any, BaseException | None]](1)

        def work() -> None:
            try:
                given.put((file.read(BLOCK_BYTES), None))
            except BaseException as error:  # noqa: BLE001 - it is raised where the block is wanted
                given.put((None, error))

        threading.Thread(target=work, name="rlm-stream", daemon=True).start()
        while True:
            try:
                data, error = given.get(timeout=min(store_writer.seconds_left(name), 1.0))
            except Empty:
                continue
            if error is not None:
                raise error
            return data

    return block
