"""Options as text for `repr`. Tracers store it, so it must not contain keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

LONGEST = 200
"""Maximum number of characters of one option."""


class Unquoted(str):
    """Text that `repr` shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def safe_repr(value: Any) -> Any:
    """Return an option as `repr` may show it: of a model or a tool, only its class and its name."""
    if isinstance(value, list | tuple):
        return [safe_repr(one) for one in value]
    if not isinstance(value, BaseModel):
        text = repr(value)
        return value if len(text) <= LONGEST else Unquoted(f"{text[:LONGEST]}...")
    names = (getattr(value, name, None) for name in ("model_name", "model", "name"))
    name = next((name for name in names if isinstance(name, str) and name), "")
    return Unquoted(f"{type(value).__name__}({name!r})" if name else type(value).__name__)
