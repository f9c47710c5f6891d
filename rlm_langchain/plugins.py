"""Finds plug-ins by entry point. Built-in plug-ins are registered and found in the same way as others."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from rlm_langchain.errors import UnknownPlugin


def names(group: str) -> tuple[str, ...]:
    """Return the sorted names of a group of plug-ins: sandboxes, strategies, contexts, providers, calls, arms."""
    return tuple(sorted(_installed(group, tuple(sys.path)).names))


def load(group: str, name: str) -> Any:
    """Load the plug-in `name`. Raises `UnknownPlugin`, which lists the installed ones."""
    installed = _installed(group, tuple(sys.path))
    if name not in installed.names:
        raise UnknownPlugin(group, name, installed.names)
    return installed[name].load()


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Read the entry points of a group. Cached for each `sys.path`: reading takes longer the more is installed."""
    return entry_points(group=f"rlm_langchain.{group}")
