"""What the host says to a worker, which trusts it: Python's own format, so that reading it needs no module."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any

from rlm_langchain.types import Reply


def framed(message: Sequence[Any]) -> bytes:
    """A message as a frame."""
    body = marshal.dumps(_whole(message))
    return len(body).to_bytes(4, "big") + body


def run_frame(turn: int, code: str) -> bytes:
    """A cell. The worker ends its turn with the same number, so that nothing that it said before can do so."""
    return framed(["run", turn, code])


def replies_frame(turn: int, replies: Sequence[Reply]) -> bytes:
    """The replies to a wave of calls: the next turn of the same cell."""
    return framed(["replies", turn, [[reply.value, reply.error] for reply in replies]])


def _whole(value: Any) -> Any:
    """The value with each half of a surrogate pair replaced by U+FFFD: it could not come out again."""
    match value:
        case str():
            return value if value.isascii() else _mended(value)
        case list() | tuple():
            return [_whole(item) for item in value]
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _mended(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
