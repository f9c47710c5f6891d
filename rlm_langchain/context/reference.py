"""A reference that was made before, as a state, a checkpoint or a JSON message holds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from rlm_langchain.context.intake import Intake
from rlm_langchain.context.opening import open_reference
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

_KEYS = frozenset(ContextRef.__annotations__)
_NEEDED = _KEYS - {"path"}
_LONGEST = 4000
"""Characters of `about` and of `preview`: both are read by the root model."""


def accepts(value: Any) -> bool:
    """A dict with the keys of a reference and no others."""
    return isinstance(value, dict) and value.keys() >= _NEEDED and value.keys() <= _KEYS


def refer(value: dict[str, Any], intake: Intake) -> ContextRef:
    """The same reference, if it can be opened. Raises `InputError` when it is none, whoever wrote it."""
    if wrong := fault(value):
        raise InputError(f"the context looks like a reference, but {wrong}")
    ref = cast("ContextRef", value)
    open_reference(ref, intake.blobs)
    return ref


def fault(ref: dict[str, Any]) -> str | None:
    """Which key of a reference is not as it must be; None when all are."""
    return next((f"its {key!r} is not right" for key in sorted(_KEYS) if not _right(key, ref.get(key))), None)


def _right(key: str, value: Any) -> bool:
    match key:
        case "sha256":
            return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
        case "kind":
            return value in ("text", "json")
        case "length" | "size":
            return type(value) is int and value >= 0
        case "path":
            return value is None or (isinstance(value, str) and Path(value).is_absolute())
        case _:
            return isinstance(value, str) and len(value) <= _LONGEST
