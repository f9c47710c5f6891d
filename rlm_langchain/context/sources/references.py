"""An existing reference, as found in a state, a checkpoint or a JSON message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from rlm_langchain.context.blobs import BlobStore
from rlm_langchain.context.opening import open_reference
from rlm_langchain.context.signing import is_signed
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.types import ContextRef

_KEYS = frozenset(ContextRef.__annotations__)
_REQUIRED = _KEYS - {"path", "type", "notes", "names", "images", "files"}
"""Required keys. `type` is newer than the others; a reference without it is refused, and not treated as data."""
_WORDS = {"kind": ("text", "json"), "type": ("str", "list", "dict", "table")}
_MAX_TEXT = 4000
"""Maximum length of `about` and of `preview` in characters. The root model reads both."""


def accepts(value: Any) -> bool:
    """Accept a dict with exactly the keys of a signed reference. Without a signature it is a plain dict."""
    return isinstance(value, dict) and value.keys() >= _REQUIRED and value.keys() <= _KEYS


def to_reference(value: dict[str, Any], blobs: BlobStore, home: Path) -> ContextRef:
    """Return the reference if a store of this home made it and it can be opened.

    Raises `InputError` if its form is wrong, and `JournalError` if it was made elsewhere or changed; then
    nothing that it names is read.
    """
    ref = verified(value, home)
    open_reference(ref, blobs)
    return ref


def verified(value: dict[str, Any], home: Path) -> ContextRef:
    """Return the reference if its signature is valid in this home. Raises as `to_reference`."""
    if wrong := reference_fault(value):
        raise InputError(f"the context looks like a reference, but {wrong}")
    if not is_signed(value, home):
        raise JournalError(
            f"the reference to the context {value['sha256'][:12]}... cannot be read here: it was changed, or made "
            f"with another RLM_HOME than {home}; give the context itself"
        )
    return cast("ContextRef", value)


def reference_fault(ref: dict[str, Any]) -> str | None:
    """Return the name of a key with a wrong value, or None if all are right."""
    return next((f"its {key!r} is not valid" for key in sorted(_KEYS) if not _is_valid(key, ref.get(key))), None)


def _is_valid(key: str, value: Any) -> bool:  # noqa: PLR0911 - one for each key
    match key:
        case "sha256":
            return _is_hash(value)
        case "signature":  # records that are older than signatures have none
            return value is None or _is_hash(value)
        case "kind" | "type":
            return value in _WORDS[key]
        case "length" | "size":
            return type(value) is int and value >= 0
        case "images":
            return value is None or (type(value) is int and value > 0)
        case "notes" | "names":
            return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        case "files":
            return value is None or (
                isinstance(value, dict) and all(isinstance(one, str) for pair in value.items() for one in pair)
            )
        case "path":
            return value is None or (isinstance(value, str) and "\0" not in value and Path(value).is_absolute())
        case _:
            return isinstance(value, str) and len(value) <= _MAX_TEXT


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
