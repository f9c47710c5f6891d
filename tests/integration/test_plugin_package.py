"""A package that is not ours, installed by pip: its plug-ins are found by entry point, and used like our own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_langchain import Budget, ConfigurationError, InputError, MissingDependency, Price, create_rlm, plugins
from rlm_langchain.cli import run as command
from rlm_langchain.models.providers import PROVIDERS, Provider, provider
from rlm_langchain.models.registry import resolve, way_out
from rlm_langchain.sandboxes.choose import choose
from rlm_langchain.testing.hostile.suite import CORPUS
from rlm_langchain.testing.models import script
from tests.servers.scripted import serve

PACKAGE = Path(__file__).parents[1] / "plugin_package"
QUICK = ("import", "introspection", "filesystem", "env", "format", "protocol")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed, as pip does it."""
    target = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = ["--no-build-isolation", "--no-index", "--target", str(target), str(PACKAGE)]
    done = subprocess.run([*install, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package in this process, until the test ends."""
    monkeypatch.syspath_prepend(site)
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlm_example"]:
        del sys.modules[name]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "texts.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.md", "# One\n\nfirst\n\n## Two\n\nsecond")
        file.writestr("b/c.txt", "plain")
        file.writestr("image.png", b"\x89PNG\0\0")
    return path


def test_plug_ins_of_every_kind_are_found_by_entry_point(installed: Path) -> None:
    assert "example" in plugins.names("providers")
    assert "screened" in plugins.names("sandboxes")
    assert "headings" in plugins.names("strategies")
    assert "archives" in plugins.names("contexts")
    assert "word_senses" in plugins.names("calls")


def test_without_the_package_they_are_not_there() -> None:
    assert "screened" not in plugins.names("sandboxes")
    assert "archives" not in plugins.names("contexts")
    with pytest.raises(ConfigurationError, match="word_senses"):
        create_rlm(script("FINAL(1)"), functions=["word_senses"])


def test_a_model_is_named_by_the_prefix_of_a_plug_in(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda messages: "```repl\nFINAL(len(context))\n```") as server:
        monkeypatch.setenv("EXAMPLE_URL", server.url)
        monkeypatch.setenv("EXAMPLE_API_KEY", "sk-example")
        assert create_rlm("example:gpt-4o-mini").completion("How long?", "a text")["answer"] == 6
        assert server.requests[0].body["model"] == "gpt-4o-mini"
        assert server.requests[0].headers["authorization"] == "Bearer sk-example"
        model = resolve("example:vendor/gpt-4o-mini", "root")
        assert (model.name, model.chat.model_name) == ("example:vendor/gpt-4o-mini", "vendor/gpt-4o-mini")  # type: ignore[attr-defined]
        assert resolve("example:gpt-4o-mini", "root").listing == ("openai", "gpt-4o-mini")
        assert way_out(model, "connection") == "EXAMPLE_URL says where it is"
        assert way_out(model, "auth") == "the key is that of EXAMPLE_API_KEY"


def test_a_provider_of_a_plug_in_without_its_key_says_which(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_URL", "http://127.0.0.1:9/secret-path")
    monkeypatch.delenv("EXAMPLE_API_KEY", raising=False)
    with pytest.raises(MissingDependency, match="EXAMPLE_API_KEY is not set: example:m needs it"):
        resolve("example:m", "root")


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("example", "no provider", "of type str: its entry point must name"),
        ("example", Provider(lambda name: name, key=""), "returned a str, which is no chat model"),  # type: ignore[arg-type, return-value]
        ("example", Provider(lambda name: 1 / 0), "raised ZeroDivisionError"),  # type: ignore[arg-type, return-value]
    ],
    ids=["no provider", "no chat model", "an error"],
)
def test_a_faulty_provider_of_a_plug_in_is_a_sentence(
    installed: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, told: str
) -> None:
    monkeypatch.setattr(f"rlm_example.models.{attribute}", value)
    with pytest.raises(ConfigurationError, match=told):
        resolve("example:m", "root")


@pytest.mark.parametrize("name", ["openai", "ollama", "openrouter"])
def test_a_plug_in_cannot_take_over_a_provider_of_ours(
    installed: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    metadata = next(installed.glob("rlm_example-*.dist-info")) / "entry_points.txt"
    before = metadata.read_text()
    metadata.write_text(before.replace("example = ", f"{name} = "))
    plugins._installed.cache_clear()
    try:
        assert name in plugins.names("providers"), "it is there"
        assert provider(name) is PROVIDERS[name]
    finally:
        metadata.write_text(before)
        plugins._installed.cache_clear()


def test_all_four_work_together(installed: Path, archive: Path) -> None:
    code = "print(outline(context['a.md']))\nFINAL([list(context), llm_query('hi')])"
    rlm = create_rlm(script(code), sandbox="screened", strategies=["headings"])
    output = rlm.completion("What is in it?", archive)
    assert output["answer"] == [["a.md", "b/c.txt"], "<hi>"]
    shown = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert "(1, 'One', 0, 14), (2, 'Two', 14, 28)" in shown


def test_the_sandbox_refuses_what_is_not_on_its_list(installed: Path) -> None:
    rlm = create_rlm(script("import hashlib\nprint(1)", "FINAL('after')"), sandbox="screened")
    output = rlm.completion("q")
    shown = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert "hashlib cannot be imported here" in shown
    assert output["answer"] == "after"


@pytest.mark.parametrize("sandbox", ["cpython", "monty", "screened"])
def test_the_helpers_of_the_strategy_run_in_every_sandbox(installed: Path, sandbox: str) -> None:
    rlm = create_rlm(script("FINAL(len(outline(context)))"), sandbox=choose(sandbox), strategies=["headings"])
    assert rlm.completion("q", "# a\n## b\ntext\n#no heading\n### c")["answer"] == 3


@pytest.mark.parametrize("sandbox", ["cpython", "monty", "screened"])
def test_the_function_runs_in_the_host_for_every_sandbox(installed: Path, sandbox: str) -> None:
    code = """
said = [word_senses(word, 1) for word in ("log", "bank")]
try:
    word_senses("lug")
except LLMError as error:
    FINAL([said, str(error)])
"""
    rlm = create_rlm(
        script(code),
        sandbox=choose(sandbox),
        functions=["word_senses"],
        prices={"function": Price(input=0, output=0)},
        budget=Budget(usd=1.0, tool_calls=3),
    )
    output = rlm.completion("q")
    senses, error = output["answer"]
    assert senses == [["a piece of wood"], ["a house for money"]]
    assert error == "word_senses says: the dictionary has no word 'lug'"
    assert [record["kind"] for record in output["trajectory"] if record["type"] == "call"] == ["function"] * 3
    assert output["cost_usd"] == pytest.approx(0.003)
    assert "word_senses(word: str, most: int = 10)" in output["trajectory"][0]["text"]


def test_an_installed_function_is_in_no_repl_until_it_is_named(installed: Path) -> None:
    assert create_rlm(script("FINAL('word_senses' in dir())")).completion("q")["answer"] is False


def test_an_archive_of_another_kind_and_one_that_is_none(installed: Path, tmp_path: Path) -> None:
    packed = tmp_path / "texts.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        member = tarfile.TarInfo("a.txt")
        member.size = 5
        file.addfile(member, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    rlm = create_rlm(script("FINAL(context)"))
    assert rlm.completion("q", packed)["answer"] == {"a.txt": "hello"}
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4 and nothing else")
    with pytest.raises(InputError, match="cannot be read as an archive"):
        rlm.completion("q", broken)
    (tmp_path / "text.txt").write_text("ours")
    assert rlm.completion("q", tmp_path / "text.txt")["answer"] == "ours"


def test_the_command_knows_them(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "screened" in told
    assert "a cell with any other one does not run" in told
    assert command(["strategies"]) == 0
    assert "headings" in capsys.readouterr().out


def test_the_sandbox_keeps_the_contract(site: Path, tmp_path: Path) -> None:
    """The whole public suite, and those hostile programs that wait for no limit: the others are left to Monty."""
    chosen = [one for one in json.loads(CORPUS.read_text("utf-8")) if one["category"] in QUICK]
    corpus = tmp_path / "corpus.json"
    corpus.write_text(json.dumps(chosen))
    paths = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "RLM_HOSTILE_CORPUS": str(corpus)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    run += ["--rootdir", str(tmp_path), str(PACKAGE / "conformance.py")]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3_000:]
    assert f"{len(chosen)} passed" not in done.stdout, "the suite has more than the programs"
    assert "passed" in done.stdout.splitlines()[-1]
