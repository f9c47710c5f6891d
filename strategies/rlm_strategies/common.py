# ruff: noqa
"""What the helpers share: any context as named texts, and how texts and items are cut into pieces."""

import json
import re


def as_text(item):
    """An item of a context as text."""
    if isinstance(item, dict) and isinstance(item.get("page_content"), str):
        return item["page_content"]
    if isinstance(item, (dict, list)):
        return json.dumps(item, ensure_ascii=False)
    return item if hasattr(item, "find") else str(item)


def texts(source=None):
    """The context, or another str, list or dict, as a list of (name, text)."""
    source = context if source is None else source
    if source is None:
        return []
    if isinstance(source, dict):
        return [(str(name), as_text(item)) for name, item in source.items()]
    if hasattr(source, "find") or isinstance(source, (int, float)):
        return [("context", as_text(source))]
    return [(str(number), as_text(item)) for number, item in enumerate(source)]


def ask_all(prompts):
    """The replies to many prompts, in order; "" for one that failed."""
    return [reply or "" for reply in llm_query_batched(prompts)] if prompts else []


def in_batches(numbers, items, most, size=30000):
    """Numbers of items in groups: what one call reads well.

    Every number, once, in the order given. A group has at most `most` items, and at most `size` characters; a
    longer item is alone in its group. Raises ValueError when `most` or `size` is below 1.
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
    """Where to cut a text: a list of (start, end), in order. An empty text has none.

    The first starts at 0, each further one `overlap` characters before the end of the last, and the last ends
    with the text. None is empty or longer than `size`. An end is moved back to the first of the separators that
    is there, as long as half of `size - overlap` is new text.

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
