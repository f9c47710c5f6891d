"""Signatures on references: a dict from outside that has the keys of a reference is data, whatever it says.

A reference travels as plain JSON, through checkpoints, messages and other people's graphs. Its signature, an HMAC
with a key that is made once under `RLM_HOME`, says that a store of this home made it, with this path and these
words. Not covered: who can read `RLM_HOME`, and a reference that is given on to somebody else as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from rlm_langchain.types import ContextRef

KEY_FILE = "references.key"
SIGNATURE = "signature"
_KEY_BYTES = 32
_PROCESS_KEY = secrets.token_bytes(_KEY_BYTES)
"""Where no key can be kept: what is signed with it is good until this process ends."""


def sign(ref: ContextRef, home: Path) -> ContextRef:
    """The reference with a signature of this home, whose key is made when it is first needed."""
    return {**ref, "signature": _signature(ref, _signing_key(home))}


def is_signed(ref: Mapping[str, Any], home: Path) -> bool:
    """Whether a store of this home made the reference, word for word."""
    given = ref.get(SIGNATURE)
    keys = (_read_key(home / KEY_FILE), _PROCESS_KEY)
    return isinstance(given, str) and any(
        key is not None and hmac.compare_digest(given.encode(), _signature(ref, key).encode()) for key in keys
    )


def _signature(ref: Mapping[str, Any], key: bytes) -> str:
    signed = {name: value for name, value in ref.items() if name != SIGNATURE}
    text = json.dumps(signed, sort_keys=True, ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _signing_key(home: Path) -> bytes:
    return _read_key(home / KEY_FILE) or _create_key(home / KEY_FILE) or _PROCESS_KEY


def _read_key(path: Path) -> bytes | None:
    """The key; None when there is none yet."""
    try:
        with path.open("rb") as file:
            key = file.read(_KEY_BYTES + 1)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> bytes | None:
    """A new key, or the one that another process has made meanwhile; None when the home cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), mode=0o600):
            if key := _read_key(path):
                return key
            handle, name = tempfile.mkstemp(prefix=f"{KEY_FILE}-", dir=path.parent)
            with open(handle, "wb") as file:
                file.write(key := secrets.token_bytes(_KEY_BYTES))
            os.replace(name, path)
            return key
    except OSError:
        return None
