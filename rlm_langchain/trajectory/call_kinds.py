"""What a reader of records has to know of each kind of call. How each is answered: `graph/calls`."""

from __future__ import annotations

from typing import NamedTuple


class CallKind(NamedTuple):
    """A kind of call that code in the REPL makes of the host."""

    is_free: bool = False
    """The call costs nothing, is answered where the cell waits, and its reply says nothing about the question."""
    is_answered_by_model: bool = False
    """A failure is a gap in the answer. A tool that says no has answered."""
    is_counted: bool = False
    """The call counts against `Budget.tool_calls`, and the same call may have another reply the next time."""
    is_derived: bool = False
    """The reply is made from the journal again, so its record does not keep it."""


KINDS = {
    "llm": CallKind(is_answered_by_model=True),
    "rlm": CallKind(is_answered_by_model=True),
    "tool": CallKind(is_counted=True),
    "function": CallKind(is_counted=True),
    "search": CallKind(),
    "budget": CallKind(is_free=True),
    "history": CallKind(is_free=True, is_derived=True),
}
"""By the name of the kind. A test compares them with the handlers."""


def kind_of(name: str) -> CallKind:
    """Return what is known of a kind. Code may name any: one that nobody handles is only ever refused."""
    return KINDS.get(name, CallKind())
