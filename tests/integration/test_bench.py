"""`rlm bench` as its users start it, on inspect_ai, with models at a server on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers.openai import Message
from tests.servers.scripted import serve

BENCH = (sys.executable, "-m", "rlm_langchain", "bench")
CELL = """
parts = [llm_query(f"Note the number in part {n}: {context[n * 4000:(n + 1) * 4000]}") for n in range(2)]
FINAL(" ".join(parts))
"""
KILLED_AT = 5
"""Request at which the process is killed: the first sub-call of the second question."""


class Player:
    """Plays the model, counts its requests, and kills a process at one of them."""

    def __init__(self) -> None:
        self.asked = 0
        self.victim: subprocess.Popen[str] | None = None

    def __call__(self, messages: list[Message]) -> str:
        self.asked += 1
        if self.victim is not None and self.asked == KILLED_AT:
            self.victim.send_signal(signal.SIGKILL)
            self.victim.wait()
        if messages[0]["role"] == "system":
            return f"```repl\n{CELL}```"
        return " ".join(re.findall(r"\b\d{7}\b", str(messages[-1]["content"]))) or "none"


def test_ctrl_c_ends_with_its_exit_code_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [*BENCH, "run", "-m", "scripted", "--family", "niah_single", "--items", "60", "--arm", "direct"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        next(line for line in process.stderr if "answered" in line)
        process.send_signal(signal.SIGINT)
        assert "Run the same command to continue." in process.stderr.read()
        assert process.wait() == 130
        assert process.stdout.read() == ""


def test_a_killed_benchmark_goes_on_and_asks_for_no_received_reply_again(tmp_path: Path) -> None:
    player, out = Player(), tmp_path / "out"
    command = [*BENCH, "run", "-m", "openai:player", "--family", "niah_single", "--items", "2", "--price", "1:1"]
    command += ["--arm", "rlm_depth_1", "--usd", "10", "--usd-each", "1", "--out", str(out)]
    with serve(player) as server:
        environment = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-..."}
        player.victim = subprocess.Popen(command, env=environment, text=True, stderr=subprocess.DEVNULL)
        assert player.victim.wait() == -signal.SIGKILL
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    # Two questions with a turn and two sub-calls each. Only the request in flight was sent twice.
    assert player.asked == 2 * 3 + 1
    assert "rlm_depth_1  niah_single-2k-0" not in done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("| rlm_depth_1 |")]
    assert line.startswith("| rlm_depth_1 | 2k | 100.0% | 34% to 100% | 2 | 0 |")
