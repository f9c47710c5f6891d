"""Finds plug-ins by entry point. Built-ins come in by the same door as everybody else's."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from rlm_langchain.errors import UnknownPlugin


def names(group: str) -> tuple[str, ...]:
    """The installed plug-ins of a group ("sandboxes", "strategies", "contexts", "providers", "calls"), sorted."""
    return tuple(sorted(_installed(group, tuple(sys.path)).names))


def load(group: str, name: str) -> Any:
    """The plug-in `name`. Raises `UnknownPlugin`, which lists what is there."""
    installed = _installed(group, tuple(sys.path))
    if name not in installed.names:
        raise UnknownPlugin(group, name, installed.names)
    return installed[name].load()


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Read once for each `sys.path`: to read it takes as long as hundreds of packages do."""
    return entry_points(group=f"rlm_langchain.{group}")
