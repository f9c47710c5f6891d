# ruff: noqa
"""Shared by the helpers: contexts as named texts, and splitting of texts and items."""

import json
import re


def as_text(item):
    """Convert an item of a context to text."""
    if isinstance(item, dict) and isinstance(item.get("page_content"), str):
        return item["page_content"]
    if isinstance(item, (dict, list)):
        return json.dumps(item, ensure_ascii=False)
    return item if hasattr(item, "find") else str(item)


def texts(source=None):
    """Return the context, or another str, list or dict, as a list of (name, text)."""
    source = context if source is None else source
    if source is None:
        return []
    if isinstance(source, dict):
        return [(str(name), as_text(item)) for name, item in source.items()]
    if hasattr(source, "find") or isinstance(source, (int, float)):
        return [("context", as_text(source))]
    return [(str(number), as_text(item)) for number, item in enumerate(source)]


def ask_all(prompts):
    """Return the replies to many prompts, in order; "" for a failed call."""
    return [reply or "" for reply in llm_query_batched(prompts)] if prompts else []


def in_batches(numbers, items, most, size=30000):
    """Group the numbers of items into batches for one call each.

    Keeps every number, once, in order. A group has at most `most` items and at most `size` characters; a longer
    item has a group of its own. Raises ValueError when `most` or `size` is below 1.
    """
    _at_least("batch", most, 1)
    _at_least("size", size, 1)
    groups, length = [[]], 0
    for number in numbers:
        more = len(as_text(items[number]))
        if groups[-1] and (len(groups[-1]) >= most or length + more > size):
            groups.append([])
            length = 0
        groups[-1].append(number)
        length += more
    return groups if groups[-1] else []


def _cut(text, size, overlap=0, separators=("\n\n", "\n", ". ", " ")):
    """Return the spans (start, end) of the pieces of a text, in order; none for an empty text.

    The first span starts at 0, each other one `overlap` characters before the end of the previous one, and the last
    ends with the text. No span is empty or longer than `size`. An end is moved back to the first separator in the
    list that occurs, as long as at least half of `size - overlap` is new text.

    Raises ValueError when `size` is below 1, or `overlap` negative or not below `size`.
    """
    _at_least("size", size, 1)
    _at_least("overlap", overlap, 0)
    if overlap >= size:
        raise ValueError(f"overlap={overlap} is not below size={size}: give a smaller overlap or a larger size")
    separators = [separators] if isinstance(separators, str) else separators
    spans, start, least = [], 0, overlap + (size - overlap) // 2
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            piece = text[start:end]
            for separator in separators:
                at = piece.rfind(separator)
                if at > least:
                    end = start + at + len(separator)
                    break
        spans.append((start, end))
        start = end if end == len(text) else end - overlap
    return spans


def _room(size, head, overlap=0):
    """Characters that a piece of `size` has beside its heading. Raises ValueError when no new text would fit."""
    if size - len(head) <= overlap:
        beside = f"the heading {head[:100]!r} and overlap={overlap}"
        raise ValueError(f"size={size} has no room beside {beside}: give a size well above {len(head) + overlap}")
    return size - len(head)


def _at_least(name, value, least):
    """Raise ValueError when an argument is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number (int) of at least {least}")


def _listed(name, items):
    """Raise ValueError when items are one text or a dict, whose characters or keys would be taken for items."""
    if hasattr(items, "find"):
        raise ValueError(f"{name} is one text: give a list, such as text.split('\\n')")
    if isinstance(items, dict):
        raise ValueError(f"{name} is a dict: give list(d.values()) or [list(pair) for pair in d.items()]")
