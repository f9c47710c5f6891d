"""Task families: questions whose answers are known, because the texts are generated with them."""

from __future__ import annotations

from rlm_langchain.bench.items import Family
from rlm_langchain.bench.tasks import chats, code, needles, transactions, words
from rlm_langchain.errors import UnknownPlugin

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *needles.FAMILIES,
        *words.FAMILIES,
        *code.FAMILIES,
        *transactions.FAMILIES,
        *chats.FAMILIES,
    )
}


def family(name: str) -> Family:
    """Return a task family by name. Raises an `UnknownPlugin` that lists all families."""
    if name not in FAMILIES:
        raise UnknownPlugin("families", name, FAMILIES)
    return FAMILIES[name]
