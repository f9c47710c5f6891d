"""The local server with a model of a few kilobytes: its life, its lock, and what it may say."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from rlm_langchain.errors import ModelError
from rlm_langchain.graph.nodes.parse_reply import read_reply
from rlm_langchain.models.local import server as local_server
from rlm_langchain.models.local.chat import LocalChat
from rlm_langchain.models.local.server import LocalServer
from rlm_langchain.prompts.render import few_shot_messages
from tests import tiny_gguf

pytest.importorskip("xllamacpp")
PROMPT = (("system", "Write code."),)
PATIENCE = 60


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model."""
    return tiny_gguf.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[LocalServer]:
    """A server of it, not yet begun."""
    made = LocalServer(tiny, "tiny", 8_192, PROMPT, tmp_path / "states" / "one.bin")
    yield made
    made.release()


def pid_of(server: LocalServer) -> int:
    assert server._child is not None
    return server._child.process.pid


def is_gone(pid: int) -> bool:
    """Whether a process ends soon, or has ended."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE)[0])
    finally:
        os.close(watched)


def get(server: LocalServer, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with urlopen(Request(f"{server.url}/models", headers=headers)) as response:
        return int(response.status)


def chat(server: LocalServer, **options: Any) -> LocalChat:
    return LocalChat.on(server, 0, max_retries=0, timeout=None, use_responses_api=False, **options)


def test_it_answers_nobody_without_its_key(server: LocalServer) -> None:
    server.ready().result(PATIENCE)
    assert get(server, server.key) == 200
    body = Request(f"{server.url}/chat/completions", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(HTTPError) as refused, urlopen(body):
        pass
    with refused.value as reply:
        assert reply.status == 401


def test_it_listens_on_loopback_alone(server: LocalServer) -> None:
    server.ready().result(PATIENCE)
    port = int(server.url.split(":")[2].split("/")[0])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [address for _, address, _, state, *_ in rows if state == "0A" and address.endswith(f":{port:04X}")]
    assert [address.split(":")[0] for address in listening] == ["0100007F"]


def test_it_waits_for_turns_without_spinning(server: LocalServer) -> None:
    server.ready().result(PATIENCE)
    environment = Path(f"/proc/{pid_of(server)}/environ").read_bytes().split(b"\0")
    assert b"OMP_WAIT_POLICY=PASSIVE" in environment


def test_a_wild_models_reply_is_held_to_one_block_that_ends(server: LocalServer) -> None:
    reply = chat(server, max_tokens=7_000).invoke([("system", "Code."), ("user", "How many?")])
    assert reply.response_metadata["finish_reason"] == "stop"
    (cell,) = read_reply(str(reply.content)).cells
    assert reply.content == f"```python\n{cell}```"
    assert cell.count("\n") <= 20


@pytest.mark.parametrize("shown", ["Output:\n7", "Output:\nNameError: no", "This is the last turn: no time."])
def test_later_turns_are_held_to_code_too(shown: str, server: LocalServer) -> None:
    turn = [("assistant", "```python\nprint(7)\n```"), ("user", shown)]
    told = [*few_shot_messages("compact"), ("user", "How many?"), *turn, *turn]
    reply = chat(server, max_tokens=7_000).invoke(told)
    assert reply.response_metadata["finish_reason"] == "stop"
    (cell,) = read_reply(str(reply.content)).cells
    assert reply.content == f"```python\n{cell}```"
    assert cell.splitlines()[-1].startswith("FINAL(") or "Error" in shown


def test_a_sub_call_is_not_held_to_code(server: LocalServer) -> None:
    reply = chat(server, max_tokens=20).invoke("Which city?")
    assert "```" not in str(reply.content)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 20


async def test_it_is_asked_from_an_event_loop_and_streamed_too(server: LocalServer) -> None:
    model = chat(server, max_tokens=10)
    whole = await model.ainvoke("Hello")
    streamed = [part.content async for part in model.astream("Hello")]
    assert "".join(map(str, streamed)) == whole.content
    assert "".join(str(part.content) for part in model.stream("Hello")) == whole.content


async def test_who_stops_waiting_does_not_stop_it_for_others(server: LocalServer) -> None:
    model = chat(server, max_tokens=10)
    hasty, patient = asyncio.create_task(model.ainvoke("Hello")), asyncio.create_task(model.ainvoke("Hello"))
    await asyncio.sleep(0)
    hasty.cancel()
    assert (await patient).content


def test_what_a_conversation_begins_with_is_read_once_for_all_processes(server: LocalServer) -> None:
    server.ready().result(PATIENCE)
    assert [path.name for path in server.state_file.parent.iterdir()] == ["one.bin"]
    server.close()
    reply = chat(server, max_tokens=5).invoke([("system", "Write code."), ("user", "How many?")])
    assert reply.response_metadata["token_usage"]["prompt_tokens_details"]["cached_tokens"] > 20


def test_a_memory_that_cannot_be_read_is_made_again(server: LocalServer) -> None:
    server.state_file.parent.mkdir()
    server.state_file.write_bytes(b"nonsense")
    server.ready().result(PATIENCE)
    assert server.state_file.stat().st_size > 1_000


def test_when_it_was_killed_the_next_request_begins_it_again(server: LocalServer) -> None:
    model = chat(server, max_tokens=5)
    model.invoke("Hello")
    first = pid_of(server)
    os.kill(first, signal.SIGKILL)
    assert is_gone(first)
    assert model.invoke("Hello").content
    assert pid_of(server) != first


def test_weights_that_cannot_be_loaded_are_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    broken = LocalServer(tmp_path / "broken.gguf", "broken", 1_024, PROMPT, tmp_path / "state.bin")
    with pytest.raises(ModelError, match=r"the local model does not start: .+"):
        broken.ready().result(PATIENCE)
    broken.release()


def test_closing_leaves_no_process_behind(server: LocalServer) -> None:
    server.ready().result(PATIENCE)
    pid = pid_of(server)
    server.close()
    server.close()
    assert is_gone(pid)


OWNER = """
import os, signal, sys, threading
from pathlib import Path
from rlm_langchain.models.local import server as process
server = process.shared_server(Path(sys.argv[1]), "tiny", 4096, (("system", "x"),), Path(sys.argv[2]))
if sys.argv[3] == "ready":
    server.ready().result()
