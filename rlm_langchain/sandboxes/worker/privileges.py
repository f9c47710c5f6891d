"""The last check before a program's code arrives: this process is confined."""

from __future__ import annotations

import os


def left() -> str | None:
    """What this process may do although it must not; None when all is well."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return None
    return "this process is not confined: it can read the root folder"
