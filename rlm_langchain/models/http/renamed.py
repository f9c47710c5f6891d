"""Parameters of a request that its server has refused, on their way to the transport. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

RENAMED: ContextVar[Mapping[str, str | None]] = ContextVar("RENAMED", default={})  # noqa: B039 - never changed
"""Parameters that the requests of this context send under another name, or not at all (None)."""
