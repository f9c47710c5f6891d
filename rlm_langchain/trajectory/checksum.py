"""Seals: a record that was changed on its way to a disk and back is noticed.

A seal is a hash of what it is on. It shows damage, and changes by hands that do not know of it; whoever can write
to the disk and knows how it is made can make another. Against those, encrypt checkpoints
(`docs/explanation/durability.md`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


def checksum(content: Mapping[str, Any]) -> str:
    """The seal that belongs on this content."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether content carries the seal that belongs on it. What JSON cannot hold was never sealed."""
    try:
        return content.get(SEAL) == checksum(content)
    except (TypeError, ValueError, RecursionError):
        return False
