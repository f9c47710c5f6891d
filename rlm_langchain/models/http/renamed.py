"""Passes parameters that a server has refused from a model call to the HTTP transport. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

RENAMED_PARAMETERS: ContextVar[Mapping[str, str | None]] = ContextVar("RENAMED", default={})  # noqa: B039 - never changed
"""Parameters that the requests of this context send under another name, or not at all (None)."""
