"""Names of files that could not be read, by their kind and the reason: `2 PDF (damaged: a.pdf, b.pdf)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlm_langchain.context.describe import quoted
from rlm_langchain.context.formats.parsed import Unreadable
from rlm_langchain.errors import InputError, MissingDependency

_MAX_NAMED = 6
"""Number of names for each kind."""


class LeftOut:
    """Files that are left out of a folder or an archive."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._names: dict[tuple[str, str], list[str]] = {}
        self.error: Unreadable | None = None
        """Why the last file could not be read."""

    def add(self, kind: str, name: str, fault: str = "") -> None:
        """Leave a file out. Raises `InputError` if nothing may be."""
        if self._strict:
            raise InputError(
                f"{quoted(name)} would be left out ({' '.join(filter(None, (fault, kind)))}): take it away, "
                "or leave out `strict`"
            )
        self._names.setdefault((kind, fault), []).append(name)

    @contextmanager
    def out_if_unreadable(self, name: str) -> Iterator[None]:
        """Leave a file out if it cannot be read."""
        try:
            yield
        except Unreadable as error:
            if self._strict:
                raise error.named(quoted(name)) from error
            self.error = error
            self.add(error.kind, name, error.fault)
        except MissingDependency as error:
            if self._strict:
                raise
            self.add("file", name, f"needs {str(error).partition('install ')[2]}")

    def notes(self) -> list[str]:
        """Return one note that names them, or none."""
        said = []
        for (kind, fault), names in self._names.items():
            shown = ", ".join(quoted(name) for name in names[:_MAX_NAMED])
            more = ", ..." if len(names) > _MAX_NAMED else ""
            said.append(f"{len(names):,} {kind} ({fault}{': ' if fault else ''}{shown}{more})")
        return [f"left out: {', '.join(said)}"] if said else []
