"""Everything that the documentation shows is run as it is written: README, docs and examples.

A model is played by a server on loopback, for all the names that the pages use. What it says is written above a
block, in a comment that a reader does not see:

    <!-- the model writes:
    FINAL(len(context))
    ---
    code of a child run
    a sub-call replies: yes
    the last words: so much is known
    the agent calls: a_tool {"query": "..."}
    -->

Blocks marked `python` and `bash` are run, in order, each page in a folder of its own; what a block prints is
compared with the block marked `text` that follows it. Blocks marked `sh` are not run: they install
something, or ask a model that is not there. The tutorials hide nothing: their models are scripted on the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlm_langchain.models import registry
from tests.servers.openai import Message, Reply, tool_call
from tests.servers.scripted import serve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DATA = Path("docs/tutorials/data")
"""What the tutorials work on. It ships with them."""
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md")),
    *(page for page in sorted(DOCS.rglob("*.md")) if ROOT / DATA not in page.parents),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(
    r"^(?:<!--(?P<script>[^`]*?)-->\n)?(?P<fence>`{3,})(?P<language>\w+)\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
SCRIPT = re.compile(
    r"\s*the model writes:\n(?P<cells>.*?)"
    r"(?:a sub-call replies: (?P<reply>[^\n]*)\n)?(?:the last words: (?P<last>[^\n]*)\n)?"
    r"(?:the agent calls: (?P<tool>\w+) (?P<args>[^\n]*)\n)?",
    re.DOTALL,
)
MODELS = dict.fromkeys(("openrouter.py", "quickstart.py"), "openai/gpt-4o")
"""What is given to an example as `--model`, where it is a model of OpenRouter."""
SHOWN = {
    "agent_tool.py": "Name: ask_book\n\n3 times\n",
    "chain.py": "{'errors': 3}\n",
    "code_conversation.py": "['store/files.py']\n{'store/files.py': 2}\n",
    "custom_sandbox.py": "runs: FINAL(context[:7])\nCHAPTER\n",
    "custom_strategy.py": "3 chapters\n",
    "extraction.py": "300 invoices, in total 3750.0 dollars; the first: name='Ada Lovelace' total=12.5\n",
    "hybrid_rag.py": "['store/files.py']\n",
    "openrouter.py": "the code asks 3 models\n  0: Ishmael meets the whale.\n",
    "quickstart.py": "['store/files.py']\ncomplete · turns: 1 · sub-calls: 0\n",
    "subgraph_approval.py": "May it make 3 calls? Yes.\n['Ishmael meets the whale.'",
}
"""Among what each prints."""
DEFAULT = "the model writes:\nFINAL('an answer')\n"
EXPECTED = re.compile(r"\s*(?P<fence>`{3,})text\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


@dataclass
class Player:
    """Plays all models."""

    cells: tuple[str, ...] = ()
    """What the first conversation of a root model says in each of its turns, the second one, ..."""
    reply: str = ""
    """To every sub-call."""
    last: str = ""
    """When a limit has been reached."""
    call: Reply | None = None
    """What the model of an agent asks for; then it repeats what it hears."""
    heard: list[str] = field(default_factory=list)
    """The questions of conversations so far."""

    def learn(self, script: str | None) -> None:
        """Take over what a comment says."""
        told = SCRIPT.fullmatch(script or DEFAULT)
        assert told, f"no script: {script}"
        self.cells, self.heard = tuple(told["cells"].split("---\n")), []
        self.reply, self.last = told["reply"] or "yes", told["last"] or ""
        calls = [tool_call(told["tool"], **json.loads(told["args"]))] if told["tool"] else []
        self.call = Reply("", extra={"tool_calls": calls}, finish="tool_calls") if calls else None

    def __call__(self, messages: list[Message]) -> str | Reply:
        if messages[0]["role"] != "system":
            said = str(messages[-1]["content"]) if messages[-1]["role"] == "tool" else self.call
            return said if self.call and said else self.reply
        if "has to end now" in str(messages[-1]["content"]):
            return self.last
        question = str(messages[1]["content"])
        if question not in self.heard:
            self.heard.append(question)
        return f"```repl\n{self.cells[min(self.heard.index(question), len(self.cells) - 1)]}```"


@dataclass(frozen=True)
class Block:
    """Something to run."""

    page: Path
    line: int
    language: str
    code: str
    script: str | None
    expected: str | None


def blocks(page: Path) -> list[Block]:
    """What a page shows, in order."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in BLOCK.finditer(text):
        line = text[: match.start("code")].count("\n")
        then = EXPECTED.match(text, match.end())
        expected = then["text"] if then else None
        found.append(Block(page, line, match["language"], match["code"], match["script"], expected))
    return found


def prepared(folder: Path) -> Path:
    """What the pages ask about."""
    (folder / "src" / "store").mkdir(parents=True)
    (folder / "src" / "store" / "files.py").write_text("class StoreError(Exception):\n    pass\n")
    (folder / "src" / "main.py").write_text("print('hello')\n")
    chapters = (f"CHAPTER {n}\n\nCall me Ishmael. The whale, again.\n" for n in (1, 2, 3))
    (folder / "book.txt").write_text("\n".join(chapters))
    lines = (
        f"12:{n:02} {'ERROR no space left on device' if n % 4 == 0 else 'INFO all is well'}\n" for n in range(1, 13)
    )
    (folder / "big.log").write_text("".join(lines))
    shutil.copytree(ROOT / DATA, folder / DATA)
    return folder


@pytest.fixture
def player(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Player]:
    """All models at one server, and the folder that the pages speak of."""
    playing = Player()
    monkeypatch.chdir(prepared(tmp_path))
    with serve(playing) as server:
        for name in ("OPENAI_BASE_URL", "OPENROUTER_BASE_URL"):
            monkeypatch.setenv(name, server.url)
        for name in ("OPENROUTER_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.setenv(name, "sk-...")
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        played = registry.resolve("openai:local", "root")
        monkeypatch.setattr("rlm_langchain.models.local.model", lambda _: played)
        yield playing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_shows(page: Path, player: Player) -> None:
    names = {"__name__": "__main__"}
    for block in blocks(page):
        player.learn(block.script)
        if block.language == "python":
            printed = in_python(block, names)
        elif block.language == "bash":
            printed = in_a_shell(block)
        else:
            continue
        if block.expected is not None:
            assert printed == block.expected, f"{page.name}:{block.line}"


def in_python(block: Block, names: dict[str, object]) -> str:
    """Run a block after those above it; what it printed."""
    printed = io.StringIO()
    code = compile("\n" * block.line + block.code, block.page.name, "exec", dont_inherit=True)
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def in_a_shell(block: Block) -> str:
    """Run a block's commands; what they gave to standard output."""
    shell = ["bash", "-euo", "pipefail", "-c", block.code]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{block.page.name}:{block.line}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_is_short(
    example: Path, player: Player, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = example.read_text()
    told = re.search(r"^# (the model writes:\n(?:#.*\n)+)", text, re.MULTILINE)
    player.learn(re.sub(r"^# ?", "", told[1], flags=re.MULTILINE) if told else None)
    monkeypatch.setattr(sys, "argv", [str(example), "--model", MODELS.get(example.name, "openai:gpt-4o")])
    runpy.run_path(str(example), run_name="__main__")
    assert SHOWN[example.name] in capsys.readouterr().out
    assert text.count("\n") <= 40


def test_every_page_that_is_linked_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
