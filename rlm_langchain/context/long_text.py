"""Long texts by reference: what state, tasks and records hold of questions and values too long for a checkpoint.

LangGraph writes the state again at every step, so a text of it is in a database many times over. A short one stays
as it is, for people who read traces. A long one is in the store, once, and what refers to it is small.
"""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.decoding import replace_surrogates
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.context.sanitize import clip
from rlm_langchain.context.sources import references
from rlm_langchain.context.store import ContextStore
from rlm_langchain.types import ContextRef, Plain

MADE_CHARS = 1_000
"""Characters of a question up to which it stays as it is, when code has put it together: it may ask thousands."""
ASKED_CHARS = 20_000
"""The same for a question of the caller, of which there is one."""
VALUE_CHARS = 5_000
"""Characters of a value (the answer of a child run, the result of a tool) up to which records hold it as it is."""
PREVIEW_CHARS = 200
"""Characters of the preview in the reference to a question."""
BEGINNING = 200
"""Characters of a longer text that a record shows: of its beginning and its end, with the length said between."""


def by_reference(store: ContextStore, text: str, most: int) -> str | ContextRef:
    """Return the text, or a reference to it if it is longer than `most` characters.

    Text with half of a surrogate pair stays: the store would replace that without a word. Raises `JournalError`.
    """
    if len(text) <= most or replace_surrogates(text)[1]:
        return text
    return stored(store, text, PREVIEW_CHARS)


def recorded_value(store: ContextStore, value: Plain) -> dict[str, Any]:
    """Return what a record has of a value that code has made: `value`, and of a long one in short, and `value_ref`.

    Raises `JournalError` when a long one cannot be stored.
    """
    text = "" if not isinstance(value, str | list | dict) else to_prompt_text(value)
    if len(text) <= VALUE_CHARS or replace_surrogates(text)[1]:
        return {"value": value}
    ref = store.reference_from_repl(value)
    assert ref is not None  # noqa: S101 - only an empty value has none
    return {"value": shortened(text), "value_ref": store.with_short_preview(ref, 0)}


def stored(store: ContextStore, text: str, preview: int = 0) -> ContextRef:
    """Return a reference to a text that is not empty, with so many characters of a preview.

    Raises `JournalError` when it cannot be stored.
    """
    ref = store.reference_from_repl(text)
    assert ref is not None  # noqa: S101 - only an empty text has none
    return store.with_short_preview(ref, preview)


def stored_list(store: ContextStore, texts: list[str]) -> ContextRef:
    """Return a reference to a list of texts that is not empty. Halves of surrogate pairs become U+FFFD.

    Raises `JournalError` when it cannot be stored.
    """
    ref = store.reference_from_repl([replace_surrogates(text)[0] for text in texts])
    assert ref is not None  # noqa: S101 - only an empty list has none
    return store.with_short_preview(ref, 0)


def loaded(store: ContextStore, text: Any) -> Any:
    """Return the text behind a reference that a store of this home has signed; anything else as it is.

    Raises `JournalError` when the text is missing, or the reference was made elsewhere.
    """
    return store.load(store.verified(text)) if references.accepts(text) else text


def shortened(text: str) -> str:
    """Return what a record shows of a long text."""
    return clip(text, BEGINNING)


def beginning(text: str | ContextRef) -> str:
    """Return the first characters of a text, without reading it from the store."""
    return text if isinstance(text, str) else text["preview"]


def length(text: str | ContextRef) -> int:
    """Return the characters of a text, without reading it from the store."""
    return len(text) if isinstance(text, str) else text["length"]
