"""The process that holds the local model: llama.cpp's own server on loopback, for its parent alone.

A process of its own, because OpenMP reads `OMP_WAIT_POLICY` when it is loaded, which in the user's process may
have happened already: with its default, threads that wait for one another spin, and on a busy machine a token
takes five times as long. It also keeps native memory, threads and crashes out of the user's process.

Its standard input is one line of JSON, `Orders`, and then nothing: when it closes, the parent is gone, however it
went, and so is this process. Nothing but loopback is listened on, and every request needs the parent's key.
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
"""Conversations of the root and sub-calls each keep what they have read: neither pushes the other out."""
READY = "ready"


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent wants served."""

    weights: str
    name: str
    port: int
    """Held by the parent, so that nobody else gets it meanwhile."""
    key: str
    window: int
    """Tokens, of all conversations together."""
    threads: int
    opening: list[list[str]]
    """What root conversations begin with: read in advance."""
    memory: str
    """A file that keeps the model's state after the opening, for the next process."""

    def line(self) -> str:
        """One line, as `main` reads it."""
        return json.dumps(asdict(self)) + "\n"


def main() -> None:
    """Serve until standard input closes. Says `ready` on standard output, or fails with a log on standard error."""
    # The terminal sends Ctrl-C to the whole group; when to end is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = Orders(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _quiet_stdout() as say:
        server = _serve(orders)
        _read_in_advance(server.listening_address, orders)
        say(READY)
        threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.read()
    # Native threads of the server would hold an orderly exit up.
    os._exit(0)


@contextmanager
def _quiet_stdout() -> Iterator[Any]:
    """The parent reads standard output: what native code prints goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield lambda line: print(line, file=out, flush=True)


def _serve(orders: Orders) -> Any:
    """The running server."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = orders.weights
    params.model_alias = [orders.name]
    params.hostnames, params.port, params.reuse_port = ["127.0.0.1"], orders.port, True
    params.api_keys = [orders.key]
    params.ui = params.endpoint_props = False
    params.use_jinja = True
    params.n_ctx, params.n_parallel, params.kv_unified = orders.window, 2, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders.threads
    # Weights are used as they are in the file: a copy rearranged for this processor costs 600 MB for 10% of speed.
    params.no_extra_bufts = True
    # Two conversations keep themselves; copies of earlier ones would take up to 8 GB.
    params.cache_ram_mib = 0
    params.slot_save_path = f"{Path(orders.memory).parent}{os.sep}"
    params.verbosity = 1
    return xllamacpp.Server(params)


def _read_in_advance(address: str, orders: Orders) -> None:
    """Put the model where it is after reading the opening: from the file, or by reading, which makes the file."""
    file = Path(orders.memory)
    slot = f"{address}/slots/{ROOT_SLOT}?action="
    if file.is_file() and "n_restored" in _post(f"{slot}restore", orders.key, {"filename": file.name}):
        return
    messages = [{"role": role, "content": text} for role, text in orders.opening]
    body = {"messages": messages, "max_tokens": 1, "temperature": 0, "id_slot": ROOT_SLOT}
    _post(f"{address}/v1/chat/completions", orders.key, body)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    _post(f"{slot}save", orders.key, {"filename": unfinished.name})
    if unfinished.is_file():
        unfinished.replace(file)


def _post(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request; nothing when it was refused: what is read in advance is a gain, not a need."""
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
