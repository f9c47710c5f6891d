"""Finds models by name (`"vendor/name"`, `"openai:name"`, `"local"`, ...), and takes any LangChain chat model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any
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
from rlm_langchain.models.names import FORMS, split_name
from rlm_langchain.models.provider_errors import ErrorCode
from rlm_langchain.models.wrapped import Unwrapped, WrappedChat, unwrap

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable, RunnableConfig

SMALL_MODEL_BILLIONS = 4.0
"""Billions of parameters up to which a model gets the compact prompts, judged by its name."""

LANGGRAPH_KEYS = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "checkpoint_during"})
"""Keys of `configurable` that belong to LangGraph and are never passed to a model."""


def resolve(spec: str | Runnable[Any, Any] | Model, role: Role) -> Model:
    """Return the model for a name or a LangChain object. Sends nothing.

    Raises `MissingDependency` if a key or a package is missing, `ConfigurationError` for a name of unknown form.
    """
    if isinstance(spec, Model):
        return spec
    if isinstance(spec, str):
        return _model_by_name(spec.strip(), role)
    return _model_of_object(spec)


def check_kind(spec: Any) -> Any:
    """Return `spec` if `resolve` may accept it, without building anything. Raises `ConfigurationError`."""
    from langchain_core.runnables import Runnable

    if isinstance(spec, str):
        split_name(spec)
    elif isinstance(spec, Runnable):
        unwrap(spec)
    elif not isinstance(spec, Model):
        if isinstance(spec, type):
            raise ConfigurationError(
                f"{spec.__name__} is a class, and no chat model: give an instance of one, such as ChatOpenAI(...)"
            )
        raise ConfigurationError(
            f"a model is a name or a LangChain chat model, not {type(spec).__name__}. The names are:\n{FORMS}"
        )
    return spec


def _model_by_name(name: str, role: Role) -> Model:
    if name == "local":
        bundled: Model = import_module("rlm_langchain.models.local").model(role)
        return bundled
    return _model_of_provider(name, *split_name(name))


def _model_of_provider(name: str, prefix: str, rest: str) -> Model:
    from rlm_langchain.models import providers

    known = providers.provider(prefix)
    if known is None:
        return _build_model(name, use_shared_http(providers.other(prefix, rest)), profile_of(rest))
    chat = known.make(rest)
    if prefix not in providers.PROVIDERS:
        chat = use_shared_http(chat)
    if known.prices is None:
        model = _build_model(name, chat, profile_of(rest))
    else:
        listing = PriceListEntry(known.prices, rest) if known.prices else None
        window = pricing.window(listing) if listing else None
        model = Model(name, chat, profile_of(rest), window, None, listing, needs_cache_control(chat))
    marked = known.needs_cache_control
    return replace(
        model,
        price=known.price(rest),
        needs_cache_control=model.needs_cache_control if marked is None else marked(rest),
    )


def way_out(model: Model, code: ErrorCode) -> str:
    """Return advice for the user about an error of this model; empty if there is none."""
    from rlm_langchain.models.providers import provider

    prefix, colon, _ = model.name.partition(":")
    if not colon and "/" not in prefix:
        return ""
    known = provider("openrouter" if "/" in prefix else prefix)
    return "" if known is None else known.way_out(code)


def _model_of_object(chat: Any) -> Model:
    from langchain_core.language_models import BaseChatModel

    check_kind(chat)
    if isinstance(chat, BaseChatModel):
        return _model_of_chat(chat)
    found = unwrap(chat)
    return replace(_model_with_fallbacks(found), choose=_chooser(chat) if found.dynamic else None)


def _model_of_chat(chat: BaseChatModel) -> Model:
    name = _model_name(chat)
    return _build_model(name, use_shared_http(chat), profile_of(name))


def _model_with_fallbacks(found: Unwrapped) -> Model:
    """Return a model with its fallbacks. Its window is the largest of theirs, because one of them can answer."""
    first, *others = map(_model_of_wrapped, found.chats)
    windows = [model.window for model in (first, *others)]
    known = [window for window in windows if window is not None]
    window = max(known) if len(known) == len(windows) else None
    return replace(first, window=window, fallbacks=tuple(others), handled=found.handled)


def _model_of_wrapped(wrapped: WrappedChat) -> Model:
    """Return the model for a wrapped chat. A bound `model` argument names another model of the same provider."""
    chat, named = wrapped.chat, wrapped.bound.get("model") or wrapped.bound.get("model_name")
    own = "model_name" if "model_name" in type(chat).model_fields else "model"
    if isinstance(named, str) and own in type(chat).model_fields:
        chat = chat.model_copy(update={own: named, "profile": None})
    model = _model_of_chat(chat)
    return replace(model, wrapped=replace(wrapped, chat=model.chat))


def _chooser(given: Any) -> Callable[[RunnableConfig], Model]:
    """Return a function that finds the model for a config, and caches models by their settings."""
    known: dict[str, Model] = {}

    def choose(config: RunnableConfig) -> Model:
        settings = config.get("configurable") or {}
        plain = {
            name: value
            for name, value in settings.items()
            if not name.startswith("__") and name not in LANGGRAPH_KEYS
        }
        key = repr(sorted(plain.items(), key=lambda item: item[0]))
        if key not in known:
            known[key] = _model_with_fallbacks(unwrap(given, {"configurable": plain}))
        return known[key]

    return choose


def _build_model(name: str, chat: BaseChatModel, profile: Profile) -> Model:
    listing = _price_list_entry(chat)
    window = (chat.profile or {}).get("max_input_tokens") or (pricing.window(listing) if listing else None)
    return Model(name, chat, profile, window, None, listing, needs_cache_control(chat))


def _model_name(chat: BaseChatModel) -> str:
    own = getattr(chat, "model_name", None) or getattr(chat, "model", None)
    return own if isinstance(own, str) else type(chat).__name__


def _price_list_entry(chat: BaseChatModel) -> PriceListEntry | None:
    """Return the key of a chat model in the price lists: by the URL of its API, or else by LangSmith's provider
    name."""
    url = str(getattr(getattr(chat, "root_async_client", None), "base_url", ""))
    provider = url or (chat._get_ls_params().get("ls_provider") if _is_from_provider_package(chat) else None)
    return None if not provider or _is_local_address(url) else PriceListEntry(provider, _model_name(chat))


def _is_from_provider_package(chat: BaseChatModel) -> bool:
    """Return whether the class comes from a `langchain_...` package. The provider name of others means nothing."""
    packages = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    return any(package.startswith("langchain_") for package in packages - {"langchain_core"})


def _is_local_address(url: str) -> bool:
    """Return whether a server is on this machine or in a private network, where no price list applies."""
    host = urlsplit(url).hostname or ""
    near = r"localhost|127\..*|0\.0\.0\.0|::1|10\..*|192\.168\..*|172\.(1[6-9]|2\d|3[01])\..*|[^.]*|.*\.local"
    return bool(host) and re.fullmatch(near, host) is not None


def profile_of(name: str) -> Profile:
    """Return the set of prompts for the model of this name, by the size that the name states."""
    sizes = [float(size) for size in re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", name.lower())]
    return "compact" if sizes and max(sizes) <= SMALL_MODEL_BILLIONS else "default"
