"""A file of the user's that is a context, and changes: an error that names it, wherever it is read, and no wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, create_rlm
from rlm_langchain.answers.citations import Quote, find_quotes
from rlm_langchain.answers.substring_index import SubstringIndex
from rlm_langchain.context.mapped_text import open_mapped
from rlm_langchain.context.opening import open_context, read_context
from rlm_langchain.context.sources.subtext import read_excerpt
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import read_units
from rlm_langchain.errors import JournalError
from rlm_langchain.retrieval.index.subcontext import SliceFinder
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.types import (
    Completed,
    ContextFile,
    Excerpt,
    Limits,
)

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox

TEXT = "".join(f"line {n:07} of the text that was asked about\n" for n in range(25_000))
"""More than a million characters: a part of them goes to a child run by its place."""
OTHER = TEXT.replace("text", "TALE")

BOTH = ("cpython", "monty")


def overwritten(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(OTHER.encode())


def overwritten_at_the_end(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(len(TEXT) - 10)
        stream.write(b"ANOTHER ON")


def overwritten_and_set_back(file: Path) -> None:
    before = file.stat()
    overwritten(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def appended(file: Path) -> None:
    with file.open("a") as stream:
        stream.write("one more line\n")


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def cut_off(file: Path) -> None:
    os.truncate(file, len(TEXT) // 2)


def grown_without_end(file: Path) -> None:
    os.truncate(file, 1 << 40)


def removed(file: Path) -> None:
    file.unlink()


def renamed(file: Path) -> None:
    file.rename(file.with_suffix(".old"))


def replaced(file: Path) -> None:
    other = file.with_name("other.txt")
    other.write_text(OTHER)
    os.replace(other, file)


def a_link_to_another_text(file: Path) -> None:
    file.unlink()
    file.with_name("secret.txt").write_text(OTHER)
    file.symlink_to("secret.txt")


def a_link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def a_link_to_an_endless_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def a_named_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_socket(file: Path) -> None:
    file.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(file.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{file.name}")
        os.close(folder)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


CHANGES = [
    overwritten,
    overwritten_at_the_end,
    overwritten_and_set_back,
    appended,
    emptied,
    cut_off,
    grown_without_end,
    removed,
    renamed,
    replaced,
    a_link_to_another_text,
    a_link_to_itself,
    a_link_to_an_endless_device,
    a_named_pipe,
    a_socket,
    a_folder,
]


def touched(file: Path) -> None:
    os.utime(file, (1, 1))


def copied_over(file: Path) -> None:
    copy = file.with_name("copy.txt")
    copy.write_text(TEXT)
    os.replace(copy, file)


def linked_twice(file: Path) -> None:
    os.link(file, file.with_name("again.txt"))


def rewritten(file: Path) -> None:
    file.write_text(TEXT)


HARMLESS = [touched, copied_over, linked_twice, rewritten, lambda file: file.chmod(0o600)]
"""The text is the same: what a file is known by."""

change = pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
harmless = pytest.mark.parametrize("harmless", HARMLESS, ids=lambda one: one.__name__)


@pytest.fixture(autouse=True)
def _ends() -> Any:
    """A read that waits for ever would end the whole run, and not this test: the alarm says where it was."""
    import signal

    def late(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(tmp_path / "home")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "asked.txt"
    path.write_text(TEXT)
    return path


def in_session(sandbox: Any, limits: Limits) -> Callable[[ContextFile], str]:
    def value(file: ContextFile) -> str:
        session = sandbox.open(file, "", limits)
        try:
            step = session.run("print(context[:40])")
        finally:
            session.close()
        assert isinstance(step, Completed), step
        return step.stdout

    return value


def in_mapped(file: ContextFile) -> str:
    with open_mapped(file) as text:
        return text.slice(0, 40)


READERS: dict[str, Callable[[ContextFile], str]] = {
    "read": lambda file: read_context(file).decode()[:40],
    "excerpt": lambda file: read_excerpt(Excerpt(file, 0, 40)),
    "mapped": in_mapped,
    "search": lambda file: "".join(block for content in read_units(file) for block in content.text)[:40],
    "coverage": lambda file: bytes(SubstringIndex.of(file, ours=False).data[:40]).decode(),
    "slices": lambda file: TEXT[:40] if SliceFinder().find(file, file) else "",
    "cpython": in_session(CPythonSandbox(), Limits()),
    "cpython, lazily": in_session(CPythonSandbox(), Limits(loaded=1 << 10)),
    "monty": in_session(MontySandbox(), Limits()),
}


@change
def test_whoever_reads_a_file_that_changed_is_told_which(store, file, change):
    found = store.open(store.reference(file))
    excerpt = Excerpt(found, 0, len(TEXT))
    assert store.load(store.reference_from_repl(excerpt)) == TEXT
    assert {READERS[name](found).strip() for name in READERS} == {TEXT[:40].strip()}
    change(file)
    for value in READERS.values():
        with pytest.raises(JournalError, match=r"asked\.txt, which is the context of this run, .* restore it"):
            value(found)
    with pytest.raises(JournalError, match=r"asked\.txt"):
        store.reference_from_repl(excerpt)
    assert not list(store.root.rglob("unfinished-*"))


@harmless
def test_a_file_is_known_by_its_text(store, file, harmless):
    found = store.open(store.reference(file))
    harmless(file)
    assert {value(found).strip() for value in READERS.values()} == {TEXT[:40].strip()}
    assert store.load(store.reference_from_repl(Excerpt(found, 0, len(TEXT)))) == TEXT


@pytest.mark.parametrize("change", [overwritten_at_the_end, appended, cut_off, emptied])
def test_a_change_while_it_is_read_is_told_at_the_end(store, file, change):
    found = store.open(store.reference(file))

    def reading() -> None:
        with open_context(found) as stream:
            assert stream.read(1000).decode() == TEXT[:1000]
            change(file)

    with pytest.raises(JournalError, match=r"asked\.txt"):
        reading()


def test_what_goes_wrong_in_a_text_that_changed_is_told_as_the_change(store, file):
    found = store.open(store.reference(file))

    def reading(change: Callable[[Path], None]) -> None:
        with open_context(found):
            change(file)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        reading(touched)
    with pytest.raises(JournalError, match=r"asked\.txt"):
        reading(overwritten)


@pytest.mark.parametrize("change", [overwritten, overwritten_at_the_end, appended, cut_off, emptied])
@pytest.mark.parametrize(
    "code", ["print(context[-100:])", "print(len(context.splitlines()))", "print('x' in context)"]
)
def test_what_a_cell_makes_of_two_versions_of_a_text_is_not_given_out(store, file, change, code):
    session = CPythonSandbox().open(store.open(store.reference(file)), "", Limits(loaded=1 << 10))
    assert isinstance(session.run(code), Completed)
    change(file)
    with pytest.raises(JournalError, match=r"asked\.txt"):
        session.run(code)
    session.close()


def test_a_file_that_is_cut_off_does_not_end_the_host(store, file):
    """What is memory-mapped and cut off is a SIGBUS, which no program survives; the control maps it."""
    code = (
        "import mmap, os, sys; from contextlib import suppress; from pathlib import Path\n"
        "from rlm_langchain.context import ContextStore\n"
        "from rlm_langchain.context.mapped_text import open_mapped\n"
        "from rlm_langchain.errors import JournalError\n"
        "store, path = ContextStore(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "found = store.open(store.reference(path))\n"
        "with suppress(JournalError), open_mapped(found) as text:\n"
        "    data = mmap.mmap(os.open(path, os.O_RDONLY), 0, access=mmap.ACCESS_READ) if sys.argv[3:] else None\n"
        "    os.truncate(path, 0)\n"
        "    print(data[-1] if data else text.find(b'nowhere'))\n"
        "print('alive')"
    )
    run = [sys.executable, "-c", code, str(store.root), str(file)]
    assert subprocess.run(run, capture_output=True, check=False).stdout == b"alive\n"
    file.write_text(TEXT)
    assert subprocess.run([*run, "mapped"], capture_output=True, check=False).returncode == -7


def test_a_quote_is_found_in_a_long_file_across_the_windows_it_is_read_in(store, tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_langchain.context.mapped_text.WINDOW_BYTES", 1000)
    monkeypatch.setattr("rlm_langchain.context.mapped_text.OVERLAP_BYTES", 200)
    for at in range(960, 1010, 7):
        path = tmp_path / f"{at}.txt"
        path.write_text("é" * (at // 2) + "the  lease\nwas signed" + "ü" * 2000)
        refs = {"context": store.reference(path)}
        spaced, exact = find_quotes(store, refs, [Quote("the lease was signed", ""), Quote("lease\nwas", "")])
        assert [found and found["start"] for found in (spaced, exact)] == [at // 2, at // 2 + 5]


# --- In runs ------------------------------------------------------------------------------------------------

ASKED = "FINAL(rlm_query('CHILD', context[:1_100_000]))"


def changing(file: Path, change: Callable[[Path], None], *cells: str, at: str = "question") -> FunctionModel:
    """A model that plays cells, and changes the file when it is first asked the question, or by a leaf call."""
    play = script(*cells, children={"CHILD": ("FINAL(context[-100:])",)})
    changed: list[bool] = []

    def reply(messages: list[Any]) -> Any:
        is_leaf = messages[0].type != "system"
        if not changed and is_leaf == (at == "leaf"):
            changed.append(True)
            change(file)
        return play.function(messages)

    return FunctionModel(function=reply)


@pytest.mark.parametrize("limits", [Limits(), Limits(loaded=1 << 10)], ids=["loaded", "lazy"])
@pytest.mark.parametrize("change", [overwritten, cut_off, removed, a_named_pipe, a_link_to_another_text])
def test_a_run_whose_file_changed_before_its_child_was_asked_ends_with_the_name_of_the_file(
    file, tmp_path, change, limits
):
    budget = Budget(depth=2, seconds=60)
    model = changing(file, change, "llm_query('now')", ASKED, at="leaf")
    rlm = create_rlm(model, sandbox="cpython", budget=budget, limits=limits, home=tmp_path / "home")
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke({"query": "What is at the end?", "context": file})


@pytest.mark.parametrize("sandbox", BOTH)
@change
def test_a_run_whose_file_changed_while_its_first_turn_was_asked(file, tmp_path, change, sandbox):
    rlm = create_rlm(changing(file, change, "FINAL(context[:10])"), sandbox=sandbox, home=tmp_path / "home")
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke({"query": "How does it begin?", "context": file})


@pytest.mark.parametrize("sandbox", BOTH)
@harmless
def test_a_run_goes_on_when_the_text_is_the_same(file, tmp_path, harmless, sandbox):
    model = changing(file, harmless, "llm_query('now')", ASKED, at="leaf")
    rlm = create_rlm(model, sandbox=sandbox, budget=Budget(depth=2), home=tmp_path / "home", citations=False)
    assert rlm.invoke({"query": "q", "context": file})["answer"] == TEXT[:1_100_000][-100:]


@pytest.mark.parametrize("sandbox", BOTH)
@pytest.mark.parametrize("change", [overwritten, cut_off, removed, a_named_pipe, a_link_to_another_text])
def test_a_thread_whose_file_changed_is_not_asked_on_nor_forked(file, tmp_path, change, sandbox):
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    rlm = create_rlm(script("FINAL(context[:4])"), sandbox=sandbox, home=tmp_path / "home", checkpointer=saver)
    assert rlm.invoke({"query": "q", "context": file}, config)["answer"] == "line"
    assert rlm.invoke({"query": "and then?"}, config)["answer"] == "line"
    change(file)
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke({"query": "and now?"}, config)
    forked = rlm.fork(config, thread="f")
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke({"query": "and there?"}, forked)


@pytest.mark.parametrize("sandbox", BOTH)
@pytest.mark.parametrize("change", [overwritten, cut_off, removed, a_named_pipe, a_link_to_another_text])
def test_a_run_goes_on_when_its_file_was_put_back_and_pays_for_nothing_again(file, tmp_path, change, sandbox):
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        change(file)
        return "said"

    options: Any = {"sandbox": sandbox, "home": tmp_path / "home", "checkpointer": InMemorySaver()}
    rlm = create_rlm(script("FINAL(llm_query('now') + context[:4])", leaf=leaf), **options)
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke({"query": "q", "context": file}, config)
    with pytest.raises(JournalError, match=r"asked\.txt"):
        rlm.invoke(None, config)
    file.unlink(missing_ok=True)
    file.write_text(TEXT)
    assert rlm.invoke(None, config)["answer"] == "saidline"
    assert asked == ["now"]


@pytest.mark.parametrize("sandbox", BOTH)
@pytest.mark.parametrize("change", [overwritten, cut_off, removed, a_named_pipe, a_link_to_another_text])
def test_quotes_are_not_looked_up_in_another_text(file, tmp_path, change, sandbox):
    final = "FINAL({'answer': 'x', 'quotes': [{'quote': 'line 0000001 of', 'source': 'context'}]})"
    options: Any = {"sandbox": sandbox, "home": tmp_path / "home", "citations": True}
    output = create_rlm(script(final), **options).invoke({"query": "q", "context": file})
    assert output["citations"][0]["start"] == TEXT.index("line 0000001 of")
    model = changing(file, change, f"llm_query('now')\n{final}", at="leaf")
    with pytest.raises(JournalError, match=r"asked\.txt"):
        create_rlm(model, **options).invoke({"query": "q", "context": file})


@pytest.mark.parametrize("sandbox", BOTH)
@pytest.mark.parametrize("change", [overwritten, cut_off, removed, a_named_pipe, a_link_to_another_text])
def test_another_text_is_not_searched(file, tmp_path, change, sandbox):
    code = "llm_query('now')\nFINAL(str(len(search('line 0000001'))))"
    options: Any = {"sandbox": sandbox, "home": tmp_path / "home", "retriever": "bm25"}
    with pytest.raises(JournalError, match=r"asked\.txt"):
        create_rlm(changing(file, change, code, at="leaf"), **options).invoke({"query": "q", "context": file})
    file.unlink(missing_ok=True) if not file.is_dir() else file.rmdir()
    file.write_text(TEXT)
    output = create_rlm(script(code), **options).invoke({"query": "q", "context": file})
    assert int(output["answer"]) > 0
