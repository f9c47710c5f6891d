"""Names, keys and chat models become `Model`s; nothing is sent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from rlm_langchain.errors import ConfigurationError, MissingDependency
from rlm_langchain.models.model import (
    FREE,
    Model,
    Price,
    PriceListEntry,
)
from rlm_langchain.models.provider_errors import ErrorCode
from rlm_langchain.models.registry import resolve, way_out
from rlm_langchain.testing.models import FunctionModel, script


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENROUTER_BASE_URL", "OPENAI_API_BASE", "OLLAMA_HOST", "OLLAMA_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def chat_of(name: str) -> Any:
    return resolve(name, "sub").chat


def test_a_model_stays_itself() -> None:
    model = Model("mine", FunctionModel(function=lambda _: "hi"), price=Price(1, 2))
    assert resolve(model, "root") is model


@pytest.mark.parametrize("name", ["openai/gpt-4o", "openrouter:openai/gpt-4o"])
def test_vendor_and_name_go_to_openrouter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "key")
    model = resolve(name, "root")
    chat: Any = model.chat
    assert (model.name, chat.model_name, chat.openai_api_base) == (
        name,
        "openai/gpt-4o",
        "https://openrouter.ai/api/v1",
    )
    assert (chat.stream_usage, chat.max_retries, chat.use_responses_api) == (True, 0, False)
    assert chat.extra_body == {"usage": {"include": True}}
    assert set(chat.default_headers) == {"HTTP-Referer", "X-Title"}
    assert (model.window, model.listing) == (128_000, PriceListEntry("openrouter", "openai/gpt-4o"))


def test_a_variant_after_a_colon_belongs_to_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "key")
    model = resolve("meta-llama/llama-3.2-3b-instruct:free", "sub")
    chat: Any = model.chat
    assert chat.model_name == "meta-llama/llama-3.2-3b-instruct:free"
    assert model.price == FREE
    assert model.profile == "compact"


def test_a_missing_key_is_named_before_anything_is_sent() -> None:
    with pytest.raises(MissingDependency, match=r"^OPENROUTER_API_KEY is not set.*openai:gpt-4o$"):
        resolve("openai/gpt-4o", "root")
    with pytest.raises(MissingDependency, match=r"^OPENAI_API_KEY is not set.*OPENAI_BASE_URL"):
        resolve("openai:gpt-4o", "root")


def test_a_key_of_blanks_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    with pytest.raises(MissingDependency, match="OPENAI_API_KEY"):
        resolve("openai:gpt-4o", "root")


def test_openai_itself_is_asked_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    model = resolve("openai:gpt-4o", "root")
    assert type(model.chat) is ChatOpenAI
    assert model.window == 128_000
    assert model.listing == PriceListEntry("https://api.openai.com/v1/", "gpt-4o")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert type(chat_of("openai:gpt-4o")) is ChatOpenAI


def test_a_compatible_server_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.0.0.7:8000/v1")
    model = resolve("openai:org/any-name", "sub")
    chat: Any = model.chat
    assert (chat.model_name, chat.openai_api_base) == ("org/any-name", "http://10.0.0.7:8000/v1")
    assert model.listing is None


@pytest.mark.parametrize("url", ["localhost:8000/v1", "user:secret@host", "/v1", "ftp://host/v1"])
def test_an_address_without_http_is_told_before_anything_is_asked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ConfigurationError, match="neither http:// nor https://") as raised:
        resolve("openai:m", "sub")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("ollama:m", "connection", "`ollama serve` starts it"),
        ("openai:m", "connection", "OPENAI_BASE_URL"),
        ("openrouter:a/m", "auth", "OPENROUTER_API_KEY"),
        ("a/m", "auth", "OPENROUTER_API_KEY"),
    ],
)
def test_a_model_that_is_named_has_a_way_out(name: str, code: ErrorCode, told: str) -> None:
    assert told in way_out(Model(name, script("")), code)
    assert way_out(Model("gpt-x", script("")), code) == "", "of a model that was given nothing is known"


def test_a_public_compatible_server_is_looked_up_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.deepseek.com/v1")
    model = resolve("openai:deepseek-chat", "sub")
    assert model.listing == PriceListEntry("https://api.deepseek.com/v1/", "deepseek-chat")
    assert model.window == 64_000


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("gpu-box:8080", "http://gpu-box:8080/v1"),
        ("http://gpu-box/", "http://gpu-box:11434/v1"),
        ("https://ollama.example.org", "https://ollama.example.org:443/v1"),
    ],
)
def test_ollama_is_found_as_it_finds_itself(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    model = resolve("ollama:qwen2.5-coder:1.5b", "sub")
    chat: Any = model.chat
    assert (chat.openai_api_base, chat.model_name) == (url, "qwen2.5-coder:1.5b")
    assert (model.price, model.profile) == (FREE, "compact")


@pytest.mark.parametrize(
    ("name", "variable", "meant"),
    [
        ("gpt-4o", "OPENAI_API_KEY", "openai:gpt-4o"),
        ("gpt-4o", "OPENROUTER_API_KEY", "openai/gpt-4o"),
        ("claude-sonnet-4", "OPENROUTER_API_KEY", "anthropic/claude-sonnet-4"),
        ("claude-sonnet-4", "ANTHROPIC_API_KEY", "anthropic:claude-sonnet-4"),
        ("my-model", "OPENAI_BASE_URL", "openai:my-model"),
        ("llama3", "OLLAMA_HOST", "ollama:llama3"),
        ("Locl", "OPENAI_API_KEY", "local"),
        ("my-model", "OPENAI_API_KEY", None),
    ],
)
def test_a_name_without_a_provider_is_told_the_one_that_can_be_used_here(
    name: str, variable: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1/v1")
    with pytest.raises(ConfigurationError) as raised:
        resolve(name, "root")
    assert (f"did you mean {meant}?" in str(raised.value)) == (meant is not None)


def test_a_slip_in_the_name_of_a_provider_is_told() -> None:
    with pytest.raises(ConfigurationError, match="did you mean openai:gpt-4o"):
        resolve("opnai:gpt-4o", "root")


@pytest.mark.parametrize("name", ["gpt-4o", "", ":x", "openai:", "  "])
def test_a_name_of_no_form_is_told_the_forms(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)vendor/name.*openai:name.*local") as caught:
        resolve(name, "root")
    assert repr(name.strip()) in str(caught.value)


def test_what_is_no_model_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="not int"):
        resolve(7, "root")  # type: ignore[arg-type]


def test_the_local_model_is_asked_for_by_role(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local:
        @staticmethod
        def model(role: str) -> Model:
            return Model(f"local {role}", FunctionModel(function=lambda _: ""), "compact", 8192, FREE)

    monkeypatch.setitem(sys.modules, "rlm_langchain.models.local", Local)  # type: ignore[arg-type]
    assert resolve("local", "root").name == "local root"
    assert resolve(" local ", "sub").name == "local sub"


def test_another_provider_needs_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependency, match="pip install langchain langchain-google-genai"):
        resolve("google_genai:gemini-2.5-pro", "root")


def langchain(monkeypatch: pytest.MonkeyPatch, init_chat_model: Callable[..., Any]) -> None:
    """Install a `langchain` that has this one function."""
    module = ModuleType("langchain.chat_models")
    vars(module)["init_chat_model"] = init_chat_model
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)
    monkeypatch.setitem(sys.modules, "langchain", ModuleType("langchain"))


class Keyed(FunctionModel):
    """Finds out by its first request that its key is missing, as some do."""

    acme_api_key: SecretStr = SecretStr("")
    acme_servers: Any = None

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"acme_api_key": "ACME_API_KEY", "acme_servers": "ACME_SERVERS"}


def test_another_provider_is_built_by_langchain_without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def init_chat_model(*names: str, **options: Any) -> Keyed:
        asked.append((names, options))
        return Keyed(function=lambda _: "", acme_api_key=SecretStr("key"))

    langchain(monkeypatch, init_chat_model)
    assert isinstance(resolve("acme:deep-1:latest", "root").chat, Keyed)
    assert asked == [(("deep-1:latest",), {"model_provider": "acme", "max_retries": 0})]


def test_another_providers_missing_key_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_API_KEY", raising=False)
    langchain(monkeypatch, lambda *_, **__: Keyed(function=lambda _: ""))
    with pytest.raises(MissingDependency, match=r"^ACME_API_KEY is not set: Keyed needs it$"):
        resolve("acme:deep-1", "root")
    monkeypatch.setenv("ACME_API_KEY", "key")
    assert resolve("acme:deep-1", "root").name == "acme:deep-1"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ImportError("Please install langchain-acme"), MissingDependency, "Please install langchain-acme"),
        (ValueError("Did not find it, set `ACME_API_KEY` (sk-1)"), MissingDependency, "^ACME_API_KEY is not set"),
        (ValueError("Unsupported provider (sk-1)"), ConfigurationError, "does langchain know 'acme'"),
    ],
)
def test_what_langchain_cannot_build_is_told_without_its_words(
    error: Exception, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init_chat_model(*_: str, **__: Any) -> Any:
        raise error

    langchain(monkeypatch, init_chat_model)
    with pytest.raises(kind, match=words) as caught:
        resolve("acme:deep-1", "root")
    assert "sk-1" not in str(caught.value)


def test_a_chat_model_is_described_by_itself() -> None:
    chat = ChatOpenAI(model="gpt-4o-mini", api_key="k")  # type: ignore[arg-type]
    model = resolve(chat, "sub")
    assert (model.name, model.chat.model_name, model.window) == ("gpt-4o-mini", "gpt-4o-mini", 128_000)  # type: ignore[attr-defined]
    assert model.listing == PriceListEntry("https://api.openai.com/v1/", "gpt-4o-mini")


def test_a_chat_model_at_a_server_nearby_has_no_listed_price() -> None:
    chat = ChatOpenAI(model="gpt-4o-mini", api_key="k", base_url="http://localhost:9/v1")  # type: ignore[arg-type]
    assert resolve(chat, "sub").listing is None


def test_a_chat_model_without_a_name_is_called_by_its_class() -> None:
    class Nameless(FunctionModel):
        model_name: Any = None

    model = resolve(Nameless(function=lambda _: AIMessage("x")), "sub")
    assert (model.name, model.window, model.profile) == ("Nameless", None, "default")


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("qwen/qwen-2.5-coder-1.5b-instruct", "compact"),
        ("google/gemma-3-4b-it", "compact"),
        ("qwen/qwen3-8b", "default"),
        ("qwen/qwen3-30b-a3b", "default"),
        ("openai/gpt-4o", "default"),
        ("mistralai/mixtral-8x7b-instruct", "default"),
    ],
)
def test_small_models_get_the_compact_prompts(name: str, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "key")
    assert resolve(name, "root").profile == profile


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-secret")
    model = resolve("openai/gpt-4o", "root")
    assert "sk-or-secret" not in repr(model) + repr(model.chat)


def test_no_sdk_is_imported_before_a_model_is_built() -> None:
    code = (
        "import sys, rlm_langchain.models.registry, rlm_langchain.models.call;"
        "print([m for m in ('openai', 'langchain_openai', 'genai_prices', 'tiktoken') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
