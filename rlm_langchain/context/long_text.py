"""Replaces long questions and values in state, tasks and records by references to the store.

LangGraph writes the state again at every step, so a long text would be in a database many times. A short text stays
in place, for people who read traces. A long one is stored once, and its reference is small.
"""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.decoding import replace_surrogates
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.context.sanitize import clip
from rlm_langchain.context.sources import references
from rlm_langchain.context.store import ContextStore
from rlm_langchain.types import ContextRef, Plain

CODE_QUESTION_CHARS = 1_000
"""Longest question of code in the REPL, in characters, that stays in place. Code may ask thousands of questions."""
USER_QUESTION_CHARS = 20_000
"""Longest question of the caller, in characters, that stays in place. There is only one of these."""
VALUE_CHARS = 5_000
"""Longest value (the answer of a child run, the result of a tool), in characters, that stays in a record."""
QUESTION_PREVIEW_CHARS = 200
"""Characters of the preview in the reference to a question."""
EXCERPT_CHARS = 200
"""Characters of a longer text that a record shows: its beginning and its end, with its length between them."""


def text_or_reference(store: ContextStore, text: str, most: int) -> str | ContextRef:
    """Return the text, or a reference to it if it is longer than `most` characters.

    A text with a lone surrogate stays in place: the store would replace the surrogate. Raises `JournalError`.
    """
    if len(text) <= most or replace_surrogates(text)[1]:
        return text
    return store_text(store, text, QUESTION_PREVIEW_CHARS)


def value_fields(store: ContextStore, value: Plain) -> dict[str, Any]:
    """Return the fields of a record for a value: `value`, or for a long one `value` shortened and `value_ref`.

    Raises `JournalError` if a long value cannot be stored.
    """
    text = "" if not isinstance(value, str | list | dict) else to_prompt_text(value)
    if len(text) <= VALUE_CHARS or replace_surrogates(text)[1]:
        return {"value": value}
    ref = store.reference_from_repl(value)
    assert ref is not None  # noqa: S101 - only an empty value has none
    return {"value": shorten(text), "value_ref": store.with_short_preview(ref, 0)}


def store_text(store: ContextStore, text: str, preview: int = 0) -> ContextRef:
    """Store a text that is not empty. Return its reference with a preview of `preview` characters.

    Raises `JournalError` if the text cannot be stored.
    """
    ref = store.reference_from_repl(text)
    assert ref is not None  # noqa: S101 - only an empty text has none
    return store.with_short_preview(ref, preview)


def store_texts(store: ContextStore, texts: list[str]) -> ContextRef:
    """Return a reference to a list of texts that is not empty. Halves of surrogate pairs become U+FFFD.

    Raises `JournalError` when it cannot be stored.
    """
    ref = store.reference_from_repl([replace_surrogates(text)[0] for text in texts])
    assert ref is not None  # noqa: S101 - only an empty list has none
    return store.with_short_preview(ref, 0)


def load_text(store: ContextStore, text: Any) -> Any:
    """Return the text of a reference that a store of this home has signed. Anything else is returned unchanged.

    Raises `JournalError` if the text is missing, or the reference was made elsewhere.
    """
    return store.load(store.verified(text)) if references.accepts(text) else text


def shorten(text: str) -> str:
    """Return a long text in the shortened form that a record shows."""
    return clip(text, EXCERPT_CHARS)


def first_characters(text: str | ContextRef) -> str:
    """Return the first characters of a text, without reading it from the store."""
    return text if isinstance(text, str) else text["preview"]


def length(text: str | ContextRef) -> int:
    """Return the characters of a text, without reading it from the store."""
    return len(text) if isinstance(text, str) else text["length"]
