"""One function for each provider that is known by name, and the chat model they build."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from rlm_langchain.errors import ConfigurationError, MissingDependency
from rlm_langchain.models.usage import is_readable, readable

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

CONNECT_SECONDS = 10.0

REPLY_SECONDS = 600.0
"""Of silence. Models that think long send nothing until they are done."""

OPENROUTER = "https://openrouter.ai/api/v1"

OLLAMA = "http://127.0.0.1:11434"

NO_KEY = "none"
"""What a server that wants no key is sent, since the SDK insists on one."""


def openrouter(name: str) -> BaseChatModel:
    """A model at OpenRouter, by its `vendor/name`. Reports what each call has cost."""
    hint = f"; with a key of OpenAI itself, write openai:{name[7:]}" if name.startswith("openai/") else ""
    key = _needed("OPENROUTER_API_KEY", f"OpenRouter's models need one, from https://openrouter.ai/keys{hint}")
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
    """A model of OpenAI, or of the compatible server at `OPENAI_BASE_URL`, which may want no key."""
    url = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    if url and urlsplit(url).hostname != "api.openai.com":
        return _compatible(name, url, os.environ.get("OPENAI_API_KEY") or NO_KEY, "OPENAI_BASE_URL")
    key = _needed("OPENAI_API_KEY", "OpenAI's models need one; for another server, set OPENAI_BASE_URL")
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=name, base_url=url, api_key=SecretStr(key), stream_usage=True, **_common())


def ollama(name: str) -> BaseChatModel:
    """A model that Ollama serves, at `OLLAMA_HOST`."""
    return _compatible(name, _ollama_url(), os.environ.get("OLLAMA_API_KEY") or NO_KEY, "OLLAMA_HOST")


def other(provider: str, name: str) -> BaseChatModel:
    """A model of any other provider that `langchain` knows."""
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
    except Exception as error:  # noqa: BLE001 - whose words could hold a key
        raise _refusal(provider, name, error) from None
    _check_keys(chat)
    return chat


def _compatible(name: str, url: str, key: str, variable: str, **more: Any) -> BaseChatModel:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigurationError(
            f"{variable}, the address of {name}'s server, begins with neither http:// nor https://: set it as in "
            f"{variable}=http://127.0.0.1:8000/v1"
        )
    from rlm_langchain.models.providers import CompatibleChat

    return CompatibleChat(
        model=name,
        base_url=url,
        api_key=SecretStr(key),
        stream_usage=True,
        use_responses_api=False,
        **more,
        **_common(),
    )


def _common() -> dict[str, Any]:
    import httpx2

    from rlm_langchain.models.http.transport import async_client, sync_client

    return {
        "max_retries": 0,
        "timeout": httpx2.Timeout(REPLY_SECONDS, connect=CONNECT_SECONDS),
        "stream_chunk_timeout": REPLY_SECONDS,
        "http_client": sync_client(),
        "http_async_client": async_client(),
        # For LangChain's own clients, which are not used; unset, it warns of proxies that they would not use.
        "http_socket_options": (),
    }


def _needed(variable: str, why: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingDependency(f"{variable} is not set: {why}")
    return key


def _ollama_url() -> str:
    """`OLLAMA_HOST` as Ollama itself reads it: the scheme and the port may be left out."""
    host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/") or OLLAMA
    if "://" not in host:
        host = f"http://{host}"
    scheme, _, rest = host.partition("://")
    if not re.search(r":\d+$", rest):
        rest += ":443" if scheme == "https" else ":11434"
    # A server told to listen on all addresses is reached at this one.
    return f"{scheme}://{rest.replace('0.0.0.0', '127.0.0.1')}/v1"  # noqa: S104


def _check_keys(chat: BaseChatModel) -> None:
    """Raise `MissingDependency` for a key that is not there: some classes find out by their first request."""
    for field, variable in chat.lc_secrets.items():
        value = getattr(chat, field, None)
        secret = value.get_secret_value() if isinstance(value, SecretStr) else value
        if variable.endswith("_API_KEY") and not secret and not os.environ.get(variable):
            raise MissingDependency(f"{variable} is not set: {type(chat).__name__} needs it")


def _refusal(provider: str, name: str, error: Exception) -> ConfigurationError:
    """Why a provider's class would not be built, without its own words: they could hold a key."""
    if variable := re.search(r"\b[A-Z][A-Z0-9]*_(?:API_)?(?:KEY|TOKEN)\b", str(error)):
        return MissingDependency(f"{variable[0]} is not set: {provider}:{name} needs it")
    return ConfigurationError(
        f"{provider}:{name} cannot be built ({type(error).__name__}); does langchain know {provider!r}?"
    )


class CompatibleChat(ChatOpenAI):
    """Caps output by the old name, which all of them know, and keeps the cost of a streamed reply."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Its settings, and of its URL the server only: the rest may hold a password."""
        for name, value in super().__repr_args__():
            yield name, urlsplit(value).hostname if name == "openai_api_base" and value else value

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        if messages := payload.get("messages"):
            # The SDK looks through every part of every message for what it would have to rename: a sixth of what a
            # call computes. What is in `extra_body` takes the place of what is named the same, just as it is.
            more = payload.get("extra_body") or {}
            payload["extra_body"] = {**self._extensions(messages), **more, "messages": messages}
            payload["messages"] = []
        return payload

    def _extensions(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """What else this server is told, that OpenAI's API has no name for."""
        return {}

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        """The reply, also when its usage cannot be read: what is told of that is looked at later."""
        usage = response.get("usage") if isinstance(response, dict) else getattr(response, "usage", None)
        whole = usage if isinstance(usage, dict | None) else _plain(usage)
        error = response.get("error") if isinstance(response, dict) else getattr(response, "error", None)
        if error and whole:
            raise BilledError(error, whole)
        if isinstance(response, dict):
            response = {**response, "usage": readable(whole)}
        else:
            response.usage = readable(whole)
        made: ChatResult = super()._create_chat_result(response, generation_info)
        if made.llm_output is not None:
            made.llm_output["token_usage"] = whole
        return made

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        usage = chunk.get("usage")
        readable_chunk = {**chunk, "usage": readable(usage)} if usage else chunk
        made = super()._convert_chunk_to_generation_chunk(readable_chunk, default_chunk_class, base_generation_info)
        if made is not None and isinstance(usage, dict) and ("cost" in usage or not is_readable(usage)):
            # ChatOpenAI keeps the token counts of a stream only. In a list, since LangChain adds up the numbers
            # of all chunks, and fails where it cannot.
            made.message.response_metadata["token_usages"] = [usage]
        return made


class BilledError(ValueError):
    """An error in the body of a reply that says besides what was used."""

    def __init__(self, error: Any, usage: Any) -> None:
        super().__init__(error)
        self.body = {"usage": usage}


def _plain(usage: Any) -> Any:
    """What the SDK has made of it, as it was sent."""
    return usage.to_dict(mode="python", warnings=False) if hasattr(usage, "to_dict") else usage
