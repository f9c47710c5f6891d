"""Models by name (`"vendor/name"`, `"openai:name"`, `"local"`, ...), or any LangChain chat model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models import pricing
from rlm_langchain.models.http.adopt_client import use_shared_http
from rlm_langchain.models.messages import needs_cache_control
from rlm_langchain.models.model import (
    Model,
    PriceListEntry,
    Profile,
    Role,
)
from rlm_langchain.models.provider_errors import ErrorCode
from rlm_langchain.models.wrapped import Unwrapped, WrappedChat, unwrap

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable, RunnableConfig

SMALL = 4.0
"""Up to this many billion parameters, as its name tells, a model is given the compact prompts."""

OF_LANGGRAPH = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "checkpoint_during"})
"""Keys of `configurable` that are no setting of a model, also of one that takes any."""

FORMS = """\
vendor/name       through OpenRouter, as openrouter:vendor/name
openai:name       OpenAI, or any compatible server with OPENAI_BASE_URL
ollama:name       Ollama, at OLLAMA_HOST
local             the small model that comes along
provider:name     a provider of a plug-in, or any other that `langchain` knows (anthropic:..., google_genai:...)"""


class Vendor(NamedTuple):
    """A vendor whose models have recognisable names."""

    names: str
    """Pattern of the beginnings of their names, in lower case."""
    provider: str
    openrouter: str
    variables: tuple[str, ...]
    """Environment variables of the provider: a key, or a server."""


VENDORS = (
    Vendor(r"gpt|chatgpt|o\d", "openai", "openai", ("OPENAI_API_KEY", "OPENAI_BASE_URL")),
    Vendor("claude", "anthropic", "anthropic", ("ANTHROPIC_API_KEY",)),
    Vendor("gemini", "google_genai", "google", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    Vendor("m[ia][sx]tral|codestral|magistral", "mistralai", "mistralai", ("MISTRAL_API_KEY",)),
    Vendor("deepseek", "deepseek", "deepseek", ("DEEPSEEK_API_KEY",)),
    Vendor("grok", "xai", "x-ai", ("XAI_API_KEY",)),
)


def resolve(spec: str | Runnable[Any, Any] | Model, role: Role) -> Model:
    """The model that a user means.

    Raises `MissingDependency` when it needs a key or a package that is not there, `ConfigurationError` for a
    name of no known form. Nothing is sent anywhere.
    """
    if isinstance(spec, Model):
        return spec
    if isinstance(spec, str):
        return _named(spec.strip(), role)
    return _given(spec)


def check_kind(spec: Any) -> Any:
    """What is given as a model, if it may be one. Raises `ConfigurationError`, as `resolve` would."""
    from langchain_core.runnables import Runnable

    if isinstance(spec, str):
        _parts(spec.strip())
    elif isinstance(spec, Runnable):
        unwrap(spec)
    elif not isinstance(spec, Model):
        raise ConfigurationError(
            f"a model is a name or a LangChain chat model, not {type(spec).__name__}. The names are:\n{FORMS}"
        )
    return spec


def _named(name: str, role: Role) -> Model:
    if name == "local":
        bundled: Model = import_module("rlm_langchain.models.local").model(role)
        return bundled
    return _provided(name, *_parts(name))


def _parts(name: str) -> tuple[str, str]:
    """The provider, and what the model is called there."""
    provider, colon, rest = name.partition(":")
    if "/" in provider:
        return "openrouter", name
    if name != "local" and not (colon and provider and rest):
        meant = _meant(name)
        hint = f": did you mean {meant}?" if meant else "."
        raise ConfigurationError(f"{name!r} is no model name that can be used{hint} The forms are:\n{FORMS}")
    return provider, rest


def _meant(name: str) -> str | None:
    """Return the model name that a name without a provider may stand for, by the keys and servers that are set."""
    if not name.strip(":/") or get_close_matches(name.lower(), ["local"], 1, 0.7):
        return "local" if name.strip(":/") else None
    name = name.strip(":/")
    is_set = {variable for variable, value in os.environ.items() if value.strip()}
    vendor = next((one for one in VENDORS if re.match(one.names, name.lower())), None)
    if vendor is not None and is_set.intersection(vendor.variables):
        return f"{vendor.provider}:{name}"
    if vendor is not None and "OPENROUTER_API_KEY" in is_set:
        return f"{vendor.openrouter}/{name}"
    if "OPENAI_BASE_URL" in is_set:
        return f"openai:{name}"
    if "OLLAMA_HOST" in is_set:
        return f"ollama:{name}"
    return f"{vendor.provider}:{name}" if vendor else None


def _provided(name: str, prefix: str, rest: str) -> Model:
    from rlm_langchain.models import providers

    known = providers.provider(prefix)
    if known is None:
        return _described(name, use_shared_http(providers.other(prefix, rest)), _profile(rest))
    chat = known.make(rest)
    if prefix not in providers.PROVIDERS:
        chat = use_shared_http(chat)
    if known.prices is None:
        model = _described(name, chat, _profile(rest))
    else:
        listing = PriceListEntry(known.prices, rest) if known.prices else None
        window = pricing.window(listing) if listing else None
        model = Model(name, chat, _profile(rest), window, None, listing, needs_cache_control(chat))
    marked = known.needs_cache_control
    return replace(
        model,
        price=known.price(rest),
        needs_cache_control=model.needs_cache_control if marked is None else marked(rest),
    )


def way_out(model: Model, code: ErrorCode) -> str:
    """What to look at when a call of this model went wrong, if anything can be said."""
    from rlm_langchain.models.providers import provider

    prefix, colon, _ = model.name.partition(":")
    if not colon and "/" not in prefix:
        return ""
    known = provider("openrouter" if "/" in prefix else prefix)
    return "" if known is None else known.way_out(code)


def _given(chat: Any) -> Model:
    from langchain_core.language_models import BaseChatModel

    check_kind(chat)
    if isinstance(chat, BaseChatModel):
        return _of_chat(chat)
    found = unwrap(chat)
    return replace(_of_chain(found), choose=_chooser(chat) if found.dynamic else None)


def _of_chat(chat: BaseChatModel) -> Model:
    name = _own_name(chat)
    return _described(name, use_shared_http(chat), _profile(name))


def _of_chain(found: Unwrapped) -> Model:
    """A model with its fallbacks. It reads what the one with the largest window reads."""
    first, *others = map(_of_wrapped, found.chats)
    windows = [model.window for model in (first, *others)]
    known = [window for window in windows if window is not None]
    window = max(known) if len(known) == len(windows) else None
    return replace(first, window=window, fallbacks=tuple(others), handled=found.handled)


def _of_wrapped(wrapped: WrappedChat) -> Model:
    """A chat model by what is bound to it: that may name another model of its provider."""
    chat, named = wrapped.chat, wrapped.bound.get("model") or wrapped.bound.get("model_name")
    own = "model_name" if "model_name" in type(chat).model_fields else "model"
    if isinstance(named, str) and own in type(chat).model_fields:
        chat = chat.model_copy(update={own: named, "profile": None})
    model = _of_chat(chat)
    return replace(model, wrapped=replace(wrapped, chat=model.chat))


def _chooser(given: Any) -> Callable[[RunnableConfig], Model]:
    """Return what finds the model that a config chooses. What a config says of fields is a model's name for it."""
    known: dict[str, Model] = {}

    def choose(config: RunnableConfig) -> Model:
        settings = config.get("configurable") or {}
        plain = {
            name: value
            for name, value in settings.items()
            if not name.startswith("__") and name not in OF_LANGGRAPH
        }
        key = repr(sorted(plain.items(), key=lambda item: item[0]))
        if key not in known:
            known[key] = _of_chain(unwrap(given, {"configurable": plain}))
        return known[key]

    return choose


