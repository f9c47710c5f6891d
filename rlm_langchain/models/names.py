"""Reads the names of models (`"vendor/name"`, `"openai:name"`, `"local"`), and finds what a wrong one may mean.

A name that is nearly right is refused before anything is built or sent: a provider would fail later, and with other
words. Only what no provider accepts is refused. Names of servers behind `OPENAI_BASE_URL` and the like are free.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from typing import NamedTuple

from rlm_langchain import plugins
from rlm_langchain.errors import ConfigurationError

FORMS = """\
vendor/name       through OpenRouter, as openrouter:vendor/name
openai:name       OpenAI, or any compatible server with OPENAI_BASE_URL
ollama:name       Ollama, at OLLAMA_HOST
local             the small model that comes along
provider:name     a provider of a plug-in, or any other that `langchain` knows (anthropic:..., google_genai:...)"""

BUILT_IN = ("openrouter", "openai", "ollama")
"""The prefixes of `PROVIDERS`, in `providers.py`."""
OF_LANGCHAIN = (
    "anthropic",
    "anthropic_bedrock",
    "azure_ai",
    "azure_openai",
    "baseten",
    "bedrock",
    "bedrock_converse",
    "bedrock_mantle_anthropic",
    "bedrock_mantle_openai",
    "cohere",
    "deepseek",
    "fireworks",
    "google_anthropic_vertex",
    "google_genai",
    "google_vertexai",
    "groq",
    "huggingface",
    "ibm",
    "litellm",
    "mistralai",
    "nvidia",
    "perplexity",
    "together",
    "upstage",
    "xai",
)
"""Providers that `langchain` knows. It may know others by now: an unknown prefix is left to it, unless it looks
like one of these."""
_OTHER_NAMES = {
    "aws": "bedrock",
    "azure": "azure_openai",
    "vertex": "google_vertexai",
    "vertexai": "google_vertexai",
}
"""What people call providers, besides the names of vendors at OpenRouter."""
_NOT_AT_OPENROUTER = ("ollama", "bedrock", "groq", "local")
"""Providers that are no vendors of OpenRouter. A name with an underscore is none, either."""
_SIZE_OR_TAG = re.compile(r"latest|(instruct|chat|text|vision|q\d)\b.*|(\d+x|e)?\d+(\.\d+)?[bm]\b.*", re.I)
"""What follows the colon in a name of Ollama's."""
_UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff]")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


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


def split_name(name: str) -> tuple[str, str]:
    """Split a name into the prefix of the provider and the provider's name for the model.

    "local" is a prefix without a name. Raises `ConfigurationError` for a name that no provider accepts, with what
    it may stand for.
    """
    name = name.strip()
    if name == "local":
        return name, ""
    meant = _meant(name)
    if meant is not None:
        hint = f": did you mean {meant}?" if meant else _url_hint(name)
        raise ConfigurationError(f"{name!r} is not a valid model name{hint} The forms are:\n{FORMS}")
    prefix, _, rest = name.partition(":")
    return ("openrouter", name) if "/" in prefix else (prefix, rest)


def _close_provider(prefix: str) -> str | None:
    """Return the known provider that a prefix may stand for, or None."""
    lower = re.sub(r"\W+", "_", prefix.lower())
    aliases = _OTHER_NAMES | {one.openrouter: one.provider for one in VENDORS}
    if lower in _providers() or lower in aliases:
        return lower if lower in _providers() else aliases[lower]
    near = get_close_matches(lower, [*_providers()], 1, 0.75)
    vendor = _vendor_of(lower)
    return near[0] if near else vendor.provider if vendor else None


def _providers() -> frozenset[str]:
    return frozenset((*BUILT_IN, *OF_LANGCHAIN, *plugins.names("providers")))


def _url_hint(name: str) -> str:
    if "://" in name:
        return ": for a server at an address, set OPENAI_BASE_URL to it, and name its model, as in openai:NAME."
    if name.endswith(":") and name[:-1] in _providers():
        return f": the name of the model is missing, as in {name}NAME."
    return "."


def _meant(name: str) -> str | None:
    """Return the valid name that an invalid one may stand for, or "" if there is none; None for a valid name."""
    if "://" in name:
        return ""
    shown = _tidied(name)
    better = _corrected(shown)
    if better is not None:
        return better if not better or _corrected(better) is None else ""
    return None if shown == name else shown


