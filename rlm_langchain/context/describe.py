"""Describes a context to a root model that has not looked at it: one line, and the first characters."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import NoneType
from typing import Any, Literal, NamedTuple

from rlm_langchain.context.sanitize import quotable

BYTES_PER_TOKEN = 4
"""Approximate number of UTF-8 bytes per token, see `approximate_tokens`."""

PREVIEW_CHARS = 300
"""Length of a preview in characters."""

PREVIEW_BYTES = 4 * PREVIEW_CHARS
"""Bytes that contain at least `PREVIEW_CHARS` characters in any script."""

_MAX_KEYS = 6
"""Number of keys that a line names; each is cut to `_MAX_KEY_CHARS` characters."""

_MAX_KEY_CHARS = 60

_TEXT_SIZE = re.compile(r", [\d,]+ characters")


def approximate_tokens(text: str | int) -> int:
    """Return the approximate number of tokens of a text, or of a number of UTF-8 bytes: the bytes divided by four.

    Measured with o200k_base: code and prose in Latin script have 4 to 5 bytes per token, Chinese and Japanese 3
    to 3.5, Arabic and Cyrillic 5 to 7, lines of digits 2. Dividing characters by four would give a quarter of
    the true number for Chinese.
    """
    size = text if isinstance(text, int) else len(text.encode("utf-8", "replace"))
    return round(size / BYTES_PER_TOKEN)


def preview(text: str) -> str:
    """Return the first characters of a text, with invisible characters as escapes."""
    return quotable(text[:PREVIEW_CHARS])[:PREVIEW_CHARS]


def preview_of_bytes(data: bytes) -> str:
    """Return the preview of a text from its first bytes."""
    return preview(data[:PREVIEW_BYTES].decode("utf-8", "ignore"))


def describe_text(characters: int, size: int, *notes: str) -> str:
    """Return `str, 4,404,445 characters (about 1,100,000 tokens)`, followed by notes."""
    return join_parts(f"str, {characters:,} characters ({tokens(size)})", *notes)


def describe_list(items: Sequence[Any], size: int) -> str:
    """Describe a list: the lengths of texts, the keys of dicts, or the number of items of each type."""
    kinds = _count_types(items)
    if set(kinds) == {"str"}:
        lengths = [*map(len, items)]
        each = f"{min(lengths):,} to {max(lengths):,} characters, {sum(lengths):,} in all"
        return join_parts(f"list of {len(items):,} str, {each} ({tokens(size)})")
    if set(kinds) == {"dict"}:
        keys = list_keys(items[0])
        return join_parts(f"list of {len(items):,} dict ({tokens(size)} as JSON)", f"keys of the first: {keys}")
    return join_parts(f"list of {count(len(items), 'item')} ({tokens(size)} as JSON)", list_counts(kinds))


def describe_dict(items: Mapping[str, Any], size: int) -> str:
    """Describe a dict: the types of its values, and its first keys."""
    kinds = _count_types(items.values())
    mix = list_counts(kinds)
    if set(kinds) == {"str"}:
        mix += f", {sum(map(len, items.values())):,} characters in all"
    return join_parts(
        f"dict of {count(len(items), 'item')}: {mix} ({tokens(size)} as JSON)",
        f"{keys_label(items)}: {list_keys(items)}",
    )


def without_size(line: str) -> str:
    """Cut a description before the size of its text: `str`, `dict of 799 files: path -> text`.

    A description without such a size is returned unchanged. Names of keys, which may contain anything, do not
    count.
    """
    head = line.partition("; ")[0]
    kind = _TEXT_SIZE.split(head, maxsplit=1)[0]
    return line if kind == head else kind


def tokens(size: int) -> str:
    """Return `about 1,100,000 tokens`, rounded to two digits because the number is an estimate."""
    exact = approximate_tokens(size)
    return f"about {count(round(exact, 2 - len(str(exact))), 'token')}"


def count(number: int, noun: str) -> str:
    """Return a count with its noun: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def keys_label(keys: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the word before a list of keys, which depends on whether the list is cut."""
    return "first keys" if len(keys) > _MAX_KEYS else "keys"


def list_counts(kinds: Counter[str]) -> str:
    """Return `3 str, 1 list`, most frequent first."""
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())


def list_keys(keys: Iterable[str]) -> str:
    """Return the first few keys, quoted, each cut and on one line."""
    return ", ".join(map(quoted, islice(keys, _MAX_KEYS))) or "none"


def quoted(name: str) -> str:
    """Quote a name from outside for use in a line: cut, with escapes for invisible characters and line breaks."""
    cut = name if len(name) <= _MAX_KEY_CHARS else f"{name[:_MAX_KEY_CHARS]}…"
    shown = quotable(json.dumps(cut, ensure_ascii=False))
    return shown if len(shown) <= 2 * _MAX_KEY_CHARS else f'{shown[: 2 * _MAX_KEY_CHARS]}…"'


def join_parts(*parts: str) -> str:
    """Join the non-empty parts into one line."""
    return "; ".join(filter(None, parts))


def _count_types(values: Iterable[Any]) -> Counter[str]:
    """Count values by the type that a sandbox will see."""
    kinds: Counter[str] = Counter()
    for kind, number in Counter(map(type, values)).items():
        kinds[_json_type(kind)] += number
    return kinds


def _json_type(kind: type) -> str:
    """Return the JSON type that a Python type becomes."""
    base = next((base for base in (str, dict, bool, int, float) if issubclass(kind, base)), None)
    if base is not None:
        return base.__name__
    return "None" if kind is NoneType else "list"


SEPARATORS = ("\t", "|", ";", ",")

MAX_HEADER_CELL = 40
"""Longest cell of a header line, in characters. Longer cells mean that the text is prose."""


class Table(NamedTuple):
    """A table: its delimiter, and the cells of its first line."""

    mark: str
    cells: tuple[str, ...]

    def words(self) -> dict[str, str]:
        """Return both as Python source."""
        numbered = (f"[{number}] {_quoted(cell)}" for number, cell in enumerate(self.cells))
        return {"mark": _quoted(self.mark), "cells": ", ".join(numbered)}


def find_table(preview: str) -> Table | None:
    """Return the table that a text begins with, or None. The last line of a preview may be cut and does not
    count."""
    lines = preview.split("\n")[:-1]
    if len(lines) < 2 or lines[0].startswith(("{", "[", "#")):
        return None
    return next((Table(mark, cells) for mark in SEPARATORS if (cells := _cells(lines, mark))), None)


def type_of_text(preview: str) -> Literal["str", "table"]:
    """Return the `ContextRef.type` of a text, judged by its preview."""
    return "str" if find_table(preview) is None else "table"


def _cells(lines: list[str], mark: str) -> tuple[str, ...]:
    """Return the cells of the first line if all lines have equally many. A few commas may just as well be prose."""
    counts = {line.count(mark) for line in lines if line}
    if len(counts) != 1 or max(counts) < (1 if len(lines) > 2 else 3):
        return ()
    cells = tuple(lines[0].split(mark))
    unlikely = mark == "," and (not all(cells[1:]) or any(cell[:1] == " " or cell[:1].isdigit() for cell in cells))
    return () if unlikely or max(map(len, cells)) > MAX_HEADER_CELL else cells


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
