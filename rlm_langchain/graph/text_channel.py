"""A state channel for texts that a database may refuse, because they contain NUL or lone surrogates.

LangGraph's checkpointers write a text of the state into a column unchanged, and Postgres accepts neither. This
channel writes such a text as ASCII JSON in a list, which checkpointers serialise, and decodes it when it is read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from langgraph.channels import LastValue
from typing_extensions import Self

from rlm_langchain.errors import JournalError
from rlm_langchain.trajectory.journal import DAMAGED

ENCODED_TAG = "rlm text"
"""The first item of a list that holds an encoded text, or an encoded value that looks like one."""
_REFUSED = re.compile("[\x00\ud800-\udfff]")


class TextChannel(LastValue[Any]):
    """A `LastValue` whose values every database can store."""

    __slots__ = ()

    def checkpoint(self) -> Any:
        """Return the value for the checkpointer, encoded if necessary."""
        return _encoded(self.value)

    def from_checkpoint(self, checkpoint: Any) -> Self:
        """Return a channel with the decoded value. Raises `JournalError` for a value that cannot be decoded."""
        return super().from_checkpoint(_decoded(checkpoint))


def _encoded(value: Any) -> Any:
    must_encode = bool(_REFUSED.search(value)) if type(value) is str else _is_encoded(value)
    return [ENCODED_TAG, json.dumps(value)] if must_encode else value


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value[1]) if _is_encoded(value) else value
    except ValueError:
        raise JournalError(DAMAGED) from None


def _is_encoded(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and value[0] == ENCODED_TAG and type(value[1]) is str
