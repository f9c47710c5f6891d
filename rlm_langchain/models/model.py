"""A chat model with its properties: context window, price, prompt profile, fallbacks."""

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
    """Price of input read from the provider's prompt cache. None: the price of other input."""
    written: float | None = None
    """Price of input written to the prompt cache. None: the price of other input."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for an invalid price, with which a limit in dollars would have no effect."""
        check_numbers(self, map(NumberRule, ("input", "output", "cached", "written")))

    def of(self, usage: Usage, written: int = 0) -> float:
        """Return the dollars for this usage. `written` of its input tokens were written to the prompt cache."""
        cached = self.input if self.cached is None else self.cached
        storing = self.input if self.written is None else self.written
        plain = max(0, usage.input - usage.cached - written)
        total = plain * self.input + usage.cached * cached + written * storing + usage.output * self.output
        return total / MILLION


check_keywords(Price)


class PriceListEntry(NamedTuple):
    """The key of a model in the price lists."""

    provider: str
    """Name of the provider ("openai"), or the URL of its API."""
    model: str
    """The provider's name for the model."""


class PriceTier(NamedTuple):
    """The price of a request with more than `above` input tokens."""

    above: int
    price: Price


Role = Literal["root", "sub"]

Profile = Literal["default", "compact"]

FREE = Price(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Model:
    """A chat model with the properties that a run needs to know."""

    name: str
    """Name in records and messages, as the user gave it."""
    chat: BaseChatModel = field(repr=False)
    profile: Profile = "default"
    """The set of prompts for this model."""
    window: int | None = None
    """Tokens that the model can read at once. None: unknown."""
    price: Price | None = None
    """Price of the model, which replaces that of the price lists. None: as listed."""
    listing: PriceListEntry | None = None
    """Key of the model in the price lists. None: it is not listed."""
    needs_cache_control: bool = False
    """Whether the provider caches only prompts that are marked with `cache_control`."""
    wrapped: WrappedChat | None = field(default=None, repr=False)
    """Everything that LangChain wraps around each call: bound arguments, prompts, parsers. None: nothing."""
    fallbacks: tuple[Model, ...] = ()
    """Models that are called, in order, when this one fails."""
    handled: tuple[type[BaseException], ...] = (Exception,)
    """Errors after which the next fallback is called."""
    choose: Callable[[RunnableConfig], Model] | None = field(default=None, repr=False)
    """Returns the model for the config of a call. None: always this one."""

    @property
    def chain(self) -> tuple[Model, ...]:
        """Return the model and its fallbacks."""
        return (self, *self.fallbacks)

    @property
    def sees(self) -> bool | None:
        """Return whether the model accepts pictures, by its LangChain profile. None: unknown."""
        return (self.chat.profile or {}).get("image_inputs")

    def chosen(self, config: RunnableConfig | None) -> Model:
        """Return the model that answers a call with this config."""
        return self if self.choose is None else self.choose(config or {})
