"""Converts values to text for prompts."""

from __future__ import annotations

import json

from rlm_langchain.context.sources.subtext import read_excerpt
from rlm_langchain.types import Excerpt


def to_prompt_text(value: object) -> str:
    """Return a value as a model reads it."""
    if isinstance(value, Excerpt):
        return read_excerpt(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