def _tidied(name: str) -> str:
    """Return a name without quotes, and without blanks and colons that are part of no name.

    Blanks within a name are left: servers have models with such names.
    """
    name = _UNSEEN.sub("", name).strip(_QUOTES)
    name = re.sub(r"^([^:/]*?)\s*(?:\uff1a|:+)\s*(?=\S)", r"\1:", name)
    prefix, colon, rest = name.partition(":")
    if "/" not in prefix:
        return re.sub(r"\s+", "-", prefix) + colon + re.sub(r"[^\S ]+", "-", rest)
    return re.sub(r"\s+", "-", re.sub(r"\s*([/:])\s*", r"\1", name))


def _corrected(name: str) -> str | None:
    """Return the valid name for a name without stray blanks, "" if there is none; None if it is valid."""
    prefix, colon, rest = name.partition(":")
    if "/" in prefix:
        return _corrected_vendor(name)
    if not colon or not rest or not prefix:
        return None if name == "local" else _without_provider(name)
    if prefix == "openrouter":
        better = None if os.environ.get("OPENROUTER_BASE_URL") else _corrected_vendor(rest)
        return f"openrouter:{better}" if better and "/" in better else better
    if prefix == "openai" and rest.startswith("openai/") and not _has_own_server():
        return f"openai:{rest.removeprefix('openai/')}"
    if prefix in _providers():
        return None
    return _corrected_provider(prefix, rest)


def _corrected_provider(prefix: str, rest: str) -> str | None:
    """Return the valid name for one whose provider is unknown. None: `langchain` may know it."""
    if prefix.lower() == "local":
        return "local"
    if rest.lower() in _providers():
        return f"{rest.lower()}:{prefix}"
    if prefix.lower() in _providers():
        return f"{prefix.lower()}:{rest}"
    if _SIZE_OR_TAG.fullmatch(rest):
        return f"ollama:{prefix}:{rest}"
    near = _close_provider(prefix)
    return f"{near}:{rest}" if near else None


def _corrected_vendor(name: str) -> str | None:
    """Return the valid name for one of OpenRouter's, `vendor/name`; None if it is valid. A server behind
    `OPENROUTER_BASE_URL` may have other names."""
    vendor, *rest = name.split("/")
    if not vendor or not all(part.partition(":")[0] for part in rest):
        return _without_provider(name.strip("/"))
    if os.environ.get("OPENROUTER_BASE_URL"):
        return None
    if not rest:
        found = _vendor_of(vendor.lower())
        return f"{found.openrouter}/{vendor}" if found else ""
    return _corrected_slug(name, vendor, rest)


def _corrected_slug(name: str, vendor: str, rest: list[str]) -> str | None:
    lower = vendor.lower()
    if lower == "hf.co":
        return f"ollama:{name}"
    if lower in _NOT_AT_OPENROUTER or ("_" in lower and lower in _providers()):
        return "local" if lower == "local" else f"{lower}:{'/'.join(rest)}"
    if len(rest) > 1:
        return "/".join(rest) if lower == "openrouter" and len(rest) == 2 else ""
    known = {one.openrouter for one in VENDORS} | set(OF_LANGCHAIN)
    return f"{lower}/{rest[0]}" if vendor != lower and lower in known else None


def _without_provider(name: str) -> str:
    """Return the name that one without a provider may stand for, by the keys and servers that are set."""
    name = name.strip(":/")
    if not name or name in _providers():
        return ""
    if get_close_matches(name.lower(), ["local"], 1, 0.7):
        return "local"
    vendor = _vendor_of(name.lower())
    for provider in sorted(_providers(), key=len, reverse=True) if vendor is None else ():
        if joined := re.fullmatch(rf"{provider}[^\w/:]+(\w.*)", name, re.I):
            return f"{provider}:{joined[1]}"
    return _by_environment(name, vendor)


def _by_environment(name: str, vendor: Vendor | None) -> str:
    is_set = {variable for variable, value in os.environ.items() if value.strip()}
    if vendor is not None and is_set.intersection(vendor.variables):
        return f"{vendor.provider}:{name}"
    if vendor is not None and "OPENROUTER_API_KEY" in is_set:
        return f"{vendor.openrouter}/{name}"
    if "OPENAI_BASE_URL" in is_set:
        return f"openai:{name}"
    if "OLLAMA_HOST" in is_set:
        return f"ollama:{name}"
    return f"{vendor.provider}:{name}" if vendor else ""


def _has_own_server() -> bool:
    return any(os.environ.get(variable) for variable in ("OPENAI_BASE_URL", "OPENAI_API_BASE"))


def _vendor_of(name: str) -> Vendor | None:
    return next((one for one in VENDORS if re.match(one.names, name)), None)
