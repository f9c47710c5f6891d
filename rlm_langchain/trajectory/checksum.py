"""Checksums of records, by which damage on disk is noticed.

A checksum shows damage and careless edits. It is no protection against an attacker who can write to the disk and
compute a new one. Against attackers, encrypt the checkpoints (`docs/explanation/durability.md`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


def checksum(content: Mapping[str, Any]) -> str:
    """Return the checksum of a record: of all its fields except `seal`."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_intact(content: Mapping[str, Any]) -> bool:
    """Return whether `seal` is the checksum of the record. Content that JSON cannot hold never has a valid one."""
    try:
        return content.get(SEAL) == checksum(content)
    except (TypeError, ValueError, RecursionError):
        return False
