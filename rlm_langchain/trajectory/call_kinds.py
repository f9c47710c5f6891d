"""Properties of each kind of call that readers of records need. `graph/calls` has the handlers."""

from __future__ import annotations

from typing import NamedTuple


class CallKind(NamedTuple):
    """A kind of call that code in the REPL makes to the host."""

    is_free: bool = False
    """The call costs nothing, is answered inside the cell, and its reply is no information about the question."""
    is_answered_by_model: bool = False
    """A failure leaves a gap in the answer. A refusal by a tool is an answer."""
    is_counted: bool = False
    """The call counts against `Budget.tool_calls`, and repeating it may give another reply."""
    is_derived: bool = False
    """The reply can be derived from the journal, so its record does not store it."""


KINDS = {
    "llm": CallKind(is_answered_by_model=True),
    "vision": CallKind(is_answered_by_model=True),
    "rlm": CallKind(is_answered_by_model=True),
    "tool": CallKind(is_counted=True),
    "function": CallKind(is_counted=True),
    "search": CallKind(),
    "budget": CallKind(is_free=True),
    "history": CallKind(is_free=True, is_derived=True),
}
"""All kinds by name. A test compares them with the handlers."""


def kind_of(name: str) -> CallKind:
    """Return the properties of a kind. Code may use any name; unknown kinds are always refused."""
    return KINDS.get(name, CallKind())
