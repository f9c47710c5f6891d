"""Prices of model calls: the user's own, or those of the public price lists shipped with `genai-prices`.

The cost of an unlisted model is None, never a guess. Nothing is downloaded.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlm_langchain.models.model import Price, PriceListEntry, PriceTier
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from rlm_langchain.models.model import Model

PRICE_SECONDS = 900
"""Seconds for which a looked-up price is reused: some providers charge less at night."""


def cost(model: Model, usage: Usage, written: int = 0) -> float | None:
    """Return the dollars that this usage of the model costs, or None when its price is unknown.

    `written` is the number of input tokens written to the provider's prompt cache.
    """
    if model.price is not None:
        return model.price.of(usage, written)
    tiers = _tiers(model.listing) if model.listing else ()
    prices = [tier.price for tier in tiers if usage.input > tier.above]
    return prices[-1].of(usage, written) if prices else None


def has_price(model: Model) -> bool:
    """Return whether the cost of a call can be computed before it is made."""
    return model.price is not None or bool(model.listing and _tiers(model.listing))


def embedding_price(listing: PriceListEntry) -> Price | None:
    """Return the price of an embedding model, or None if it is not listed."""
    from datetime import UTC, datetime

    entry = _entry(listing)
    listed = None if entry is None else entry.get_prices(datetime.now(UTC)).input_mtok
    return None if listed is None else Price(_price_above(listed, -1), 0.0)


def window(listing: PriceListEntry) -> int | None:
    """Return the context window in tokens, or None if it is not listed."""
    entry = _entry(listing)
    return entry.context_window if entry else None


def _tiers(listing: PriceListEntry) -> tuple[PriceTier, ...]:
    return _tiers_now(listing, int(time.time() // PRICE_SECONDS))


@lru_cache
def _tiers_now(listing: PriceListEntry, now: int) -> tuple[PriceTier, ...]:
    """Return the prices of a model by request size, smallest first; empty without a price for input or output."""
    from datetime import UTC, datetime

    entry = _entry(listing)
    if entry is None:
        return ()
    listed = entry.get_prices(datetime.fromtimestamp(now * PRICE_SECONDS, UTC))
    if listed.input_mtok is None or listed.output_mtok is None:
        return ()
    kinds = (listed.input_mtok, listed.output_mtok, listed.cache_read_mtok, listed.cache_write_mtok)
    starts = {tier.start for kind in kinds for tier in getattr(kind, "tiers", ())}
    # The lowest tier begins above -1, so that a request of no tokens has a price too.
    return tuple(
        PriceTier(above, Price(*(_price_above(kind, above) for kind in kinds))) for above in [-1, *sorted(starts)]
    )


def _price_above(kind: Any, above: int) -> Any:
    """Return one price of a list entry, for requests with more than `above` input tokens."""
    if kind is None:
        return None
    reached = [tier.price for tier in getattr(kind, "tiers", ()) if tier.start <= above]
    return float(reached[-1] if reached else getattr(kind, "base", kind))


@lru_cache
def _entry(listing: PriceListEntry) -> Any:
    """Return the entry of a model in `genai-prices`, or None."""
    from genai_prices.data_snapshot import get_snapshot

    by_url = "://" in listing.provider
    name, url = (None, listing.provider) if by_url else (listing.provider, None)
    try:
        return get_snapshot().find_provider_model(listing.model, None, name, url)[1]
    except LookupError:
        return None
