# ruff: noqa
"""What the helpers share: any context as named texts."""

import json
import re


def as_text(item):
    """An item of a context as text."""
    if isinstance(item, dict) and "page_content" in item:
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
    if isinstance(source, list):
        return [(str(number), as_text(item)) for number, item in enumerate(source)]
    return [("context", source)]


def ask_all(prompts):
    """The replies to many prompts, in order; "" for one that failed."""
    return [reply or "" for reply in llm_query_batched(prompts)] if prompts else []


def in_batches(numbers, items, most, size=30000):
    """Numbers of items in groups of at most `most`, and about `size` characters: what one call reads well."""
    groups, length = [[]], 0
    for number in numbers:
        more = len(as_text(items[number]))
        if groups[-1] and (len(groups[-1]) >= most or length + more > size):
            groups.append([])
            length = 0
        groups[-1].append(number)
        length += more
    return groups if groups[-1] else []
