"""Which files of a folder are worth reading, and how many of each other sort there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rlm_langchain.context.beneath import opened, opened_file, resolved

_CACHES = frozenset({"__pycache__", "node_modules", "CVS"})
_MARKS = ("CACHEDIR.TAG", "pyvenv.cfg")
"""Files by which a cache and a virtual environment say what they are."""

Ignored = Callable[[str], bool]
"""Whether a relative path, of a folder with a slash at its end, is to be left out."""


class Entry(NamedTuple):
    """What was found in a folder."""

    name: str
    path: str
    is_folder: bool
    is_link: bool
    is_file: bool
    """Or a link to one."""

    @classmethod
    def of(cls, folder: str, entry: os.DirEntry[str]) -> Entry:
        """What the system says of it, while its folder is open."""
        is_folder, is_link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
        return cls(entry.name, os.path.join(folder, entry.name), is_folder, is_link, is_link or entry.is_file())


class Walk:
    """One walk through a folder. Never leaves it: links are followed only to files inside."""

    def __init__(self, within: Path, root: Path) -> None:
        self.within, self.root = within, root
        self.left_out: Counter[str] = Counter()
        self._ignored = _gitignore(within, root)

    def files(self) -> list[tuple[str, str]]:
        """The relative path, with slashes, and the path of each file, sorted."""
        return sorted(self._below(str(self.root), ""))

    def _below(self, folder: str, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in self._entries(folder):
            name = prefix + entry.name
            if reason := self._reason(entry, name):
                self.left_out[reason] += 1
            elif entry.is_folder:
                yield from self._below(entry.path, f"{name}/")
            else:
                yield name, entry.path

    def _entries(self, folder: str) -> list[Entry]:
        try:
            with _listed(self.within, folder) as entries:
                return [Entry.of(folder, entry) for entry in entries]
        except OSError:
            self.left_out["unreadable"] += 1
            return []

    def _reason(self, entry: Entry, name: str) -> str | None:
        if entry.name.startswith("."):
            return "hidden"
        if self._ignored(f"{name}/" if entry.is_folder else name):
            return "ignored by .gitignore"
        if entry.is_folder:
            return "cache" if _is_cache(entry) else None
        if entry.is_link:
            return None if self._inside(entry.path) else "link"
        return None if entry.is_file else "special"

    def _inside(self, link: str) -> bool:
        """Whether a link leads to a file of this folder; a folder in it is walked at its own place."""
        try:
            return resolved(self.root, Path(link)).is_file()
        except OSError:
            return False


@contextmanager
def _listed(within: Path, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What is in a folder, which was reached through no link."""
    if os.scandir not in os.supports_fd:  # Windows; what is read is checked when it is opened
        with os.scandir(folder) as entries:
            yield entries
        return
    with opened(within, Path(folder)) as descriptor, os.scandir(descriptor) as entries:
        yield entries


def _is_cache(entry: Entry) -> bool:
    return entry.name in _CACHES or any(os.path.exists(os.path.join(entry.path, mark)) for mark in _MARKS)


def _gitignore(within: Path, root: Path) -> Ignored:
    lines: list[str] = []
    with suppress(OSError), opened_file(within, root / ".gitignore") as file:
        lines = file.read().decode("utf-8", "replace").splitlines()
    if not lines:
        return lambda _: False
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines).match_file
