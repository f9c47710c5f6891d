"""The names of `pathlib` for paths that are only looked at."""

# ruff: noqa
# mypy: ignore-errors

from pathlib import Path

PurePath = PurePosixPath = PosixPath = Path