else:
    server.ready()
if sys.argv[4] == "fork" and os.fork() == 0:
    os._exit(0 if server._child is None else 1)
print(server._child.process.pid, flush=True)
if sys.argv[4] == "wait":
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
"""


def owner(tiny: Path, memory: Path, *how: str) -> tuple[subprocess.Popen[str], int]:
    """A process with a server, and the server's process."""
    command = [sys.executable, "-c", OWNER, str(tiny), str(memory), *how]
    begun = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert begun.stdout is not None
    return begun, int(begun.stdout.readline())


@pytest.mark.parametrize("when", ["ready", "loading"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_owner_however_that_ends(
    end: signal.Signals, when: str, tiny: Path, tmp_path: Path
) -> None:
    begun, pid = owner(tiny, tmp_path / "state.bin", when, "wait")
    with begun:
        os.killpg(begun.pid, end)
    assert is_gone(pid)


@pytest.mark.parametrize("how", ["exit", "fork"])
def test_it_ends_when_its_owner_has_nothing_more_to_do(how: str, tiny: Path, tmp_path: Path) -> None:
    begun, pid = owner(tiny, tmp_path / "state.bin", "ready", how)
    with begun:
        assert begun.wait(PATIENCE) == 0
    assert is_gone(pid)


def test_a_process_has_one_server_for_both_roles(tiny: Path, tmp_path: Path) -> None:
    arguments = (tiny, "tiny", 4_096, PROMPT, tmp_path / "state.bin")
    one = local_server.shared_server(*arguments)
    assert local_server.shared_server(*arguments) is one
    one.release()


@pytest.mark.parametrize(("wanted", "threads"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_threads_can_be_chosen(wanted: str, threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_LOCAL_THREADS", wanted)
    assert local_server._thread_count() == (threads or min(8, len(os.sched_getaffinity(0))))
