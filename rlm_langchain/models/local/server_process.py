"""The process that runs the local model: llama.cpp's own server on loopback, only for its parent.

It is a separate process because OpenMP reads `OMP_WAIT_POLICY` when it is loaded, which may have happened
already in the user's process. With the default policy, waiting threads spin, and on a busy machine a token
takes five times as long. It also keeps native memory, threads and crashes out of the user's process.

Its standard input is one line of JSON, `ServerSettings`, and then nothing. When it is closed, the parent has ended,
and so does this process. It listens only on loopback, and every request needs the parent's key.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ROOT_SLOT, SUB_SLOT = 0, 1
"""Slots of the server. Root and sub-call conversations have separate caches, so that neither evicts the other."""
READY = "ready"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The parent's settings for the server."""

    weights: str
    name: str
    port: int
    """Port, which the parent keeps reserved."""
    key: str
    window: int
    """Context window in tokens, for all conversations together."""
    threads: int
    opening: list[list[str]]
    """The messages with which root conversations start. They are processed in advance."""
    state_file: str
    """File that stores the model's state after these messages, for the next process."""

    def line(self) -> str:
        """Return the settings as one line, which `main` reads."""
        return json.dumps(asdict(self)) + "\n"


def main() -> None:
    """Serve until standard input is closed. Prints `ready` on standard output, or fails with a log on standard
    error."""
    # The terminal sends Ctrl-C to the whole process group, but the parent decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = ServerSettings(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _quiet_stdout() as say:
        server = _serve(settings)
        _prefill(server.listening_address, settings)
        say(READY)
        threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.read()
    # Native threads of the server would delay an orderly exit.
    os._exit(0)


@contextmanager
def _quiet_stdout() -> Iterator[Any]:
    """Redirect the output of native code to standard error, because the parent reads standard output."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield lambda line: print(line, file=out, flush=True)


def _serve(settings: ServerSettings) -> Any:
    """Start and return the server."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings.weights
    params.model_alias = [settings.name]
    params.hostnames, params.port, params.reuse_port = ["127.0.0.1"], settings.port, True
    params.api_keys = [settings.key]
    params.ui = params.endpoint_props = False
    params.use_jinja = True
    params.n_ctx, params.n_parallel, params.kv_unified = settings.window, 2, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    # Weights are used as they are in the file: a copy rearranged for this processor costs 600 MB for 10% of speed.
    params.no_extra_bufts = True
    # The two slots keep their conversations; caching earlier ones would take up to 8 GB.
    params.cache_ram_mib = 0
    params.slot_save_path = f"{Path(settings.state_file).parent}{os.sep}"
    params.verbosity = 1
    return xllamacpp.Server(params)


def _prefill(address: str, settings: ServerSettings) -> None:
    """Process the opening messages in advance, or load the model's state from the file if it exists."""
    file = Path(settings.state_file)
    slot = f"{address}/slots/{ROOT_SLOT}?action="
    if file.is_file() and "n_restored" in _post(f"{slot}restore", settings.key, {"filename": file.name}):
        return
    messages = [{"role": role, "content": text} for role, text in settings.opening]
    body = {"messages": messages, "max_tokens": 1, "temperature": 0, "id_slot": ROOT_SLOT}
    _post(f"{address}/v1/chat/completions", settings.key, body)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    _post(f"{slot}save", settings.key, {"filename": unfinished.name})
    if unfinished.is_file():
        unfinished.replace(file)


def _post(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a request, or nothing if it was refused: processing in advance is optional."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - our own server on loopback
    try:
        with build_opener(ProxyHandler({})).open(request) as response:
            reply: dict[str, Any] = json.load(response)
            return reply
    except OSError:
        return {}


if __name__ == "__main__":
    main()
