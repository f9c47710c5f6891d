"""As much of `traceback` as there can be: the REPL shows where errors came from, a program cannot see it."""

# ruff: noqa
# mypy: ignore-errors

import sys

_UNKNOWN = "Traceback (most recent call last): (not known inside the REPL)\n"


def format_exc(limit=None, chain=True):
    return _UNKNOWN


def print_exc(limit=None, file=None, chain=True):
    print(_UNKNOWN, end="")


def format_exception(exc, value=None, tb=None, **kwargs):
    error = exc if value is None else value
    return [_UNKNOWN, f"{type(error).__name__}: {error}\n"]


def print_exception(exc, value=None, tb=None, **kwargs):
    print("".join(format_exception(exc, value)), end="")
