"""What Monty's `collections` lacks: OrderedDict, which every dict is."""

# ruff: noqa
# mypy: ignore-errors

from collections import Counter, defaultdict, deque, namedtuple

OrderedDict = dict