def _described(name: str, chat: BaseChatModel, profile: Profile) -> Model:
    listing = _listing(chat)
    window = (chat.profile or {}).get("max_input_tokens") or (pricing.window(listing) if listing else None)
    return Model(name, chat, profile, window, None, listing, needs_cache_control(chat))


def _own_name(chat: BaseChatModel) -> str:
    own = getattr(chat, "model_name", None) or getattr(chat, "model", None)
    return own if isinstance(own, str) else type(chat).__name__


def _listing(chat: BaseChatModel) -> PriceListEntry | None:
    """Where its prices are listed: at the URL that it asks, or else by what tracing calls its provider."""
    url = str(getattr(getattr(chat, "root_async_client", None), "base_url", ""))
    provider = url or (chat._get_ls_params().get("ls_provider") if _is_published(chat) else None)
    return None if not provider or _is_near(url) else PriceListEntry(provider, _own_name(chat))


def _is_published(chat: BaseChatModel) -> bool:
    """Whether its class is from a provider's package; others have no provider but their own name."""
    packages = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    return any(package.startswith("langchain_") for package in packages - {"langchain_core"})


def _is_near(url: str) -> bool:
    """Whether a server is on this machine or in this network, where no price list applies."""
    host = urlsplit(url).hostname or ""
    near = r"localhost|127\..*|0\.0\.0\.0|::1|10\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|[^.]*|.*\.local"
    return bool(host) and re.fullmatch(near, host) is not None


def _profile(name: str) -> Profile:
    sizes = [float(size) for size in re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name.lower())]
    return "compact" if sizes and max(sizes) <= SMALL else "default"
