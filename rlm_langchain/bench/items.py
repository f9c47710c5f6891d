"""Items of a benchmark: a question, its context, and the answer that is known. All of it follows from the seed."""

from __future__ import annotations

import hashlib
import json
import platform
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from rlm_langchain.bench.scoring import METRICS, Metric
from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.errors import ConfigurationError

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([km]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True)
class Question:
    """What a family of tasks generates."""

    text: str
    context: str = field(repr=False)
    expected: tuple[str, ...]
    """What the metric compares an answer with."""
    metric: Metric


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of task."""

    name: str
    about: str
    """What is asked, in one line."""
    source: str
    """Where its texts come from."""
    make: Callable[[random.Random, int], Question] = field(repr=False)
    """Makes a question over a context of about so many characters, from a seeded source of randomness alone."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question of a benchmark."""

    family: str
    length: int
    """Tokens of the context, estimated as a quarter of its characters."""
    index: int
    question: Question

    @property
    def id(self) -> str:
        """Return its name: that of the family, the length and a number."""
        return f"{self.family}-{length_name(self.length)}-{self.index}"

    @property
    def sha256(self) -> str:
        """Return the hash of everything that decides its score."""
        asked = self.question
        return _sha256([self.id, asked.text, asked.context, list(asked.expected), asked.metric])

    def score(self, answer: str) -> float:
        """Return the score of an answer, from 0 to 1."""
        return METRICS[self.question.metric](self.question.expected, answer)


class ItemRecord(TypedDict):
    """An item in a manifest."""

    id: str
    family: str
    length: int
    index: int
    metric: Metric
    chars: int
    """Characters of its context."""
    sha256: str


class Manifest(TypedDict):
    """What a benchmark consists of. Equal hashes: equal questions, contexts and answers."""

    seed: int
    python: str
    """The Python whose standard library the texts are from. Another one has other texts, and other hashes."""
    items: list[ItemRecord]
    sha256: str


def make_item(family: Family, length: int, index: int, seed: int) -> Item:
    """Return an item. Equal arguments make equal items, on equal versions of Python."""
    rng = random.Random(f"{seed}/{family.name}/{length}/{index}")  # noqa: S311 - to be repeated, not to be secret
    return Item(family.name, length, index, family.make(rng, length * BYTES_PER_TOKEN))


def item_record(item: Item) -> ItemRecord:
    """Return an item as it stands in a manifest."""
    return ItemRecord(
        id=item.id,
        family=item.family,
        length=item.length,
        index=item.index,
        metric=item.question.metric,
        chars=len(item.question.context),
        sha256=item.sha256,
    )


def manifest(records: Sequence[ItemRecord], seed: int) -> Manifest:
    """Return the manifest of these items."""
    return Manifest(
        seed=seed,
        python=platform.python_version(),
        items=list(records),
        sha256=_sha256([record["sha256"] for record in records]),
    )


def parse_length(text: str) -> int:
    """Return the tokens that `8k`, `1.5M` or `4000` name. Raises `ConfigurationError`."""
    found = _LENGTH.fullmatch(text.strip())
    tokens = int(float(found[1]) * _FACTORS[found[2].lower()]) if found else 0
    if tokens < 2_000:
        raise ConfigurationError(f"{text!r} is no length of a context: give at least 2k tokens, as in 8k or 1M")
    return tokens


def length_name(tokens: int) -> str:
    """Return a length as `parse_length` reads it."""
    for name, factor in (("M", 1_000_000), ("k", 1_000)):
        if tokens % factor == 0:
            return f"{tokens // factor}{name}"
    return str(tokens)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
