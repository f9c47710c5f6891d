"""Chooses the sandbox of a run. Fails closed: code never runs where it cannot be confined."""

from __future__ import annotations

from rlm_langchain.errors import ConfigurationError, SandboxError, UnknownPlugin
from rlm_langchain.plugins import load, names
from rlm_langchain.protocols import Sandbox

PREFERRED = ("cpython", "monty")
"""The order in which `auto` tries sandboxes: all of Python before a subset."""


def check(sandbox: object) -> None:
    """Raise `ConfigurationError` unless it is the name of an installed sandbox or a `Sandbox`."""
    if isinstance(sandbox, str):
        if sandbox != "auto" and sandbox not in (installed := names("sandboxes")):
            raise UnknownPlugin("sandboxes", sandbox, installed)
    elif isinstance(sandbox, type):
        raise ConfigurationError(f"sandbox={sandbox.__name__} is a class: give one of it, {sandbox.__name__}()")
    elif not callable(getattr(sandbox, "missing", None)) or not callable(getattr(sandbox, "open", None)):
        raise ConfigurationError(f"sandbox={sandbox!r} cannot be used: give a name, or a `Sandbox`")


def choose(sandbox: str | Sandbox) -> Sandbox:
    """Return the sandbox of this name, or for `auto` the first that works. Raises `ConfigurationError`,
    `SandboxError`."""
    check(sandbox)
    if not isinstance(sandbox, str):
        return _usable(sandbox)
    if sandbox != "auto":
        return _usable(load("sandboxes", sandbox)())
    reasons = []
    for name in (*PREFERRED, *sorted(set(names("sandboxes")) - {*PREFERRED})):
        candidate: Sandbox = load("sandboxes", name)()
        if (missing := candidate.missing()) is None:
            return candidate
        reasons.append(f"{name}: {missing}")
    raise SandboxError("no sandbox can run here. " + " ".join(reasons))


def _usable(sandbox: Sandbox) -> Sandbox:
    if missing := sandbox.missing():
        raise SandboxError(f"the sandbox {sandbox.name!r} cannot run here: {missing}")
    return sandbox
