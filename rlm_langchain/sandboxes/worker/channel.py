"""Frames: four bytes of length, then JSON on the way to the host, and marshal on the way here.

The descriptors are ordinary ones that a cell can find and write to. That gains it nothing that it could not do
anyway: make a call, answer, or end its own worker.
"""

from __future__ import annotations

import os
from _thread import RLock
from marshal import loads

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any


class Hold:
    """A reentrant lock for work that no alarm and no other thread may interrupt, such as writing a frame."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        self._lock.release()


class Channel:
    """The two pipes to the host."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self._out = incoming, outgoing
        self.hold = Hold()

    def send(self, text: str) -> None:
        """Write one frame. `text` is JSON without lone surrogates."""
        body = text.encode()
        rest = memoryview(len(body).to_bytes(4, "big") + body)
        with self.hold:
            while rest:
                rest = rest[os.write(self._out, rest) :]

    def receive(self) -> Any:
        """Return the next frame of the host. Ends the process if the host is gone."""
        return loads(self._take(int.from_bytes(self._take(4), "big")))  # noqa: S302 - the host is trusted

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self.incoming, min(size, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def take_over_standard_streams() -> Channel:
    """Move the pipes away from descriptors 0 and 1, so that nothing writes to them by accident.

    What a cell writes to descriptor 1 or 2 goes to standard error, which the host reads and discards.
    Descriptor 0 is at its end.
    """
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(2, 1)
    nothing, writer = os.pipe()
    os.dup2(nothing, 0)
    os.close(nothing)
    os.close(writer)
    return channel
