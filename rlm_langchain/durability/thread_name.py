"""The names that a saved thread may have."""

from __future__ import annotations

from rlm_langchain.errors import InputError

LONGEST_NAME = 200
"""Longest name of a thread, in characters."""


def check_name(name: str) -> str:
    """Return a name that a thread may have. Raises `InputError` for any other, which says what is wrong with it."""
    if len(name) > LONGEST_NAME:
        problem = f"has {len(name):,} characters: a name may have at most {LONGEST_NAME}"
    elif not name.strip():
        problem = "is blank: give a name with a visible character"
    elif not name.isprintable():
        problem = "has a character that cannot be displayed: give a name without it"
    elif name != name.strip():
        problem = "begins or ends with a space: give a name without it"
    elif name.startswith("-"):
        problem = "begins with a dash, like an option: give a name that begins otherwise"
    else:
        return name
    shown = name if len(name) <= LONGEST_NAME else f"{name[:20]}…"
    raise InputError(f"the name {shown!r} {problem}")
