"""A folder by its path: a dict of its text files, relative path to text, sorted by path.

Left out, and counted: hidden files, caches and virtual environments, files that the folder's own `.gitignore`
excludes, files that are not text, links to folders and out of the folder, unreadable files. The first bytes of
a file show whether it is text. If it is not, the rest is not read; if it is, the file goes into the store block
by block.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rlm_langchain.context import describe
from rlm_langchain.context.beneath import open_below, open_file_below, resolve_below
from rlm_langchain.context.blobs import BlobWriter
from rlm_langchain.context.decoding import (
    BLOCK_BYTES,
    SAMPLE_BYTES,
    Decoder,
    odd_sample,
    replace_surrogates,
    replacement_note,
    why_not_text,
)
from rlm_langchain.context.describe import quoted
from rlm_langchain.context.file_hashes import FileStat
from rlm_langchain.context.formats.parsed import AsText, Parsed, Reading, SourceFile, TooLong, Unreadable
from rlm_langchain.context.formats.table import parsed_of
from rlm_langchain.context.images import Images
from rlm_langchain.context.places import FOLDER, with_file
from rlm_langchain.context.reference import StoreWriter, json_reference, with_images, with_notes
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.context.sources.files import why_sparse
from rlm_langchain.context.sources.json_values import dumps
from rlm_langchain.context.sources.streams import as_input_error
from rlm_langchain.errors import InputError, MissingDependency
from rlm_langchain.types import ContextRef

MAX_TEXT_BYTES = 1 << 30
"""Most bytes of text that are read, because a sandbox holds a dict in memory."""

SPARSE_CHECK_BYTES = 16 << 20
"""A file of a folder that is longer than this is checked for holes. In JSON, each byte of a hole becomes six."""

_MAX_NAMES = 7
"""Number of keys that are remembered for the description: one more than it shows."""


def accepts(value: Any) -> bool:
    """Accept the path of a folder."""
    return isinstance(value, os.PathLike) and os.path.isdir(value)


def to_reference(value: os.PathLike[Any], store_writer: StoreWriter) -> ContextRef:
    """Return a reference to a dict of the files. Raises `InputError` if there is no readable text, or too much."""
    root = Path(os.path.realpath(os.fsdecode(value)))
    return folder_to_reference(root, root, store_writer)


def folder_to_reference(within: Path, root: Path, store_writer: StoreWriter) -> ContextRef:
    """Return a reference to a dict of the files of a folder below `within`. Nothing outside `within` is read.
    Both are real paths."""
    reader = _FolderReader(within, root, store_writer)
    with store_writer.blobs.writer() as writer:
        reader.write(writer)
        if not (reader.characters or reader.kinds):
            raise InputError(
                describe.join_parts(
                    f"the folder {one_line(reader.root)} contains no readable text", reader.left_out()
                )
            )
        blob = writer.commit()
    ref = with_images(json_reference(blob, "dict", reader.files, reader.about()), reader.images.count)
    ref = with_notes(ref, reader.said())
    if names := reader.left_out_by_name():  # the description has the names elsewhere
        ref["notes"] = [names, *ref["notes"][1:]]
    return with_file(ref, FOLDER)


class _FolderReader:
    """Writes the files of a folder as one JSON object, with one block in memory at a time."""

    def __init__(self, within: Path, root: Path, store_writer: StoreWriter) -> None:
        self.root, self._store_writer = root, store_writer
        self.walk = FolderWalk(within, root, self._check, strict=store_writer.strict)
        self.names: list[str] = []
        self.files = self.characters = self.size = self.replaced = self.changed = 0
        self.kinds: Counter[str] = Counter()
        """The files that are no text, by what they are."""
        self.notes: list[str] = []
        self.images = Images(store_writer.images)
        self._reading = Reading(self.images, strict=store_writer.strict, check=self._check)

    def write(self, writer: BlobWriter) -> None:
        """Write all files, in the format in which the store keeps JSON."""
        files = self.walk.files()
        keys = UniqueKeys(name for name, _ in files)
        writer.write(b"{")
        for name, path in files:
            self._check()
            try:
                with self.walk.open(path) as file:
                    self._write_file(writer, file, name, path, keys)
            except OSError as error:
                self.walk.leave_out(name, error_reason(error))
        writer.write(b"}")

    def about(self) -> str:
        """Return `dict of 799 files: path -> text, 12,600,000 characters in all (about 3,100,000 tokens); ...`."""
        more = sum(self.walk.left_out.values()) > len(self.walk.named) > 0
        named = ", ".join(self.walk.named) + (", ..." if more else "")
        return describe.join_parts(
            f"dict of {describe.count(self.files, 'file')}: path -> {'value' if self.kinds else 'text'}, "
            f"{self.characters:,} characters{' of text' if self.kinds else ''} in all "
            f"({describe.tokens(self.size)})",
            self._values(),
            f"{describe.count(self.changed, 'file')} changed while being read" if self.changed else "",
            named and f"not read: {named}",
            f"{describe.keys_label(self.names)}: {describe.list_keys(self.names)}",
        )

    def left_out_by_name(self) -> str:
        """Return what was left out with the first names: `left out: 2 damaged PDF ("a.pdf", "b.pdf"), 3 hidden`."""
        sorts = []
        for reason, number in self.walk.left_out.most_common():
            names = self.walk.names.get(reason, [])
            more = ", ..." if number > len(names) > 0 else ""
            sorts.append(f"{number:,} {reason}" + (f" ({', '.join(map(quoted, names))}{more})" if names else ""))
        return f"left out: {', '.join(sorts)}" if sorts else ""

    def said(self) -> list[str]:
        """Return what was left out, replaced, guessed or repaired."""
        return [self.left_out(), replacement_note(self.replaced), *self.notes]

    def _values(self) -> str:
        """Return `3 text, 2 PDF, 1 CSV table`, or nothing if all are texts."""
        texts = self.files - sum(self.kinds.values())
        return describe.list_counts(Counter({"text": texts} if texts else {}) + self.kinds) if self.kinds else ""

    def left_out(self) -> str:
        """Return how many entries of each kind were not read, most frequent first."""
        sorts = describe.list_counts(self.walk.left_out)
        return sorts and f"left out: {sorts}"

    def _check(self) -> None:
        """Raise `InputError` if the time is over."""
        self._store_writer.seconds_left(self.root)

    def _write_file(self, writer: BlobWriter, file: BinaryIO, name: str, path: str, keys: UniqueKeys) -> None:
        """Write a file as one more item of the object, or nothing if it is not text. Raises `OSError` before it
        writes."""
        stamp = FileStat.of_stat(os.fstat(file.fileno()))
        sample = file.read(min(SAMPLE_BYTES, stamp.size) or 1)
        if sample is None or (sample and not stamp.size):
            self.walk.leave_out(name, "special")  # a kernel file, which has no size and may not end
            return
        source = SourceFile(file, name.rpartition("/")[2], stamp.size, self._reading, sample, path)
        value = self._value(source, name)
        if value is None:
            return
        if not isinstance(value, AsText):
            self._write_value(writer, value, name, keys)
            return
        if value.note:
            self._refuse(name, [value.note])
            self.notes.append(f"{quoted(name)}: {value.note}")
        if why_not_text(sample):
            self.walk.leave_out(name, "binary")
            return
        if why_sparse(file.fileno(), stamp.size, over=SPARSE_CHECK_BYTES):
            self.walk.leave_out(name, "almost unwritten")
            return
        file.seek(len(sample))
        self._add_size(name, stamp.size)
        strict = self._store_writer.strict
        decoder = Decoder(one_line(path), odd_sample(file, stamp.size, sample), strict=strict)
        self._begin_item(writer, keys.key(name))
        writer.write(b'"')
        with as_input_error(path):
            left, block = stamp.size - len(sample), sample
            while True:
                text = decoder.decode(block, final=not block)
                writer.write(dumps(text)[1:-1].encode())
                self.characters += len(text)
                self._check()
                if not block:
                    break
                block = file.read(min(BLOCK_BYTES, left)) if left else b""
                left -= len(block)
            self.changed += FileStat.of_stat(os.fstat(file.fileno())) != stamp
        writer.write(b'"')
        self.replaced += decoder.replaced
        if decoder.note:
            self.notes.append(f"{quoted(name)}: {decoder.note}")

    def _value(self, file: SourceFile, name: str) -> tuple[Parsed, list[bytes]] | AsText | None:
        """Return what a file becomes and its JSON, or that it is a text, or None if it is left out."""
        try:
            parsed = parsed_of(file)
            return parsed if isinstance(parsed, AsText) else (parsed, [*parsed.json()])
        except TooLong:
            return AsText("it is too long as a value, so it is read as text")
        except Unreadable as error:
            if self._store_writer.strict:
                raise error.named(one_line(file.path)) from error
            self.walk.leave_out(name, error.reason)
        except MissingDependency as error:
            if self._store_writer.strict:
                raise
            self.walk.leave_out(name, f"needs {str(error).partition('pip install ')[2]}")
        return None

    def _refuse(self, name: str, notes: list[str]) -> None:
        """Raise `InputError` if there are notes, and nothing may be left out, replaced, guessed or repaired."""
        if notes and self._store_writer.strict:
            raise InputError(
                f"{quoted(name)}: {notes[0]}, which `strict` refuses: put it right, or leave out `strict`"
            )

    def _write_value(
        self, writer: BlobWriter, value: tuple[Parsed, list[bytes]], name: str, keys: UniqueKeys
    ) -> None:
        """Write what a file that is no text became."""
        parsed, pieces = value
        self._refuse(name, parsed.notes)
        self._add_size(name, sum(map(len, pieces)))
        self._begin_item(writer, keys.key(name))
        for piece in pieces:
            writer.write(piece)
        self.kinds[parsed.kind] += 1
        self.notes += [f"{quoted(name)}: {note}" for note in parsed.notes]

    def _begin_item(self, writer: BlobWriter, key: str) -> None:
        writer.write(f"{',' if self.files else ''}{dumps(key)}:".encode())
        self.files += 1
        if len(self.names) < _MAX_NAMES:
            self.names.append(key)

    def _add_size(self, name: str, size: int) -> None:
        self.size += size
        if self.size > MAX_TEXT_BYTES:
            raise InputError(
                f"the folder {one_line(self.root)} contains more than {MAX_TEXT_BYTES >> 30} GB of text: give a "
                f"folder in it, or join its files into one, which may be of any size; it was too much with "
                f"{describe.quoted(name)}, of {size:,} bytes, which a .gitignore could leave out"
            )


MAX_FILES = 500_000
"""Most files of a folder. Their names are held in memory and sorted."""

MAX_GITIGNORE_BYTES = 1 << 20
"""Largest size of a `.gitignore`, in bytes."""

MAX_MATCH_EFFORT = 1 << 18
"""Limit for all rules together: about ten seconds for the worst possible name. Rules written by people are far
below it."""

_MAX_NAMED = 6
"""Number of left-out files that are named."""

_EXPECTED = frozenset({"hidden", "cache", "ignored by .gitignore"})
"""Reasons that are common everywhere, so that only their number is reported."""

_CACHES = frozenset({"__pycache__", "node_modules", "CVS"})

_CACHE_MARKER_FILES = ("CACHEDIR.TAG", "pyvenv.cfg")
"""Files that mark a folder as a cache or a virtual environment."""

IsIgnored = Callable[[str], bool]
"""Returns whether to leave out a relative path. That of a folder ends with a slash."""


class Entry(NamedTuple):
    """A member of a folder, as the system described it while the folder was open."""

    name: str
    path: str
    is_folder: bool
    is_link: bool
    is_file: bool
    """True for a regular file, and for a link, whose target is checked later."""

    @classmethod
    def of(cls, folder: str, entry: os.DirEntry[str]) -> Entry:
        """Read the type of an entry. Raises `OSError`."""
        is_folder, is_link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
        return cls(entry.name, os.path.join(folder, entry.name), is_folder, is_link, is_link or entry.is_file())


class FolderWalk:
    """One walk through a folder. It never leaves the folder: links are followed only to files inside.

    `root` is the folder; `within` is the folder or one above it, relative to which everything is opened. Both
    are real paths. `check` is called repeatedly, and may raise to stop. With `strict`, nothing is left out but what
    is everywhere: hidden files, caches and what the rules of the folder exclude.
    """

    def __init__(
        self, within: Path, root: Path, check: Callable[[], object] = lambda: None, *, strict: bool = False
    ) -> None:
        self.within, self.root, self._strict = within, root, strict
        self.left_out: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        """The first names of files that were left out for a reason, by the reason, if it is uncommon."""
        self.named: list[str] = []
        """The first left-out files with an uncommon reason, each with the reason."""
        self._check = check
        self._is_ignored = _read_gitignore(within, root)

    def files(self) -> list[tuple[str, str]]:
        """Return relative path (with slashes) and path of each file, sorted. Raises `InputError` for too many."""
        found, waiting = list[tuple[str, str]](), [(str(self.root), "")]
        while waiting:
            for entry, name in self._entries(*waiting.pop()):
                self._check()
                if reason := self._reason_to_leave_out(entry, name):
                    self.leave_out(name, reason)
                elif entry.is_folder:
                    waiting.append((entry.path, f"{name}/"))
                elif len(found) < MAX_FILES:
                    found.append((name, entry.path))
                else:
                    raise InputError(
                        f"the folder {one_line(self.root)} contains more than {MAX_FILES:,} files: give a folder "
                        "in it, or leave some out by a .gitignore in it"
                    )
        return sorted(found)

    def leave_out(self, name: str, reason: str) -> None:
        """Count a file that is not read, with the reason. Raises `InputError` if it may not be left out."""
        if self._strict and reason not in _EXPECTED:
            raise InputError(f"{quoted(name)} would be left out ({reason}): take it away, or leave out `strict`")
        self.left_out[reason] += 1
        if reason not in _EXPECTED and len(names := self.names.setdefault(reason, [])) < _MAX_NAMED:
            names.append(name)
        if reason not in _EXPECTED and len(self.named) < _MAX_NAMED:
            self.named.append(f"{quoted(name)} ({reason})")

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a file that was found. A link may lead elsewhere by now. Raises `OSError`."""
        resolve_below(self.root, Path(path))
        with open_file_below(self.within, Path(path)) as file:
            yield file

    def _entries(self, folder: str, prefix: str) -> list[tuple[Entry, str]]:
        found = list[tuple[Entry, str]]()
        try:
            with _scan_folder(self.within, folder) as entries:
                for entry in entries:
                    self._check()
                    with self._left_out_on_error(prefix + entry.name):
                        found.append((Entry.of(folder, entry), prefix + entry.name))
        except OSError as error:
            self.leave_out(prefix or self.root.name, error_reason(error))
        return found

    @contextmanager
    def _left_out_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.leave_out(name, error_reason(error))

    def _reason_to_leave_out(self, entry: Entry, name: str) -> str | None:
        if entry.name.startswith("."):
            return "hidden"
        if self._is_ignored(f"{name}/" if entry.is_folder else name):
            return "ignored by .gitignore"
        if entry.is_folder:
            return "cache" if _is_cache(entry) else None
        if entry.is_link:
            return None if self._leads_inside(entry.path) else "link"
        return None if entry.is_file else "special"

    def _leads_inside(self, link: str) -> bool:
        """Return whether a link leads to a file of this folder. Folders inside are walked at their own path."""
        try:
            return resolve_below(self.root, Path(link)).is_file()
        except OSError:
            return False


