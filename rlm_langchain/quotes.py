"""Where a quote stands in the contexts of a run: as it is, or with other white space between its words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlm_langchain.context import ContextStore
from rlm_langchain.context.mapped import MappedText, mapped
from rlm_langchain.context.opening import read
from rlm_langchain.retrieval.sources import strings
from rlm_langchain.types import Citation, ContextRef

if TYPE_CHECKING:
    from rlm_langchain.citations import Quote

_SPACE = rb"(?:\s|\xc2\xa0|\xc2\x85|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)+"
"""What `\\s` means in text, in UTF-8."""


class _Haystack(Protocol):
    @property
    def label(self) -> str:
        """What the source is called."""

    def find(self, words: str) -> tuple[int, int, str] | None:
        """Where a quote begins and ends, in characters, and the text there."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A text in memory."""

    label: str
    text: str

    def find(self, words: str) -> tuple[int, int, str] | None:
        start = self.text.find(words)
        if start >= 0:
            return start, start + len(words), words
        match = re.search(r"\s+".join(map(re.escape, words.split())), self.text)
        return (match.start(), match.end(), match[0]) if match else None


@dataclass(frozen=True, slots=True)
class _File:
    """A text on disk, of any size."""

    label: str
    text: MappedText

    def find(self, words: str) -> tuple[int, int, str] | None:
        exact = words.encode("utf-8", "replace")
        start = self.text.find(exact)
        end = start + len(exact)
        if start < 0:
            parts = [re.escape(word.encode("utf-8", "replace")) for word in words.split()]
            place = self.text.search(_SPACE.join(parts))
            if place is None:
                return None
            start, end = place
        found = self.text.bytes(start, end).decode("utf-8", "replace")
        first = self.text.character(start)
        return first, first + len(found), found


def find_all(
    store: ContextStore, contexts: Mapping[str, ContextRef], quotes: Sequence[Quote]
) -> list[Citation | None]:
    """For each quote its first place: in the source that it names, else in any; None for one that is nowhere."""
    with ExitStack() as stack:
        haystacks = [hay for name, ref in contexts.items() for hay in _haystacks(stack, store, name, ref)]
        return [_find(haystacks, quote) for quote in quotes]


def _find(haystacks: list[_Haystack], quote: Quote) -> Citation | None:
    named = [hay for hay in haystacks if hay.label == quote.source]
    for hay in [*named, *haystacks]:
        if place := hay.find(quote.text):
            start, end, text = place
            return Citation(quote=text, source=hay.label, start=start, end=end)
    return None


def _haystacks(stack: ExitStack, store: ContextStore, name: str, ref: ContextRef) -> Iterator[_Haystack]:
    """The texts of a context; those of further contexts are named after them."""
    file = store.open(ref)
    if file.kind == "text":
        yield _File(name, stack.enter_context(mapped(file)))
        return
    prefix = "" if name == "context" else f"{name}."
    for label, text in strings(json.loads(read(file))):
        yield _Text(f"{prefix}{label}", text)
