"""`rlm gc`: how old is old, and what to say of what is gone."""

from __future__ import annotations

import re

from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.session.threads import Threads
from rlm_langchain.context.store import home
from rlm_langchain.errors import InputError
from rlm_langchain.runnable.garbage import GarbageReport, Reachable, references
from rlm_langchain.runnable.garbage import collect as collect_garbage

UNITS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def collect(older_than: str, *, dry_run: bool) -> str:
    """Collect, and say what was freed."""
    threads, kept = Threads(), Reachable()
    age = seconds(older_than)
    if threads.path.exists():
        with threads.opened() as saver:
            kept = references(saver)
    return told(collect_garbage(home(), kept, older_than=age, dry_run=dry_run), dry_run=dry_run)


def seconds(age: str) -> float:
    """An age in seconds. Raises `InputError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", age.strip())
    if not match:
        raise InputError(f"--older-than {age!r} is no age: give a number and m, h, d or w, 30d for example")
    return float(match[1]) * UNITS[match[2]]


def told(freed: GarbageReport, *, dry_run: bool) -> str:
    """A sentence."""
    counts = (
        (freed.contexts, "context", "contexts"),
        (freed.indexes, "index", "indexes"),
        (freed.receipts, "file of receipts", "files of receipts"),
    )
    parts = [f"{count:,} {one if count == 1 else several}" for count, one, several in counts if count]
    if not parts and not freed.size:
        return "nothing to remove"
    size = numbers.size(freed.size)
    what = ", ".join(parts) or "what killed processes left"
    return f"would free {size}: {what}" if dry_run else f"freed {size}: {what}"
