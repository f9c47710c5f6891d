"""What none of our own sources knows: the plug-ins are asked, in the order of their names.

A plug-in of the group `rlm_langchain.contexts` is a `protocols.ContextSource`, or a class of one that is
called without arguments.
"""

from __future__ import annotations

from typing import Any

from rlm_langchain import plugins
from rlm_langchain.context import data, text
from rlm_langchain.context.intake import Intake
from rlm_langchain.errors import InputError
from rlm_langchain.protocols import ContextSource
from rlm_langchain.types import ContextRef

_KNOWN = (
    "text, a pathlib.Path of a file or folder, an open file, a list or dict of plain values, "
    "LangChain documents or messages"
)


def accepts(value: Any) -> bool:
    """Everything: this source is asked last, and says what is wrong."""
    return value is not None


def refer(value: Any, intake: Intake) -> ContextRef | None:
    """What the first plug-in that accepts the value reads from it."""
    for name in plugins.names("contexts"):
        source = _source(name)
        if source.accepts(value):
            return _stored(source.read(value), name, intake)
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise InputError(f"a value of type {kind} cannot be a context: give {_KNOWN}")


def _source(name: str) -> ContextSource:
    found = plugins.load("contexts", name)
    source: ContextSource = found() if isinstance(found, type) else found
    return source


def _stored(value: Any, name: str, intake: Intake) -> ContextRef | None:
    if isinstance(value, str):
        return text.refer(value, intake)
    if isinstance(value, list | dict):
        return data.refer(value, intake)
    raise InputError(f"the context plug-in {name!r} gave a {type(value).__name__}, not a str, a list or a dict")
