"""Contexts that are larger than memory."""
