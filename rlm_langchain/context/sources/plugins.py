"""Paths that a plug-in accepts: an archive, a database. Asked before our own sources, which only read text."""

from __future__ import annotations

import os
from typing import Any

from rlm_langchain import plugins
from rlm_langchain.context.reference import StoreWriter
from rlm_langchain.context.sources import json_values, text
from rlm_langchain.errors import InputError
from rlm_langchain.protocols import ContextSource
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """Accept a path that a plug-in accepts."""
    return isinstance(value, os.PathLike) and plugin_for(value) is not None


def to_reference(value: Any, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference to what the first plug-in that accepts the value reads from it."""
    name = plugin_for(value)
    read = None if name is None else load_source(name).read(value)
    if isinstance(read, str):
        return text.to_reference(read, store_writer)
    if isinstance(read, list | dict):
        return json_values.to_reference(read, store_writer)
    raise InputError(f"the context plug-in {name!r} returned a {type(read).__name__}, not a str, a list or a dict")


def plugin_for(value: Any) -> str | None:
    """Return the first plug-in, in the order of names, that accepts a value."""
    return next((name for name in plugins.names("contexts") if load_source(name).accepts(value)), None)


def load_source(name: str) -> ContextSource:
    """Load a plug-in of the group `rlm_langchain.contexts`: a `ContextSource`, or a class that makes one."""
    found = plugins.load("contexts", name)
    made: ContextSource = found() if isinstance(found, type) else found
    return made
