"""A chat model, and what must be known of it: its window, its price, its profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from rlm_langchain.types import Usage
from rlm_langchain.validation import NumberRule, check_keywords, check_numbers

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig

    from rlm_langchain.models.wrapped import WrappedChat

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens."""

    input: float
    output: float
    cached: float | None = None
    """For input that the provider had in its cache; None: as other input."""
    written: float | None = None
    """For input that is put into the cache; None: as other input."""

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for what is no price: it would make a limit in dollars one in words only."""
        check_numbers(self, map(NumberRule, ("input", "output", "cached", "written")))

    def of(self, usage: Usage, written: int = 0) -> float:
        """Dollars for this usage, of whose input `written` tokens went into the cache."""
        cached = self.input if self.cached is None else self.cached
        storing = self.input if self.written is None else self.written
        plain = max(0, usage.input - usage.cached - written)
        total = plain * self.input + usage.cached * cached + written * storing + usage.output * self.output
        return total / MILLION


check_keywords(Price)


class PriceListEntry(NamedTuple):
    """Where a model stands in the price lists."""

    provider: str
    """Its name ("openai"), or the URL that it is asked at."""
    model: str
    """As the provider calls it."""


class PriceTier(NamedTuple):
    """The price of a request with more than `above` input tokens."""

    above: int
    price: Price


Role = Literal["root", "sub"]

Profile = Literal["default", "compact"]

FREE = Price(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Model:
    """A chat model, and what must be known of it to use it well."""

    name: str
    """As it was asked for; in records and messages."""
    chat: BaseChatModel = field(repr=False)
    profile: Profile = "default"
    """Which prompts it is given."""
    window: int | None = None
    """Tokens that it can read at once, when that is known."""
    price: Price | None = None
    """What it costs, instead of what price lists say."""
    listing: PriceListEntry | None = None
    """Where to find it in price lists; None: in none of them."""
    needs_cache_control: bool = False
    """Whether its provider caches only what is marked in a prompt."""
    wrapped: WrappedChat | None = field(default=None, repr=False)
    """What is done around each of its calls: bound arguments, a prompt; None: nothing."""
    fallbacks: tuple[Model, ...] = ()
    """Models that are asked, in order, when it fails."""
    handled: tuple[type[BaseException], ...] = (Exception,)
    """Errors after which the next of them is asked."""
    choose: Callable[[RunnableConfig], Model] | None = field(default=None, repr=False)
    """Returns the model that the config of a call chooses; None: always this one."""

    @property
    def chain(self) -> tuple[Model, ...]:
        """The model and its fallbacks."""
        return (self, *self.fallbacks)

    def chosen(self, config: RunnableConfig | None) -> Model:
        """The model that answers a call with this config."""
        return self if self.choose is None else self.choose(config or {})
