"""The table of providers: what a prefix (`openai:name`) means, and a function for each that builds a chat model.

A plug-in adds a prefix by an entry point of the group `rlm_langchain.providers`, whose value is a `Provider`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from rlm_langchain import plugins
from rlm_langchain.errors import ConfigurationError, MissingDependency, RLMError
from rlm_langchain.models.model import FREE, Price
from rlm_langchain.models.provider_errors import ErrorCode

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

CONNECT_SECONDS = 10.0

REPLY_SECONDS = 600.0
"""Seconds without a byte after which a request times out. Models that reason for long send nothing meanwhile."""

OPENROUTER = "https://openrouter.ai/api/v1"

OLLAMA = "http://127.0.0.1:11434"

NO_KEY = "none"
"""The key for servers that need none, because the SDK requires one."""


def openrouter(name: str) -> BaseChatModel:
    """Build a model at OpenRouter from its `vendor/name`. OpenRouter reports the cost of each call."""
    hint = f"; with a key of OpenAI itself, write openai:{name[7:]}" if name.startswith("openai/") else ""
    key = _required_key(
        "OPENROUTER_API_KEY", f"OpenRouter's models need one, from https://openrouter.ai/keys{hint}"
    )
    return _compatible(
        name,
        os.environ.get("OPENROUTER_BASE_URL") or OPENROUTER,
        key,
        "OPENROUTER_BASE_URL",
        default_headers={
            "HTTP-Referer": "https://pypi.org/project/rlm-langchain/",
            "X-Title": "rlm-langchain",
        },
        extra_body={"usage": {"include": True}},
    )


def openai(name: str) -> BaseChatModel:
    """Build a model of OpenAI, or of the compatible server at `OPENAI_BASE_URL`, which may need no key."""
    url = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    if url and urlsplit(url).hostname != "api.openai.com":
        return _compatible(name, url, os.environ.get("OPENAI_API_KEY") or NO_KEY, "OPENAI_BASE_URL")
    key = _required_key("OPENAI_API_KEY", "OpenAI's models need one; for another server, set OPENAI_BASE_URL")
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=name, base_url=url, api_key=SecretStr(key), stream_usage=True, **_common_options())


def ollama(name: str) -> BaseChatModel:
    """Build a model of the Ollama server at `OLLAMA_HOST`."""
    return _compatible(name, _ollama_url(), os.environ.get("OLLAMA_API_KEY") or NO_KEY, "OLLAMA_HOST")


def other(provider: str, name: str) -> BaseChatModel:
    """Build a model of any other provider that `langchain` knows."""
    try:
        init_chat_model = import_module("langchain.chat_models").init_chat_model
    except ImportError as error:
        package = f"langchain-{provider.replace('_', '-')}"
        raise MissingDependency(
            f"{provider}:{name} needs `langchain` and its provider's package: pip install langchain {package}"
        ) from error
    try:
        chat: BaseChatModel = init_chat_model(name, model_provider=provider, max_retries=0)
    except ImportError as error:
        raise MissingDependency(f"{provider}:{name} needs a package: {error}") from error
    except Exception as error:  # noqa: BLE001 - its message could contain a key
        raise _build_error(provider, name, error) from None
    _check_keys(chat)
    return chat


def _compatible(name: str, url: str, key: str, variable: str, **more: Any) -> BaseChatModel:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigurationError(
            f"{variable}, the address of {name}'s server, begins with neither http:// nor https://: set it as in "
            f"{variable}=http://127.0.0.1:8000/v1"
        )
    from rlm_langchain.models.compatible_chat import CompatibleChat

    return CompatibleChat(
        model=name,
        base_url=url,
        api_key=SecretStr(key),
        stream_usage=True,
        use_responses_api=False,
        **more,
        **_common_options(),
    )


def _common_options() -> dict[str, Any]:
    import httpx2

    from rlm_langchain.models.http.transport import async_client, sync_client

    return {
        "max_retries": 0,
        "timeout": httpx2.Timeout(REPLY_SECONDS, connect=CONNECT_SECONDS),
        "stream_chunk_timeout": REPLY_SECONDS,
        "http_client": sync_client(),
        "http_async_client": async_client(),
        # For LangChain's own clients, which are not used. Without it, LangChain warns about ignored proxies.
        "http_socket_options": (),
    }


def _required_key(variable: str, why: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingDependency(f"{variable} is not set: {why}")
    return key


def _ollama_url() -> str:
    """Return the URL in `OLLAMA_HOST`, read as Ollama does: scheme and port may be missing."""
    host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/") or OLLAMA
    if "://" not in host:
        host = f"http://{host}"
    scheme, _, rest = host.partition("://")
    if not re.search(r":\d+$", rest):
        rest += ":443" if scheme == "https" else ":11434"
    # 0.0.0.0 makes a server listen on all addresses; clients connect to this one.
    return f"{scheme}://{rest.replace('0.0.0.0', '127.0.0.1')}/v1"  # noqa: S104


def _check_keys(chat: BaseChatModel) -> None:
    """Raise `MissingDependency` for a missing key. Some classes would only notice at their first request."""
    for field, variable in chat.lc_secrets.items():
        value = getattr(chat, field, None)
        secret = value.get_secret_value() if isinstance(value, SecretStr) else value
        if variable.endswith("_API_KEY") and not secret and not os.environ.get(variable):
            raise MissingDependency(f"{variable} is not set: {type(chat).__name__} needs it")


def _build_error(provider: str, name: str, error: Exception) -> ConfigurationError:
    """Return our error for a provider's class that cannot be built. Its own message could contain a key."""
    if variable := re.search(r"\b[A-Z][A-Z0-9]*_(?:API_)?(?:KEY|TOKEN)\b", str(error)):
        return MissingDependency(f"{variable[0]} is not set: {provider}:{name} needs it")
    return ConfigurationError(
        f"{provider}:{name} cannot be built ({type(error).__name__}); does langchain know {provider!r}?"
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider of chat models, identified by the prefix of their names."""

    make: Callable[[str], BaseChatModel]
    """Builds the chat model from the name after the prefix. It must send nothing, and must not retry."""
    key: str = ""
    """Environment variable with the key. Messages name it when the key is missing or refused."""
    prices: str | None = None
    """Name of the provider in the price lists of `genai-prices`. Empty: it is not listed. None: taken from the chat
    model."""
    price: Callable[[str], Price | None] = lambda name: None
    """Returns the price of a model, which replaces that of the lists. None: as listed."""
    needs_cache_control: Callable[[str], bool] | None = None
    """Returns whether a model caches only marked prompts. None: judged by the class of the chat model."""
    ways_out: Mapping[ErrorCode, str] | None = None
    """Advice for the user, by error."""

    def way_out(self, code: ErrorCode) -> str:
        """Return advice for the user about this error; empty if there is none."""
        of_key = f"the key is that of {self.key}" if code == "auth" and self.key else ""
        return (self.ways_out or {}).get(code, of_key)


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "openrouter": Provider(
            openrouter,
            key="OPENROUTER_API_KEY",
            prices="openrouter",
            price=lambda name: FREE if name.endswith(":free") else None,
            needs_cache_control=lambda name: name.startswith("anthropic/"),
            ways_out={"bad_request": "https://openrouter.ai/models lists what there is"},
        ),
        "openai": Provider(
            openai,
            key="OPENAI_API_KEY",
            ways_out={"connection": "OPENAI_BASE_URL says where it is"},
        ),
        "ollama": Provider(
            ollama,
            key="OLLAMA_API_KEY",
            prices="",
            price=lambda name: FREE,
            needs_cache_control=lambda name: False,
            ways_out={
                "connection": "`ollama serve` starts it, OLLAMA_HOST says where it is",
                "bad_request": "`ollama list` shows the models that it has",
            },
        ),
    }
)
"""The built-in providers by prefix. A plug-in adds a prefix, and cannot replace one of these."""


def provider(prefix: str) -> Provider | None:
    """Return the provider with this prefix, built-in or of a plug-in, or None."""
    if (ours := PROVIDERS.get(prefix)) is not None:
        return ours
    return _plugin_provider(prefix) if prefix in plugins.names("providers") else None


def _plugin_provider(prefix: str) -> Provider:
    found = plugins.load("providers", prefix)
    if not isinstance(found, Provider):
        raise ConfigurationError(
            f"the provider {prefix!r} of a plug-in is of type {type(found).__name__}: its entry point must name a "
            "rlm_langchain.models.providers.Provider"
        )

    def make(name: str) -> BaseChatModel:
        return _build_from_plugin(found, prefix, name)

    return replace(found, make=make)


def _build_from_plugin(found: Provider, prefix: str, name: str) -> BaseChatModel:
    """Return the chat model that a plug-in builds. Raises `ConfigurationError` if it fails or returns anything
    else."""
    from langchain_core.language_models import BaseChatModel

    try:
        chat = found.make(name)
    except RLMError:
        raise
    except Exception as error:  # noqa: BLE001 - its message could contain a key
        if found.key and not os.environ.get(found.key, "").strip():
            raise MissingDependency(f"{found.key} is not set: {prefix}:{name} needs it") from None
        raise ConfigurationError(
            f"{prefix}:{name} cannot be built: the provider's plug-in raised {type(error).__name__}"
        ) from None
    if not isinstance(chat, BaseChatModel):
        raise ConfigurationError(
            f"{prefix}:{name} cannot be used: the provider's plug-in returned a {type(chat).__name__}, which is no "
            "chat model"
        )
    return chat
