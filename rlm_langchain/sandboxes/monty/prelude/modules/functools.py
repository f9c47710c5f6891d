"""The part of `functools` that Monty lacks: wraps, and cmp_to_key for sorting."""

# ruff: noqa
# mypy: ignore-errors

from functools import cache, lru_cache, partial, reduce


def wraps(wrapped, *args, **kwargs):
    return lambda wrapper: wrapper


def update_wrapper(wrapper, wrapped, *args, **kwargs):
    return wrapper
