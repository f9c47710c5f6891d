"""The command `gc`: removes data that no saved run needs, and reports what was freed."""

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
    """Remove what no saved run needs and nobody used for so long. Returns a report.

    Raises `InputError` for what is not an age. With `dry_run`, nothing is removed.
    """
    threads, needed = Threads(), Reachable()
    age = seconds(older_than)
    if threads.path.exists():
        with threads.opened() as saver:
            needed = references(saver)
    return report(collect_garbage(home(), needed, older_than=age, dry_run=dry_run), dry_run=dry_run)


def seconds(age: str) -> float:
    """Return an age in seconds. Raises `InputError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", age.strip())
    if not match:
        raise InputError(f"--older-than {age!r} is not an age: give a number and m, h, d or w, such as 30d")
    return float(match[1]) * UNITS[match[2]]


def report(freed: GarbageReport, *, dry_run: bool) -> str:
    """Return what was freed, as a phrase."""
    counts = (
        (freed.contexts, "context", "contexts"),
        (freed.images, "picture", "pictures"),
        (freed.indexes, "index", "indexes"),
        (freed.receipts, "file of receipts", "files of receipts"),
    )
    parts = [f"{count:,} {singular if count == 1 else plural}" for count, singular, plural in counts if count]
    if not parts and not freed.size:
        return "nothing to remove"
    size = numbers.size(freed.size)
    what = ", ".join(parts) or "temporary files of killed processes"
    return f"would free {size}: {what}" if dry_run else f"freed {size}: {what}"
