"""A channel of the state for texts that a database may refuse: with NULs, or with halves of surrogate pairs.

LangGraph's savers put a text of the state into their rows as it is, and Postgres keeps neither. Such a text is
written as ASCII JSON in a list, which savers serialise themselves, and read back as it was.
"""

from __future__ import annotations

import json
import re
from typing import Any

from langgraph.channels import LastValue
from typing_extensions import Self

from rlm_langchain.errors import JournalError
from rlm_langchain.trajectory.journal import DAMAGED

MARK = "rlm text"
_REFUSED = re.compile("[\x00\ud800-\udfff]")


class TextChannel(LastValue[Any]):
    """LangGraph's `LastValue`, whose values every database keeps."""

    __slots__ = ()

    def checkpoint(self) -> Any:
        """The value as a saver gets it."""
        return _boxed(self.value)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """The value as it was."""
        return super().from_checkpoint(_unboxed(checkpoint))


def _boxed(value: Any) -> Any:
    is_refused = bool(_REFUSED.search(value)) if type(value) is str else _is_box(value)
    return [MARK, json.dumps(value)] if is_refused else value


def _unboxed(value: Any) -> Any:
    try:
        return json.loads(value[1]) if _is_box(value) else value
    except ValueError:
        raise JournalError(DAMAGED) from None


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and value[0] == MARK and type(value[1]) is str
