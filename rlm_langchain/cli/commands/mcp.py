"""The command `mcp`: runs an MCP server until its client disconnects, or until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rlm_langchain.cli.commands import inputs
from rlm_langchain.cli.options import Setup
from rlm_langchain.errors import ConfigurationError


def serve(setup: Setup, roots: Sequence[Path], http: str | None) -> None:
    """Run the server. Raises `ConfigurationError` for options that a server cannot have."""
    from rlm_langchain.integrations.mcp_server import create_mcp_server, serve_http, serve_stdio

    for flag, given in (("calls", setup.approve_above_calls), ("usd", setup.approve_above_usd)):
        if given is not None:
            raise ConfigurationError(
                f"--approve-above-{flag}: a server has no person to ask; limit it with --{flag}"
            )
    _log_errors_only()
    host, port = address(http) if http else ("127.0.0.1", 0)
    if missing := [str(root) for root in roots if not root.is_dir()]:
        raise ConfigurationError(f"--root: there is no folder {', '.join(missing)}")
    server = create_mcp_server(inputs.build_from(inputs.with_models(setup)), roots=roots, host=host)
    work = serve_http(server, port, os.environ.get("RLM_MCP_TOKEN")) if http else serve_stdio(server)
    asyncio.run(work)


def _log_errors_only() -> None:
    """Log errors to standard error. The MCP library also logs closed connections as errors; those are left out."""
    plain = logging.StreamHandler()
    plain.setLevel(logging.ERROR)
    logging.basicConfig(handlers=[plain], format="rlm mcp: %(message)s")
    logging.getLogger("mcp").setLevel(logging.CRITICAL)


def address(given: str) -> tuple[str, int]:
    """Return the host and the port of `PORT` or `HOST:PORT`. Raises `ConfigurationError`."""
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(f"--http {given}: give PORT, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
