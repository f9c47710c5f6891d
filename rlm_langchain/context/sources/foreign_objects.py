"""Values that none of our own sources accepts: plug-ins are asked, in the order of their names."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.reference import StoreWriter
from rlm_langchain.context.sources import plugins
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

_ACCEPTED = (
    "text, a pathlib.Path of a file or folder, an open file, a list or dict of plain values, a DataFrame, "
    "or LangChain documents, messages or a loader"
)


def accepts(value: Any) -> bool:
    """Accept everything: this source is asked last, and reports what is wrong."""
    return True


def to_reference(value: Any, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference to what the first plug-in that accepts the value reads from it."""
    if plugins.plugin_for(value) is not None:
        return plugins.to_reference(value, store_writer)
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise InputError(f"a value of type {kind} cannot be a context: give {_ACCEPTED}")
