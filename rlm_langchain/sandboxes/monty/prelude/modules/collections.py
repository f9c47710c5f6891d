"""The part of `collections` that Monty lacks: OrderedDict, which is a plain dict."""

# ruff: noqa
# mypy: ignore-errors

from collections import Counter, defaultdict, deque, namedtuple

OrderedDict = dict
