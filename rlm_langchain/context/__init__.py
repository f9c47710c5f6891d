"""Contexts: what can be one, and where its bytes are stored. State holds only references."""

from __future__ import annotations

from rlm_langchain.context.blobs import Collected
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.context.sanitize import quotable, visible
from rlm_langchain.context.store import ContextStore, home

__all__ = ["Collected", "ContextStore", "approximate_tokens", "home", "quotable", "visible"]
