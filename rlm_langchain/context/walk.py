"""Which files of a folder are worth reading, and how many of each other sort there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rlm_langchain.context.about import quoted
from rlm_langchain.context.beneath import opened, opened_file, resolved
from rlm_langchain.context.decoding import scrub
from rlm_langchain.context.safe import one_line
from rlm_langchain.errors import InputError

MOST = 500_000
"""Files of a folder: their names are held in memory, and sorted."""
RULES = 1 << 20
"""Bytes of a `.gitignore`."""
EFFORT = 1 << 18
"""Of all rules together: about ten seconds for the worst of names, which rules of people come nowhere near."""
_NAMED = 6
"""Files that were left out and are told by their names."""
_EXPECTED = frozenset({"hidden", "cache", "ignored by .gitignore"})
"""Sorts that are left out wherever they are, and told by their number alone."""

_CACHES = frozenset({"__pycache__", "node_modules", "CVS"})
_MARKS = ("CACHEDIR.TAG", "pyvenv.cfg")
"""Files by which a cache and a virtual environment say what they are."""

Ignored = Callable[[str], bool]
"""Whether a relative path, of a folder with a slash at its end, is to be left out."""


class Entry(NamedTuple):
    """A member of a folder, as the system described it while the folder was open."""

    name: str
    path: str
    is_folder: bool
    is_link: bool
    is_file: bool
    """True for a regular file, and for a link, whose target is looked at later."""

    @classmethod
    def of(cls, folder: str, entry: os.DirEntry[str]) -> Entry:
        """Read the type of an entry. Raises `OSError`."""
        is_folder, is_link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
        return cls(entry.name, os.path.join(folder, entry.name), is_folder, is_link, is_link or entry.is_file())


class Walk:
    """One walk through a folder. Never leaves it: links are followed only to files inside.

    `root` is the folder, `within` it or a folder above it, from which everything is opened: both are real paths.
    `check` is called again and again, and may raise to stop.
    """

    def __init__(self, within: Path, root: Path, check: Callable[[], object] = lambda: None) -> None:
        self.within, self.root = within, root
        self.left_out: Counter[str] = Counter()
        self.named: list[str] = []
        """The first of what was left out without being of a sort that always is, each with why."""
        self._check = check
        self._ignored = _gitignore(within, root)

    def files(self) -> list[tuple[str, str]]:
        """The relative path, with slashes, and the path of each file, sorted. Raises `InputError` for too many."""
        found, waiting = list[tuple[str, str]](), [(str(self.root), "")]
        while waiting:
            for entry, name in self._entries(*waiting.pop()):
                self._check()
                if reason := self._reason(entry, name):
                    self.leave_out(name, reason)
                elif entry.is_folder:
                    waiting.append((entry.path, f"{name}/"))
                elif len(found) < MOST:
                    found.append((name, entry.path))
                else:
                    raise InputError(
                        f"the folder {one_line(self.root)} holds more than {MOST:,} files: give a folder in it, or "
                        "leave some out by a .gitignore in it"
                    )
        return sorted(found)

    def leave_out(self, name: str, reason: str) -> None:
        """Count something that is not read, and why."""
        self.left_out[reason] += 1
        if reason not in _EXPECTED and len(self.named) < _NAMED:
            self.named.append(f"{quoted(name)} ({reason})")

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a file that was found, though a link may lead elsewhere by now. Raises `OSError`."""
        resolved(self.root, Path(path))
        with opened_file(self.within, Path(path)) as file:
            yield file

    def _entries(self, folder: str, prefix: str) -> list[tuple[Entry, str]]:
        found = list[tuple[Entry, str]]()
        try:
            with _listed(self.within, folder) as entries:
                for entry in entries:
                    self._check()
                    with self._left_out_on_error(prefix + entry.name):
                        found.append((Entry.of(folder, entry), prefix + entry.name))
        except OSError as error:
            self.leave_out(prefix or self.root.name, reason_of(error))
        return found

    @contextmanager
    def _left_out_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.leave_out(name, reason_of(error))

    def _reason(self, entry: Entry, name: str) -> str | None:
        if entry.name.startswith("."):
            return "hidden"
        if self._ignored(f"{name}/" if entry.is_folder else name):
            return "ignored by .gitignore"
        if entry.is_folder:
            return "cache" if _is_cache(entry) else None
        if entry.is_link:
            return None if self._leads_inside(entry.path) else "link"
        return None if entry.is_file else "special"

    def _leads_inside(self, link: str) -> bool:
        """Whether a link leads to a file of this folder; a folder in it is walked at its own place."""
        try:
            return resolved(self.root, Path(link)).is_file()
        except OSError:
            return False


@contextmanager
def _listed(within: Path, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The members of a folder, which was reached through no link. Raises `OSError`."""
    if os.scandir not in os.supports_fd:  # Windows; what is read is checked when it is opened
        with os.scandir(folder) as entries:
            yield entries
        return
    with opened(within, Path(folder)) as descriptor, os.scandir(descriptor) as entries:
        yield entries


class Keys:
    """The keys under which files stand in a dict: their names, without what no UTF-8 can hold, each once."""

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = {name for name in names if name.isascii() or not scrub(name)[1]}

    def key(self, name: str) -> str:
        """The name itself; of one that is not UTF-8, with U+FFFD in it, or with escapes if that is taken."""
        if name in self._taken:
            return name
        key, number = scrub(name)[0], 1
        while key in self._taken:
            key = name.encode("utf-8", "backslashreplace").decode() + (f" ({number})" if number > 1 else "")
            number += 1
        self._taken.add(key)
        return key


def reason_of(error: OSError) -> str:
    """Of which sort a file is that cannot be opened."""
    return "vanished" if isinstance(error, FileNotFoundError) else "unreadable"


def _is_cache(entry: Entry) -> bool:
    return entry.name in _CACHES or any(os.path.exists(os.path.join(entry.path, mark)) for mark in _MARKS)


def _effort(rule: str) -> int:
    """How long a rule may take to match: each * in a part of it may stand for 255 letters, each ** for folders."""
    parts = [] if rule.startswith("#") else rule.replace("\\*", "").split("/")
    folders = parts.count("**")
    stars = max((part.count("*") for part in parts if part != "**"), default=0)
    return int(16 ** min(stars + 1.5 * folders, 8.0))


def _gitignore(within: Path, root: Path) -> Ignored:
    """The rules of a folder. Raises `InputError` when there are too many to be meant."""
    rules = b""
    with suppress(OSError), opened_file(within, root / ".gitignore") as file:
        rules = file.read(RULES + 1)
    if len(rules) > RULES:
        raise InputError(f"{one_line(root / '.gitignore')} has more than {RULES:,} bytes: shorten it")
    lines = rules.decode("utf-8", "replace").splitlines()
    if not lines:
        return lambda _: False
    if sum(map(_effort, lines)) > EFFORT:
        raise InputError(
            f"{one_line(root / '.gitignore')} has rules that may take minutes to match one name, such as "
            f"{quoted(max(lines, key=_effort))}: write them with fewer *"
        )
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines).match_file
