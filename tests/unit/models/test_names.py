"""What a model is called: right names are taken, and nearly right ones are refused with the right one."""

from __future__ import annotations

import langchain.chat_models.base
import pytest

from rlm_langchain import ChatRLM, ConfigurationError, create_rlm
from rlm_langchain.models.names import BUILT_IN, split_name
from rlm_langchain.models.providers import PROVIDERS

RIGHT = {
    "openai:gpt-4o": ("openai", "gpt-4o"),
    " openai:gpt-4o ": ("openai", "gpt-4o"),
    "openai:ft:gpt-4o:acme::id": ("openai", "ft:gpt-4o:acme::id"),
    "openai:My Model": ("openai", "My Model"),
    "openai/gpt-4o": ("openrouter", "openai/gpt-4o"),
    "openrouter/auto": ("openrouter", "openrouter/auto"),
    "openrouter:openai/gpt-4o": ("openrouter", "openai/gpt-4o"),
    "meta-llama/llama-3:free": ("openrouter", "meta-llama/llama-3:free"),
    "Qwen/Qwen3-8B": ("openrouter", "Qwen/Qwen3-8B"),
    "ollama:qwen3:8b": ("ollama", "qwen3:8b"),
    "ollama:hf.co/x/y:Q4": ("ollama", "hf.co/x/y:Q4"),
    "fireworks:accounts/fireworks/models/x": ("fireworks", "accounts/fireworks/models/x"),
    "bedrock:anthropic.claude-v2:0": ("bedrock", "anthropic.claude-v2:0"),
    "a_new_one:x": ("a_new_one", "x"),
    "local": ("local", ""),
}
MEANT = {
    "openai:gpt-4o": [
        *("OpenAI:gpt-4o", "OPENAI:gpt-4o", "gpt-4o:openai", "gpt-4o:OpenAI", "opnai:gpt-4o", "open ai:gpt-4o"),
        *("openai: gpt-4o", "openai :gpt-4o", "openai:\ngpt-4o", "openai::gpt-4o", "openai:gpt-4o\u200b"),
        *('"openai:gpt-4o"', "\u201copenai:gpt-4o\u201d", "openai\uff1agpt-4o", "gpt:gpt-4o", "OpenAI: gpt-4o"),
        *(
            "openai-gpt-4o",
            "openai.gpt-4o",
            "openai=gpt-4o",
            "openai gpt-4o",
            "gpt-4o",
            "/gpt-4o",
            "openai:openai/gpt-4o",
        ),
    ],
    "openai/gpt-4o": ["OpenAI/gpt-4o", "openai / gpt-4o", "openrouter/openai/gpt-4o", "'openai/gpt-4o'"],
    "anthropic/claude-3": ["anthropic/claude 3", "Anthropic/claude-3"],
    "openrouter:openai/gpt-4o": ["OpenRouter:openai/gpt-4o", "openrouter:gpt-4o", "openrouter:OpenAI/gpt-4o"],
    "ollama:qwen3:8b": ["qwen3:8b", "Ollama:qwen3:8b", "ollama/qwen3:8b", "ollama: qwen3:8b"],
    "ollama:llama3:latest": ["llama3:latest"],
    "ollama:hf.co/x/y:Q4": ["hf.co/x/y:Q4"],
    "google_genai:gemini-2": [
        "google:gemini-2",
        "gemini:gemini-2",
        "google-genai:gemini-2",
        "google_genai/gemini-2",
    ],
    "anthropic:claude-3": ["claude:claude-3", "Anthropic:claude-3", "antropic:claude-3", "claude-3"],
    "azure_openai:gpt-4o": ["azure:gpt-4o"],
    "deepseek:deepseek-chat": ["deepseek-chat", "DeepSeek:deepseek-chat"],
    "local": ["Local", "locl", "local:", "local:x", "local/x", "'local'"],
}
NO_NAME = ["", " ", ":", ":x", "openai:", "openai: ", "/", "a/", "/x", "a//b", "a/:free", "a/b/c", "'", "::"]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENROUTER_BASE_URL", "OLLAMA_HOST", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_name_is_taken(name: str) -> None:
    assert split_name(name) == RIGHT[name]
    assert create_rlm(name).root_model == name


@pytest.mark.parametrize(("meant", "name"), [(meant, name) for meant, names in MEANT.items() for name in names])
def test_a_name_that_is_nearly_right_is_refused_with_the_right_one_before_a_run(meant: str, name: str) -> None:
    assert split_name(meant)
    with pytest.raises(ConfigurationError) as raised:
        create_rlm(name)
    assert f"{name.strip()!r} is not a valid model name: did you mean {meant}?" in str(raised.value)
    with pytest.raises(ConfigurationError, match="did you mean"):
        create_rlm("openai:gpt-4o", recursive_model=["openai:gpt-4o", name])
    with pytest.raises(ConfigurationError, match="did you mean"):
        ChatRLM(rlm=create_rlm(name))


@pytest.mark.parametrize("name", NO_NAME)
def test_what_stands_for_no_model_is_refused_with_the_forms(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)is not a valid model name.*The forms are"):
        create_rlm(name)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:8000/v1", "https://x.test/v1/gpt-4o", "openai:http://x.test/v1"]
)
def test_an_address_is_no_model_and_the_variable_for_it_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"set OPENAI_BASE_URL to it, .* openai:NAME"):
        create_rlm(name)


def test_servers_of_ones_own_may_call_their_models_what_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://127.0.0.1:9/v1")
    for name in ("openai:openai/gpt-oss", "openrouter:gpt-4o", "OpenAI/gpt-4o", "azure/eu/gpt-4o"):
        assert split_name(name)


def test_every_provider_of_langchain_is_left_to_it() -> None:
    assert tuple(PROVIDERS) == BUILT_IN
    for provider in langchain.chat_models.base._BUILTIN_PROVIDERS:
        assert split_name(f"{provider}:a/b") == (provider, "a/b")
