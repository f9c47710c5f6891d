"""Opens files and folders below a root safely, even while others move things: no new link can lead out of it.

A path is resolved first, so that links to places below the root work. Then it is opened from the root, one
component at a time, and none of them may be a link any more, so a component that was replaced by a link in
between is refused. What is read is what was opened. Where the system cannot open relative to a folder
(Windows), a file is opened by its path, followed by a check that the opened file is the one below the root.

Not covered: anyone who may write to the folders above the root; hard links, which only the owner of a file, or
those who may write to it, can create (`fs.protected_hardlinks`, the default of Linux).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_CAN_OPEN_RELATIVE = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
"""Whether this system can open a path relative to an open folder, without following links."""
_OPEN_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Flags so that opening a pipe does not block, and opening a terminal does not take it over."""
_BINARY = getattr(os, "O_BINARY", 0)


class OutsideRoot(OSError):
    """A path leads out of the root, or was changed while it was opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            errno.EXDEV, "it leads out of the folder that may be read, or was changed meanwhile", str(path)
        )


def resolve_below(root: Path, path: Path) -> Path:
    """Return the real path of something below `root`, with links followed.

    Raises `OSError`, and `OutsideRoot` for a path that leads elsewhere.
    """
    return resolve_in_roots([root], path)[1]


def resolve_in_roots(roots: Sequence[Path], path: Path) -> tuple[Path, Path]:
    """Return the real path of the first root that contains `path`, and the real path itself. Raises as
    `resolve_below`."""
    try:
        found = path.resolve()
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    within = next((real for root in roots if found.is_relative_to(real := root.resolve())), None)
    if within is None:
        raise OutsideRoot(path)
    try:
        os.stat(path)  # Python follows any number of links since 3.13; the system does not
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return within, found


@contextmanager
def open_below(root: Path, path: Path) -> Iterator[int]:
    """Yield a descriptor of `path`, a real path below the real path `root`. Raises `OSError`."""
    descriptor = _open_relative(root, path) if _CAN_OPEN_RELATIVE else _open_and_check(root, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_file_below(root: Path, path: Path) -> Iterator[BinaryIO]:
    """Yield the regular file at `path`, following links to places below `root`. Raises `OSError`."""
    with open_below(root, resolve_below(root, path)) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            yield file


def _open_relative(root: Path, path: Path) -> int:
    *folders, last = ("." if path == root else path.relative_to(root).as_posix()).split("/")
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | _OPEN_FLAGS)
    try:
        for name in folders:
            below = _open_component(at, name, os.O_DIRECTORY, path)
            os.close(at)
            at = below
        return _open_component(at, last, 0, path)
    finally:
        os.close(at)


def _open_component(at: int, name: str, flags: int, path: Path) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | flags | _OPEN_FLAGS, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):  # a link, as different systems report it
            raise OutsideRoot(path) from error
        raise


def _open_and_check(root: Path, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | _OPEN_FLAGS | _BINARY)
    try:
        now = resolve_below(root, path)
        if now != path or not os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            raise OutsideRoot(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
