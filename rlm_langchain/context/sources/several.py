"""Several contexts as one dict: files and folders by name. Those with a name of their own are variables, too."""

from __future__ import annotations

import builtins
import keyword
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rlm_langchain.context import describe
from rlm_langchain.context.describe import quoted
from rlm_langchain.context.places import FOLDER
from rlm_langchain.context.reference import MAX_NOTES_CHARS, StoreWriter, with_notes
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.context.sources import json_values
from rlm_langchain.context.sources.folders import MAX_TEXT_BYTES, UniqueKeys
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

_TAKEN = frozenset(
    (
        *("FINAL", "FINAL_VAR", "LLMError", "SHOW_VARS", "answer", "budget", "context", "earlier", "llm_query"),
        *("llm_query_batched", "recursive_lm", "rlm_query", "rlm_query_batched", "search", "json", "math", "re"),
        *dir(builtins),
    )
)
"""Names that no context may take in the REPL."""


def accepts(value: Any) -> bool:
    """Accept a dict with paths among its values, and a list of paths."""
    if isinstance(value, dict):
        return any(isinstance(item, os.PathLike) for item in value.values())
    return isinstance(value, list | tuple) and any(isinstance(item, os.PathLike) for item in value)


def named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each context. Files of a list have their paths as names.

    Raises `InputError` for a key that is no text, and for a list with something else than paths in it.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"context has the key {key!r}: make its keys str")
            yield key, item
        return
    if odd := next((item for item in value if not isinstance(item, os.PathLike)), None):
        raise InputError(
            f"the context is a list of paths with a {type(odd).__name__} in it: give a dict of names to values"
        )
    keys = UniqueKeys(os.fsdecode(item) for item in value)
    for item in dict.fromkeys(value):
        yield keys.key(os.fsdecode(item)), item


@dataclass(slots=True)
class Several:
    """Contexts that become one dict."""

    values: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Keys that are to be variables."""
    _files: dict[str, str] = field(default_factory=dict)
    _size: int = 0
    _notes: list[str] = field(default_factory=list)
    _abouts: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, ref: ContextRef | None, *, is_folder: bool = False) -> None:
        """Add a context: what it is in memory, and the reference that was made of it. A folder's files are added
        one by one.

        Raises `InputError` if all are more than a sandbox can hold.
        """
        self._size += ref["size"] if ref else 0
        if self._size > MAX_TEXT_BYTES:
            raise InputError(
                f"the context has more than {MAX_TEXT_BYTES >> 30} GB of text: give fewer files at "
                "once, or join them into one, which may be of any size"
            )
        if is_folder and isinstance(value, dict):
            added = {f"{key.rstrip('/')}/{path}": text for path, text in value.items()}
            self._files |= {path: path for path in added}
            self.values |= added
        else:
            self._files[key] = ref.get("files", {}).get("", "") if ref else ""
            self.values[key] = value
        if ref is not None:
            self._abouts.append(f"{quoted(key)}: {ref['about'].partition('; from the file')[0]}")
            self._notes += [f"{quoted(key)}: {note}" for note in ref.get("notes", ())]

    def to_reference(self, store_writer: StoreWriter) -> ContextRef | None:
        """Return the reference to the dict."""
        ref = json_values.to_reference(self.values, store_writer)
        if ref is None:
            return None
        names = [*variables(self.names)]
        told = f"each is a variable, too: {', '.join(names)}" if names else ""
        about = describe.join_parts(ref["about"], told, *self._abouts)[:MAX_NOTES_CHARS]
        made: ContextRef = {**ref, "about": about, "files": self._files if self.names else {"": FOLDER}}
        if names:
            made["names"] = names
        return with_notes(made, self._notes)


def variables(names: Iterable[str]) -> Iterator[str]:
    """Yield the names that can be variables of the REPL. Raises `InputError` for one that means something there."""
    for name in names:
        if name in _TAKEN or keyword.iskeyword(name):
            raise InputError(
                f"a context cannot be called {one_line(name)}, which means something else in the REPL: rename it"
            )
        if name.isidentifier() and not name.startswith("_"):
            yield name
