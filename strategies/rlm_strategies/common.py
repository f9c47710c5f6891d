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
