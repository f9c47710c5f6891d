"""Which files of a folder are worth reading, and how many of each other sort there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_CACHES = frozenset({"__pycache__", "node_modules", "CVS"})
_MARKS = ("CACHEDIR.TAG", "pyvenv.cfg")
"""Files by which a cache and a virtual environment say what they are."""

Ignored = Callable[[str], bool]
"""Whether a relative path, of a folder with a slash at its end, is to be left out."""


class Walk:
    """One walk through a folder. Never leaves it: links are followed only to files inside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: Counter[str] = Counter()
        self._ignored = _gitignore(root)

    def files(self) -> list[tuple[str, str]]:
        """The relative path, with slashes, and the path of each file, sorted."""
        return sorted(self._below(str(self.root), ""))

    def _below(self, folder: str, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in self._entries(folder):
            name = prefix + entry.name
            if reason := self._reason(entry, name):
                self.left_out[reason] += 1
            elif entry.is_dir(follow_symlinks=False):
                yield from self._below(entry.path, f"{name}/")
            else:
                yield name, entry.path

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError:
            self.left_out["unreadable"] += 1
            return []

    def _reason(self, entry: os.DirEntry[str], name: str) -> str | None:
        if entry.name.startswith("."):
            return "hidden"
        folder = entry.is_dir(follow_symlinks=False)
        if self._ignored(f"{name}/" if folder else name):
            return "ignored by .gitignore"
        if folder:
            return "cache" if _is_cache(entry) else None
        if entry.is_symlink():
            return None if self._inside(entry.path) else "link"
        return None if entry.is_file() else "special"

    def _inside(self, link: str) -> bool:
        """Whether a link leads to a file of this folder; a folder in it is walked at its own place."""
        target = Path(link).resolve()
        return target.is_relative_to(self.root) and target.is_file()


def _is_cache(entry: os.DirEntry[str]) -> bool:
    return entry.name in _CACHES or any(os.path.exists(os.path.join(entry.path, mark)) for mark in _MARKS)


def _gitignore(root: Path) -> Ignored:
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / ".gitignore").read_text("utf-8", "replace").splitlines()
    if not lines:
        return lambda _: False
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines).match_file
