"""Finds plug-ins by entry point. Built-ins come in by the same door as everybody else's."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from rlm_langchain.errors import UnknownPlugin


def names(group: str) -> tuple[str, ...]:
    """The installed plug-ins of a group ("sandboxes", "strategies", "contexts"), sorted."""
    return tuple(sorted(entry_points(group=f"rlm_langchain.{group}").names))


def load(group: str, name: str) -> Any:
    """The plug-in `name`. Raises `UnknownPlugin`, which lists what is there."""
    installed = entry_points(group=f"rlm_langchain.{group}")
    if name not in installed.names:
        raise UnknownPlugin(group, name, installed.names)
    return installed[name].load()
