"""What calls cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices.data_snapshot import get_snapshot

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models.model import (
    FREE,
    Model,
    Price,
    PriceListEntry,
)
from rlm_langchain.models.pricing import cost, has_price, window
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.types import Usage


def model(price: Price | None = None, listing: PriceListEntry | None = None) -> Model:
    return Model("m", FunctionModel(function=lambda _: ""), price=price, listing=listing)


def test_a_price_is_for_a_million_tokens() -> None:
    assert Price(2.0, 8.0).of(Usage(1, input=500_000, output=250_000)) == 3.0


def test_cached_and_written_input_have_prices_of_their_own() -> None:
    usage = Usage(1, input=1_000_000, cached=400_000, output=0)
    assert Price(2.0, 8.0, cached=0.2, written=2.5).of(usage, written=100_000) == pytest.approx(
        0.5 * 2.0 + 0.4 * 0.2 + 0.1 * 2.5
    )
    assert Price(2.0, 8.0).of(usage, written=100_000) == pytest.approx(2.0)


def test_the_users_price_comes_before_the_lists() -> None:
    mine = model(Price(1.0, 1.0), PriceListEntry("openai", "gpt-4o"))
    assert cost(mine, Usage(1, input=1_000_000)) == 1.0


def test_an_unknown_price_is_none_and_not_a_guess() -> None:
    for nowhere in (
        None,
        PriceListEntry("openai", "no-such-model"),
        PriceListEntry("https://unknown.example/v1", "gpt-4o"),
    ):
        assert cost(model(listing=nowhere), Usage(1, input=10)) is None
        assert not has_price(model(listing=nowhere))


def test_a_free_model_costs_nothing_and_that_is_known() -> None:
    assert cost(model(FREE), Usage(1, input=10, output=10)) == 0.0
    assert has_price(model(FREE))


def test_no_tokens_cost_nothing() -> None:
    assert cost(model(listing=PriceListEntry("openai", "gpt-4o")), Usage()) == 0.0


def test_the_window_is_what_the_list_says() -> None:
    assert window(PriceListEntry("openai", "gpt-4o")) == 128_000
    assert window(PriceListEntry("openai", "no-such-model")) is None


@pytest.mark.parametrize("size", [1_000, 200_000, 200_001, 300_000])
@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "openrouter", "deepseek", "x-ai"])
def test_costs_are_those_of_the_price_lists(provider: str, size: int) -> None:
    usage = Usage(1, input=size, cached=size // 4, output=500)
    listed = ListedUsage(input_tokens=size, cache_read_tokens=size // 4, cache_write_tokens=100, output_tokens=500)
    compared = 0
    for entry in next(p for p in get_snapshot().providers if p.id == provider).models:
        ours = cost(model(listing=PriceListEntry(provider, entry.id)), usage, written=100)
        if ours is not None:
            found = get_snapshot().find_provider_model(entry.id, None, provider, None)[1]
            theirs = found.get_prices(datetime.now(UTC)).calc_price(listed)["total_price"]
            assert ours == pytest.approx(float(theirs)), entry.id
            compared += 1
    assert compared > 3


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("of", ["input", "output", "cached", "written"])
def test_what_is_no_price_is_refused(of: str, bad: Any) -> None:
    prices: dict[str, Any] = {"input": 1.0, "output": 1.0, of: bad}
    with pytest.raises(ConfigurationError, match=rf"Price\({of}="):
        Price(**prices)
