"""The local model's weights from a hub on loopback, one that breaks off, is slow, or has something else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlm_langchain.errors import MissingDependency
from rlm_langchain.models.local import download, weights
from rlm_langchain.models.local.weights import find
from tests.small_weights import BYTES, small

PATH = "/maker/small/resolve/main/small.gguf"
Answer = Callable[["Exchange", int], None]


class Exchange(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        asked: Hub = self.server.hub  # type: ignore[attr-defined]
        begin = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        asked.ranges.append(self.headers.get("Range"))
        asked.answer(self, int(begin))

    def give(self, data: bytes, begin: int, *, status: int = 206, cut: int | None = None) -> None:
        """What is left of the data; with `cut`, only so many bytes of it, and then nothing."""
        rest = data[begin:]
        self.send_response(status if begin else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:cut])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@dataclass
class Hub:
    """Which ranges it was asked for, and what it does."""

    answer: Answer = lambda exchange, begin: exchange.give(BYTES, begin)
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that `HF_ENDPOINT` names; pip finds nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
    server.hub = Hub()  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("RLM_LOCAL_MODEL", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    yield server.hub  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_the_file_comes_from_the_hub_in_one_request(served: Hub) -> None:
    assert find(small()).read_bytes() == BYTES
    assert served.ranges == [None]


def test_a_download_that_breaks_off_goes_on_where_it_was(served: Hub) -> None:
    served.answer = lambda exchange, begin: exchange.give(BYTES, begin, cut=3_000)
    assert find(small()).read_bytes() == BYTES
    assert served.ranges == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]


def test_what_an_earlier_process_has_downloaded_is_not_asked_for_again(served: Hub) -> None:
    folder = weights.folder()
    folder.mkdir(parents=True)
    (folder / "small.gguf.partial").write_bytes(BYTES[:4_096])
    assert find(small()).read_bytes() == BYTES
    assert served.ranges == ["bytes=4096-"]


def test_a_server_that_ignores_ranges_begins_again(served: Hub) -> None:
    folder = weights.folder()
    folder.mkdir(parents=True)
    (folder / "small.gguf.partial").write_bytes(b"x" * 4_096)
    served.answer = lambda exchange, begin: exchange.give(BYTES, 0)
    assert find(small()).read_bytes() == BYTES


def test_a_file_of_another_size_is_not_downloaded(served: Hub) -> None:
    served.answer = lambda exchange, begin: exchange.give(BYTES + b"more", begin)
    with pytest.raises(MissingDependency, match="the hub has a file of 10,244 bytes, not 10,240"):
        find(small())


def test_a_file_of_the_same_size_with_other_bytes_is_thrown_away(served: Hub) -> None:
    served.answer = lambda exchange, begin: exchange.give(BYTES[::-1], begin)
    with pytest.raises(MissingDependency, match="the download has the wrong content"):
        find(small())
    assert [path.name for path in weights.folder().glob("small*")] == ["small.gguf.lock"]


def test_a_hub_that_refuses_is_asked_once(served: Hub) -> None:
    served.answer = lambda exchange, begin: exchange.send_error(403)
    with pytest.raises(MissingDependency, match="Hugging Face: it answers 403"):
        find(small())
    assert served.ranges == [None]


def test_a_hub_that_is_silent_is_given_up_soon(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SECONDS", 0.2)
    hanging = threading.Event()
    served.answer = lambda exchange, begin: hanging.wait() and None
    with pytest.raises(MissingDependency, match=r"Hugging Face: unreachable \(TimeoutError\)"):
        find(small())
    hanging.set()
    assert served.ranges == [None]


def test_a_hub_that_brings_nothing_more_is_given_up_and_what_came_is_kept(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.answer = lambda exchange, begin: exchange.give(BYTES, begin, cut=0 if begin else 1_000)
    with pytest.raises(MissingDependency, match="Hugging Face: it breaks off"):
        find(small())
    assert served.ranges == [None, *["bytes=1000-"] * download.MAX_EMPTY_REPLIES]
    assert (weights.folder() / "small.gguf.partial").read_bytes() == BYTES[:1_000]


@pytest.mark.parametrize("endpoint", ["file:///etc", "ftp://example.org"])
def test_only_http_is_spoken(endpoint: str, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(MissingDependency, match="which is not an http address"):
        find(small())


def test_two_processes_that_need_it_download_it_once(served: Hub, home: Path) -> None:
    program = (
        "from rlm_langchain.models.local.weights import find; "
        "from tests.small_weights import small; print(find(small()))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [out.strip() for out, _ in outputs] == [str(weights.folder() / "small.gguf")] * 2
    assert served.ranges == [None]
    assert sum("Getting the local model" in error for _, error in outputs) == 1
