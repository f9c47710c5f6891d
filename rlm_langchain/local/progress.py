"""A progress bar on standard error while the weights come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What a download tells whoever waits for it."""

    stage: Callable[[str, int], None]
    """Something new begins, of so many bytes."""
    advance: Callable[[int], None]
    """So many more bytes are done."""


SILENT = Progress(lambda name, total: None, lambda size: None)


@contextmanager
def shown(size: int) -> Iterator[Progress]:
    """A bar on standard error, in a terminal; elsewhere a line that says what takes so long."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"Getting the local model, {size / 1e9:.1f} GB. This happens once.", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Local model", total=size)
        yield Progress(
            lambda name, total: bar.reset(task, total=total, description=f"Local model: {name}"),
            lambda done: bar.advance(task, done),
        )
