"""Generated bank transactions as CSV: how many of a category there were, and who spent most."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

from rlm_langchain.bench.items import Family, Question
from rlm_langchain.bench.tasks.texts import GENERATED

HEADER = "date,id,account,merchant,category,cents"
CATEGORIES = ("groceries", "travel", "rent", "salary", "insurance", "restaurants", "fuel", "books")
MERCHANTS = ("Northwind", "Alder & Sons", "Blue Quay", "Corner Store", "Delta Freight", "Elm Books", "Fairway")
ACCOUNTS = 40
MONTHS = 12


class Transaction(NamedTuple):
    """A transaction."""

    month: int
    day: int
    number: int
    account: int
    merchant: str
    category: str
    cents: int

    def row(self) -> str:
        """Return the transaction as a CSV line."""
        return (
            f"2025-{self.month:02}-{self.day:02},T{self.number:07},A{self.account:03},{self.merchant},"
            f"{self.category},{self.cents}"
        )


def generate(rng: random.Random, chars: int) -> list[Transaction]:
    """Return transactions whose CSV has about this many characters."""
    found, size = list[Transaction](), len(HEADER)
    while True:
        row = Transaction(
            rng.randint(1, MONTHS),
            rng.randint(1, 28),
            len(found) + 1,
            rng.randint(1, ACCOUNTS),
            rng.choice(MERCHANTS),
            rng.choice(CATEGORIES),
            rng.randint(100, 250_000),
        )
        size += len(row.row()) + 1
        if size > chars:
            return found
        found.append(row)


def _as_text(rows: list[Transaction]) -> str:
    return "\n".join([HEADER, *(row.row() for row in rows)])


def count_of_kind(rng: random.Random, chars: int) -> Question:
    """Ask how many transactions of a category are above an amount."""
    rows = generate(rng, chars)
    category, above = rng.choice(CATEGORIES), 1_000 * rng.randint(50, 200)
    count = sum(row.category == category and row.cents > above for row in rows)
    text = (
        f"The text is a table of transactions as CSV. How many of them are of the category {category} and above "
        f"{above} cents? Give your final answer in the form 'Answer: number'."
    )
    return Question(text, _as_text(rows), (f"[{count}]",), "oolong_numeric")


def top_account(rng: random.Random, chars: int) -> Question:
    """Ask which account spent most in a category. The answer is unique."""
    rows = generate(rng, chars)
    for category in rng.sample(CATEGORIES, len(CATEGORIES)):
        spent = Counter[int]()
        for row in rows:
            spent[row.account] += row.cents if row.category == category else 0
        (first, most), (_, next_most) = spent.most_common(2)
        if most > next_most:
            break
    text = (
        f"The text is a table of transactions as CSV. Which account has the largest total of cents in the category "
        f"{category}? Give your final answer in the form 'Answer: account'."
    )
    return Question(text, _as_text(rows), (repr([f"A{first:03}"]),), "oolong_label")


FAMILIES = (
    Family("transactions_count", "how many transactions are of a kind", GENERATED, count_of_kind),
    Family("transactions_top", "which account spent most in a category", GENERATED, top_account),
)