@contextmanager
def _scan_folder(within: Path, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Yield the members of a folder that was reached without following a link. Raises `OSError`."""
    if os.scandir not in os.supports_fd:  # Windows; what is read is checked when it is opened
        with os.scandir(folder) as entries:
            yield entries
        return
    with open_below(within, Path(folder)) as descriptor, os.scandir(descriptor) as entries:
        yield entries


class UniqueKeys:
    """Keys for the files in a dict: their names without bytes that are not UTF-8, each unique."""

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = {name for name in names if name.isascii() or not replace_surrogates(name)[1]}

    def key(self, name: str) -> str:
        """Return the name itself. Invalid bytes become U+FFFD, or escapes if that key is taken."""
        if name in self._taken:
            return name
        key, number = replace_surrogates(name)[0], 1
        while key in self._taken:
            key = name.encode("utf-8", "backslashreplace").decode() + (f" ({number})" if number > 1 else "")
            number += 1
        self._taken.add(key)
        return key


def error_reason(error: OSError) -> str:
    """Return the reason under which a file that cannot be opened is counted."""
    return "vanished" if isinstance(error, FileNotFoundError) else "unreadable"


def _is_cache(entry: Entry) -> bool:
    return entry.name in _CACHES or any(
        os.path.exists(os.path.join(entry.path, mark)) for mark in _CACHE_MARKER_FILES
    )


def _match_effort(rule: str) -> int:
    """Estimate the time to match a rule: each * in a component may stand for 255 letters, each ** for folders."""
    parts = [] if rule.startswith("#") else rule.replace("\\*", "").split("/")
    folders = parts.count("**")
    stars = max((part.count("*") for part in parts if part != "**"), default=0)
    return int(16 ** min(stars + 1.5 * folders, 8.0))


def _read_gitignore(within: Path, root: Path) -> IsIgnored:
    """Return the rules of a folder. Raises `InputError` if they are too many, too slow, or may not be read."""
    rules = b""
    try:
        with open_file_below(within, root / ".gitignore") as file:
            rules = file.read(MAX_GITIGNORE_BYTES + 1)
    except PermissionError as error:  # without them, what they exclude would be read
        if os.access(root, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise InputError(
                f"cannot read {one_line(root / '.gitignore')} ({error.strerror}): check its permissions, or "
                "remove it"
            ) from error
    except OSError:  # there is none, or it is no file
        pass
    if len(rules) > MAX_GITIGNORE_BYTES:
        raise InputError(f"{one_line(root / '.gitignore')} has more than {MAX_GITIGNORE_BYTES:,} bytes: shorten it")
    lines = rules.decode("utf-8", "replace").splitlines()
    if not lines:
        return lambda _: False
    if sum(map(_match_effort, lines)) > MAX_MATCH_EFFORT:
        raise InputError(
            f"{one_line(root / '.gitignore')} has rules that may take minutes to match one name, such as "
            f"{quoted(max(lines, key=_match_effort))}: write them with fewer *"
        )
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines).match_file
