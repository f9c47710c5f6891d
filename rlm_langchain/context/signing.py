"""Signs references. A dict from outside that has the keys of a reference but no valid signature is plain data.

A reference travels as plain JSON through checkpoints, messages and other people's graphs. Its signature is an
HMAC with a key that is created once under `RLM_HOME`. It proves that a store of this home made the reference,
with exactly this content. Not covered: anyone who can read `RLM_HOME`, and an unchanged reference that is
passed on to somebody else.
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
"""Used if no key can be stored. Its signatures are valid until this process ends."""


def sign(ref: ContextRef, home: Path) -> ContextRef:
    """Return the reference with a signature of this home. The key is created on first use."""
    return {**ref, "signature": _signature(ref, _signing_key(home))}


def is_signed(ref: Mapping[str, Any], home: Path) -> bool:
    """Return whether a store of this home made exactly this reference."""
    given = ref.get(SIGNATURE)
    keys = (_read_key(home / KEY_FILE), _PROCESS_KEY)
    return isinstance(given, str) and any(
        key is not None and hmac.compare_digest(given.encode(), _signature(ref, key).encode()) for key in keys
    )


def keyed_hash(data: bytes, home: Path) -> str:
    """Return a hash of bytes, in 32 hexadecimal digits, that nobody without the key of this home can compute."""
    digest = b"image " + hashlib.sha256(data).digest()  # no reference begins like this, so this signs none
    return hmac.new(_signing_key(home), digest, hashlib.sha256).hexdigest()[:32]


def _signature(ref: Mapping[str, Any], key: bytes) -> str:
    signed = {name: value for name, value in ref.items() if name != SIGNATURE}
    text = json.dumps(signed, sort_keys=True, ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _signing_key(home: Path) -> bytes:
    return _read_key(home / KEY_FILE) or _create_key(home / KEY_FILE) or _PROCESS_KEY


def _read_key(path: Path) -> bytes | None:
    """Return the key, or None if there is none yet."""
    try:
        with path.open("rb") as file:
            key = file.read(_KEY_BYTES + 1)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> bytes | None:
    """Create the key, or return the one that another process created meanwhile. None if the home is not
    writable."""
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
