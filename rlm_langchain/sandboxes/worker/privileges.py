"""The last check before a program's code arrives: this process is confined, and has no powers of root."""

from __future__ import annotations

import os

VERSION = 0x20080522
"""Of the kernel's structures for capabilities: two times three words of 32 bits."""

SEARCH = 1 << 2
"""The one power that is kept: to read Python's own files, whoever owns them. Landlock says which files."""


def left() -> str | None:
    """What this process may do although it must not; None when all is well."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return None if os.geteuid() else _given_up()
    return "this process is not confined: it can read the root folder"


def _given_up() -> str | None:
    """Give up what root may do. What went wrong, or None."""
    try:
        import ctypes
    except ImportError:
        return "this Python has no ctypes, which a host that is root needs: run as another user"
    libc = ctypes.CDLL(None)
    header, words = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, words)
    kept = words[1] & SEARCH
    libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))
    libc.capget(header, words)
    return None if list(words) == [kept, kept, 0, 0, 0, 0] else "the powers of root could not be given up"
