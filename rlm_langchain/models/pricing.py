"""What a call costs: by the user's price, or by the public price lists that come with `genai-prices`.

What no list knows has no price: its cost is None, never a guess. Nothing is fetched.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlm_langchain.models.model import Price, PriceListEntry, PriceTier
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from rlm_langchain.models.model import Model

FRESH = 900
"""Seconds that a looked-up price is good for: some providers charge less at night."""


def cost(model: Model, usage: Usage, written: int = 0) -> float | None:
    """Dollars for this usage of the model; None when its price is not known."""
    if model.price is not None:
        return model.price.of(usage, written)
    tiers = _tiers(model.listing) if model.listing else ()
    fitting = [tier.price for tier in tiers if usage.input > tier.above]
    return fitting[-1].of(usage, written) if fitting else None


def has_price(model: Model) -> bool:
    """Whether a call's cost can be told before it is made."""
    return model.price is not None or bool(model.listing and _tiers(model.listing))


def embedding_price(listing: PriceListEntry) -> Price | None:
    """What an embedding model costs, which reads and writes nothing; None when the lists do not tell it."""
    from datetime import UTC, datetime

    entry = _entry(listing)
    listed = None if entry is None else entry.get_prices(datetime.now(UTC)).input_mtok
    return None if listed is None else Price(_at(listed, -1), 0.0)


def window(listing: PriceListEntry) -> int | None:
    """The context window in tokens, when the lists tell it."""
    entry = _entry(listing)
    return entry.context_window if entry else None


def _tiers(listing: PriceListEntry) -> tuple[PriceTier, ...]:
    return _tiers_now(listing, int(time.time() // FRESH))


@lru_cache
def _tiers_now(listing: PriceListEntry, now: int) -> tuple[PriceTier, ...]:
    """The prices of a model, for small requests first; none when there is no price for input or output."""
    from datetime import UTC, datetime

    entry = _entry(listing)
    if entry is None:
        return ()
    listed = entry.get_prices(datetime.fromtimestamp(now * FRESH, UTC))
    if listed.input_mtok is None or listed.output_mtok is None:
        return ()
    kinds = (listed.input_mtok, listed.output_mtok, listed.cache_read_mtok, listed.cache_write_mtok)
    starts = {tier.start for kind in kinds for tier in getattr(kind, "tiers", ())}
    # -1: a request of no tokens has a price too.
    return tuple(PriceTier(above, Price(*(_at(kind, above) for kind in kinds))) for above in [-1, *sorted(starts)])


def _at(kind: Any, above: int) -> Any:
    """One number of a price list, for requests with more than `above` input tokens."""
    if kind is None:
        return None
    reached = [tier.price for tier in getattr(kind, "tiers", ()) if tier.start <= above]
    return float(reached[-1] if reached else getattr(kind, "base", kind))


@lru_cache
def _entry(listing: PriceListEntry) -> Any:
    """What `genai-prices` knows of a model."""
    from genai_prices.data_snapshot import get_snapshot

    by_url = "://" in listing.provider
    name, url = (None, listing.provider) if by_url else (listing.provider, None)
    try:
        return get_snapshot().find_provider_model(listing.model, None, name, url)[1]
    except LookupError:
        return None
