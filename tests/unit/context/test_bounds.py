"""What may not end, may wait for ever, or lead astray: refused or read within bounds, before anything is paid."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, create_rlm
from rlm_langchain.cli.commands import inputs
from rlm_langchain.context.sources.folders import FolderWalk
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.testing.models import FunctionModel, script

if sys.platform != "linux":
    pytest.skip("devices, pipes and names of bytes are those of Linux", allow_module_level=True)

BOTH = ("cpython", "monty")


@pytest.fixture
def store(tmp_path: Path) -> ContextStore:
    return ContextStore(tmp_path / "home")


def never(messages: list[Any]) -> str:
    raise AssertionError("a model was asked")


def folder_of(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


# --- What is neither a file nor a folder ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "/dev/urandom", "/dev/random", "link"])
def test_a_device_is_refused_and_never_read(store, tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is a device, and only files, folders and pipes can be read"):
        store.reference(tmp_path / name)


def test_a_socket_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError, match="is a socket, and only files"):
            store.reference(Path("socket"))


def test_special_files_of_a_folder_are_left_out_by_name(store, tmp_path, monkeypatch):
    folder = folder_of(tmp_path, a="text")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    (folder / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        ref = store.reference(folder)
    assert store.load(ref) == {"a.txt": "text"}
    assert 'not read: "' in ref["about"]
    for named in ('"pipe" (special)', '"socket" (special)', '"zero" (link)', "left out: 2 special, 1 link"):
        assert named in ref["about"]


def test_a_file_of_the_kernel_has_no_size_and_is_copied_within_the_limit_of_a_stream(store, monkeypatch):
    ref = store.reference(Path("/proc/version"))
    assert "path" not in ref
    assert store.load(ref).startswith("Linux version")
    assert ref["size"] == len(store.load(ref))
    monkeypatch.setenv("RLM_MAX_STREAM_BYTES", "10")
    with pytest.raises(InputError, match=r"/proc/version goes on after 10 bytes"):
        store.reference(Path("/proc/version"))


def test_a_folder_of_files_of_the_kernel_is_left_out(store):
    with pytest.raises(InputError, match=r"/proc/\d+/net contains no readable text; left out: .*\d+ special"):
        store.reference(Path("/proc/self/net/"))


# --- What does not end -------------------------------------------------------------------------------------


class Endless:
    """A stream without an end, whose blocks are as long as they are asked for."""

    def __init__(self, block: Any) -> None:
        self.block, self.given = block, 0

    def read(self, size: int) -> Any:
        self.given += size
        return self.block * size


@pytest.mark.parametrize("block", ["x", b"x", "ä", "\udc80"])
def test_a_stream_is_copied_up_to_a_limit_that_can_be_set(store, monkeypatch, block):
    monkeypatch.setenv("RLM_MAX_STREAM_BYTES", str(1 << 20))
    endless = Endless(block)
    with pytest.raises(
        InputError, match=r"goes on after 1,048,576 bytes.* a file, which may be of any size, or set"
    ):
        store.reference(endless)
    assert endless.given <= 2 << 20
    assert store.reference(io.BytesIO(b"x" * (1 << 20)))["length"] == 1 << 20
    assert not list(store.root.rglob("unfinished-*"))


def test_the_limit_is_one_gibibyte_and_a_wrong_one_is_refused(store, monkeypatch):
    from rlm_langchain.context.store import max_stream_bytes

    assert max_stream_bytes() == 1 << 30
    for wrong in ("0", "-1", "1e9", "much", "٣"):
        monkeypatch.setenv("RLM_MAX_STREAM_BYTES", wrong)
        with pytest.raises(ConfigurationError, match=r"RLM_MAX_STREAM_BYTES is .*: give a number of bytes"):
            store.reference(io.BytesIO(b"x"))


def test_a_file_is_of_any_size_also_when_it_must_be_copied(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RLM_MAX_STREAM_BYTES", "1000")
    (tmp_path / "utf16.txt").write_text("long " * 10_000, "utf-16")
    assert store.reference(tmp_path / "utf16.txt")["length"] == 50_000


@pytest.mark.parametrize(
    "value",
    [
        itertools.count(),
        itertools.repeat("x"),
        (n for n in itertools.count()),
        iter("abc"),
        map(str, [1]),
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_only_be_gone_through_is_refused_and_not_gone_through(store, value):
    with pytest.raises(InputError, match=r"cannot be a context: give text, a pathlib\.Path"):
        store.reference(value)


class Silent:
    """A stream whose `read` does not return."""

    name = "the silent one"

    def __init__(self, end: threading.Event) -> None:
        self.read = lambda size: end.wait() and b""


@pytest.fixture
def waiting(tmp_path: Path) -> Any:
    """A function that makes a stream that waits for what never comes, by its kind."""
    opened: list[int] = []
    streams: list[Any] = []
    end = threading.Event()

    def make(kind: str) -> Any:
        if kind == "object":
            return Silent(end)
        if kind in ("named pipe", "named pipe without a writer"):
            path = tmp_path / "pipe"
            os.mkfifo(path)
            if kind == "named pipe":
                opened.append(os.open(path, os.O_RDWR))
                os.write(opened[-1], b"the beginning")
            return path
        out, into = os.pipe()
        opened.append(into)
        os.write(into, b"the beginning")
        modes: dict[str, Any] = {"raw": {"buffering": 0}, "text": {"mode": "r", "encoding": "utf-8"}}
        streams.append(open(out, **{"mode": "rb", **modes.get(kind, {})}))  # noqa: SIM115
        return streams[-1]

    yield make
    end.set()
    for fd in opened:
        os.close(fd)
    for thread in threading.enumerate():
        if thread.name == "rlm-stream":  # it stays behind until its `read` returns: now
            thread.join()
    for stream in streams:
        stream.close()


KINDS = ("object", "raw", "buffered", "text", "named pipe", "named pipe without a writer")
HOWS = ("store", "invoke", "ainvoke", "command", "command in latin-1")
REFUSED = [(kind, "command in latin-1") for kind in KINDS if "named" in kind]
"""See below."""


@pytest.mark.parametrize(("kind", "how"), [one for one in itertools.product(KINDS, HOWS) if one not in REFUSED])
def test_what_never_comes_is_waited_for_as_long_as_the_run_may_take(
    store, tmp_path, waiting, kind, how, monkeypatch
):
    stream = waiting(kind)
    rlm = create_rlm(FunctionModel(function=never), budget=Budget(seconds=0.2), home=tmp_path / "home")
    if not isinstance(stream, Path):
        monkeypatch.setattr(sys, "stdin", stream if kind == "text" else SimpleNamespace(buffer=stream))
    name = str(stream) if isinstance(stream, Path) else "-"
    asked: Any = {"query": "q", "context": stream}
    ways = {
        "store": lambda: store.reference(stream, seconds=0.2),
        "invoke": lambda: rlm.invoke(asked),
        "ainvoke": lambda: asyncio.run(rlm.ainvoke(asked)),
        "command": lambda: inputs.context([name], strict=False, seconds=0.2),
        "command in latin-1": lambda: inputs.context([name], strict=False, seconds=0.2, encoding="latin-1"),
    }
    with pytest.raises(
        InputError, match=r"was not read to its end in the time of the run: raise Budget\(seconds=\)"
    ):
        ways[how]()


@pytest.mark.parametrize("name", ["named pipe", "/dev/zero", "/dev/null"])
def test_with_an_encoding_only_files_are_opened(waiting, name):
    path = waiting("named pipe without a writer") if name == "named pipe" else Path(name)
    for given in ([str(path)], [__file__, str(path)]):
        with pytest.raises(InputError, match=f"{path} is not a regular file, and --encoding is for files and for"):
            inputs.context(given, strict=False, seconds=30, encoding="latin-1")


@pytest.mark.parametrize("block", ["x", b"x"])
def test_a_stream_without_an_end_ends_with_the_time_of_the_run(store, block):
    with pytest.raises(InputError, match="was not read to its end in the time of the run"):
        store.reference(Endless(block), seconds=0.1)


@pytest.mark.parametrize("kind", ["raw", "buffered", "text", "named pipe"])
def test_with_a_time_to_keep_a_pipe_is_read_to_its_end_all_the_same(store, tmp_path, kind):
    text = "through a pipe, ä " * 50_000
    if kind == "named pipe":
        stream: Any = tmp_path / "pipe"
        os.mkfifo(stream)
        write = lambda: stream.write_text(text)  # noqa: E731
    else:
        out, into = os.pipe()
        modes: dict[str, Any] = {"raw": {"buffering": 0}, "text": {"mode": "r", "encoding": "utf-8"}}
        stream = open(out, **{"mode": "rb", **modes.get(kind, {})})  # noqa: SIM115
        write = lambda: Path(f"/proc/self/fd/{into}").write_text(text) and os.close(into)  # noqa: E731
    writer = threading.Thread(target=write)
    writer.start()
    ref = store.reference(stream, seconds=60)
    writer.join()
    assert store.load(ref) == text
    if kind != "named pipe":
        stream.close()


def test_a_named_pipe_that_nobody_writes_to_is_not_waited_for_without_end(store, tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_langchain.context.sources.pipes.WRITER_TIMEOUT", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"nothing writes to the named pipe .*pipe: start its writer"):
        store.reference(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ([b"bytes", "text"], "its `read` returns bytes and str"),
        (["text", b"bytes"], "its `read` returns bytes and str"),
        ([None], "it has no data now"),
        ([KeyError("x")], "its `read` raised KeyError"),
        ([bytearray(b"x")], "its `read` returns bytearray"),
    ],
)
@pytest.mark.parametrize("seconds", [None, 60])
def test_a_stream_that_misbehaves_is_refused_in_a_sentence(store, reads, message, seconds):
    class Odd:
        def read(self, size: int) -> Any:
            block = reads.pop(0)
            if isinstance(block, Exception):
                raise block
            return block

    reads = [*reads]
    with pytest.raises(InputError, match=f"cannot read the stream: {message}"):
        store.reference(Odd(), seconds=seconds)


# --- What is long, and little of it is text --------------------------------------------------------------------

PEAK = """
import json, resource, sys
from pathlib import Path
from rlm_langchain.context import ContextStore
from rlm_langchain.errors import InputError

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

store = ContextStore(Path(sys.argv[1]))
small = Path(sys.argv[1]).parent / "small"
small.mkdir()
(small / "a.txt").write_text("small")
store.reference(small)
store.reference(b"small")
value = Path(sys.argv[2])
if sys.argv[3:]:
    value = value.read_bytes()
before = peak()
try:
    told = store.reference(value)["about"]
except InputError as error:
    told = str(error)
print(json.dumps([peak() - before, told]))
"""


def grown(tmp_path: Path, value: Path, *more: str) -> tuple[int, str]:
    """How many bytes the peak of memory grows by, and what is told."""
    run = [sys.executable, "-c", PEAK, str(tmp_path / "home"), str(value), *more]
    size, told = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)
    return size, told


def sparse(path: Path, size: int, begins: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(begins)
        file.truncate(size)


@pytest.mark.parametrize(
    ("begins", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "damaged PNG image"),
        (b"\xff\xd8\xff\xe0", "damaged JPEG image"),
        (b"BM" + bytes(16) + b"\0\1\0\0\0\1\0\0", "BMP image that has more than 64 MB"),
        (b"%PDF-1.7", "PDF that has more than 256 MB"),
        (b"", "binary"),
        (b"\x7fELF\x02\0\xff", "executable"),
    ],
)
@pytest.mark.parametrize("size", [2_500_000_000, 1 << 40])
def test_a_long_file_that_is_no_text_is_not_read(tmp_path, begins, kind, size):
    folder = folder_of(tmp_path, a="6 byte")
    sparse(folder / "photo.png", size, begins)
    size, told = grown(tmp_path, folder)
    assert size < 4 << 20
    assert told.endswith(f'not read: "photo.png" ({kind}); keys: "a.txt"; left out: 1 {kind}')


def test_a_long_text_of_a_folder_is_never_held_whole(tmp_path):
    folder = folder_of(tmp_path, a='a line with "quotes" and ä\n' * 2_000_000)
    size, told = grown(tmp_path, folder)
    assert size < 12 << 20
    assert told.startswith("dict of 1 file: path -> text, 54,000,000 characters in all")


def test_bytes_are_not_decoded_at_once(tmp_path):
    (tmp_path / "long").write_bytes("ein längerer Text\n".encode() * 3_000_000)
    size, told = grown(tmp_path, tmp_path / "long", "as bytes")
    assert size < 12 << 20
    assert told.startswith("str, 54,000,000 characters")


def test_more_text_than_a_sandbox_holds_is_known_by_its_size(tmp_path):
    folder = folder_of(tmp_path, a="text")
    sparse(folder / "big.log", (1 << 30) + 1, b"a line\n" * 2_000_000)
    size, told = grown(tmp_path, folder)
    assert size < 4 << 20
    assert 'it was too much with "big.log", of 1,073,741,825 bytes' in told


@pytest.mark.parametrize("size", [100 << 20, 900 << 20, 1 << 40])
def test_a_file_of_a_folder_that_is_nearly_all_hole_is_left_out_and_takes_no_place(store, tmp_path, size):
    folder = folder_of(tmp_path, a="text")
    sparse(folder / "big.log", size, b"a line\n" * 10_000)
    ref = store.reference(folder)
    assert store.load(ref) == {"a.txt": "text"}
    assert ref["notes"] == ['left out: 1 almost unwritten ("big.log")']
    with pytest.raises(InputError, match=r'"big\.log" would be left out \(almost unwritten\)'):
        store.reference(folder, strict=True)


@pytest.mark.parametrize("begins", [b"", b"a line\n" * 10_000])
def test_a_file_of_which_almost_nothing_was_written_is_refused(tmp_path, begins):
    sparse(tmp_path / "big.log", 1 << 40, begins)
    _, told = grown(tmp_path, tmp_path / "big.log")
    assert "big.log is 1,099,511,627,776 bytes long, of which" in told
    assert told.endswith("were written: copy the part that is text to another file")


# --- Links, depth, names -------------------------------------------------------------------------------------


def test_a_link_that_leads_to_itself_is_refused_or_left_out(store, tmp_path):
    folder = folder_of(tmp_path, a="text")
    (folder / "self").symlink_to("self")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    (folder / "up").symlink_to("../folder")
    for number in range(2_000):
        (folder / f".{number}").symlink_to(f".{number + 1}")
    (folder / ".2000").write_text("far")
    (folder / "chain").symlink_to(".0")
    for name in ("self", "one", "two", "chain"):
        with pytest.raises(
            InputError, match=rf"cannot read .*{name} \(Too many levels.*\): it is a link that leads"
        ):
            store.reference(folder / name)
        with pytest.raises(InputError, match="it is a link that leads"):
            inputs.check("q", [str(folder / name)])
    ref = store.reference(folder)
    assert store.load(ref) == {"a.txt": "text"}
    assert ref["about"].endswith("left out: 2,001 hidden, 5 link")


def test_a_folder_deeper_than_recursion_and_paths_reach_is_read_to_its_end(store, tmp_path):
    depth = 1_050  # Python's stack ends at 1,000 calls, a path of Linux at 4,096 bytes
    nest = f"import os\nfor n in range({depth}):\n    os.mkdir('deep')\n    os.chdir('deep')\n"
    nest += "open('deep.txt', 'w').write('deep')"
    folder = folder_of(tmp_path, a="text")
    subprocess.run([sys.executable, "-c", nest], cwd=folder, check=True)
    try:
        assert store.load(store.reference(folder)) == {"a.txt": "text", f"{'deep/' * depth}deep.txt": "deep"}
    finally:  # what removes the folders of tests goes as deep as Python does
        subprocess.run(["rm", "-rf", str(folder)], check=True)


NAMES = [b"caf\xe9.txt", b"caf\xe9/menu.txt", b"\xff\xfe.txt", b"lone-\xed\xb0\x80.txt"]


@pytest.mark.parametrize("sandbox", BOTH)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_whose_name_is_no_utf8_is_copied_and_asked_about(tmp_path, name, sandbox):
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    path.parent.mkdir(exist_ok=True)
    path.write_text("two words")
    saver: Any = InMemorySaver()
    rlm = create_rlm(script("FINAL(context)"), sandbox=sandbox, home=tmp_path / "home", checkpointer=saver)
    output = rlm.invoke({"query": "q", "context": path}, {"configurable": {"thread_id": "t"}})
    assert output["answer"] == "two words"
    ref = output["trajectory"][0]["context"]
    assert "path" not in ref
    json.dumps(ref, ensure_ascii=False).encode()


def test_names_of_a_folder_that_are_no_utf8_are_kept_apart(store, tmp_path):
    folder = folder_of(tmp_path, a="text")
    for number, name in enumerate((b"caf\xe8.txt", b"caf\xe9.txt", "caf\ufffd.txt".encode())):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_text(str(number))
    loaded = store.load(store.reference(folder))
    assert len(loaded) == 4
    assert sorted(loaded.values()) == ["0", "1", "2", "text"]
    assert loaded["caf\ufffd.txt"] == "2"


def test_several_files_of_the_command_are_kept_apart_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [os.fsdecode(name) for name in (b"caf\xe8.txt", b"caf\xe9.txt", b"plain.txt")]
    for name in names:
        Path(name).write_text(ascii(name))
    ref = inputs.context(names, strict=False)
    assert sorted(ContextStore().load(ref).values()) == sorted(map(ascii, names))
    with pytest.raises(InputError, match="was given twice"):
        inputs.context([names[0], names[0]], strict=False)


ODD = [
    "new\nline.txt",
    "tab\there.txt",
    "\x1b[2Jclear.txt",
    "\u202etxt.exe",
    "<|im_start|>.txt",
    '"quoted".txt',
    "\x07",
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_moves_a_terminal_is_told_as_its_escapes(store, tmp_path, name):
    folder = folder_of(tmp_path)
    (folder / name).write_text("text")
    assert store.load(store.reference(folder)) == {name: "text"}
    file = store.reference(folder / name)
    (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError) as refused:
        store.reference(folder / name)
    (folder / "a.txt").write_text("text")
    for told in (file["about"], str(refused.value), store.reference(folder)["about"]):
        assert not set("\n\t\x1b\x07\u202e") & set(told)


def test_a_path_that_no_file_can_have_is_told_as_its_escapes(store):
    for name in ("a\0b", "\x1b[2J\0", "\u202e\0"):
        with pytest.raises(InputError) as refused:
            store.reference(Path(name))
        assert not set("\0\x1b\u202e") & set(str(refused.value))


def test_many_long_odd_names_fit_into_what_is_told(store, tmp_path):
    folder = folder_of(tmp_path)
    for number in range(40):
        (folder / (chr(0xE0001) * 50 + f"{number}.txt")).write_bytes(b"\x89PNG" if number % 2 else b"text")
    ref = store.reference(folder)
    assert len(ref["about"]) < 3000
    assert store.reference(ref) == ref


def test_names_that_differ_by_case_or_form_alone_are_kept_apart(store, tmp_path):
    folder = folder_of(tmp_path)
    names = ["Readme.txt", "README.txt", "é.txt", unicodedata.normalize("NFD", "é.txt")]
    for name in names:
        (folder / name).write_text(ascii(name))
    assert store.load(store.reference(folder)) == {name: ascii(name) for name in names}


# --- A folder that changes while it is read ------------------------------------------------------------------


def test_what_was_found_and_is_gone_or_leads_elsewhere_is_not_opened(tmp_path):
    folder = folder_of(tmp_path, a="text", gone="text", link="text")
    (tmp_path / "elsewhere").mkdir()
    for name in ("secret.txt", "b.txt"):
        (tmp_path / "elsewhere" / name).write_text("secret")
    (folder / "sub").mkdir()
    (folder / "sub/b.txt").write_text("text")
    (folder / "inside").symlink_to("a.txt")
    walk = FolderWalk(folder.resolve(), folder.resolve())
    found = dict(walk.files())
    assert [*found] == ["a.txt", "gone.txt", "inside", "link.txt", "sub/b.txt"]
    for path in found.values():
        with walk.open(path):
            pass
    (folder / "gone.txt").unlink()
    (folder / "link.txt").unlink()
    (folder / "link.txt").symlink_to(tmp_path / "elsewhere/secret.txt")
    (folder / "inside").unlink()
    os.mkfifo(folder / "inside")
    (folder / "sub").rename(folder / "was")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    with walk.open(found["a.txt"]):
        pass
    for name in ("gone.txt", "link.txt", "inside", "sub/b.txt"):
        with (
            pytest.raises(OSError, match=r"No such file|out of the folder|not a regular file"),
            walk.open(found[name]),
        ):
            pass


def test_a_folder_of_too_many_files_is_refused(store, tmp_path, monkeypatch):
    folder = folder_of(tmp_path, **{f"f{number}": "x" for number in range(11)})
    monkeypatch.setattr("rlm_langchain.context.sources.folders.MAX_FILES", 11)
    assert store.reference(folder)["length"] == 11
    monkeypatch.setattr("rlm_langchain.context.sources.folders.MAX_FILES", 10)
    with pytest.raises(InputError, match=r"contains more than 10 files: give a folder in it, or leave some out"):
        store.reference(folder)


def test_a_folder_is_read_in_the_time_of_the_run(store, tmp_path):
    with pytest.raises(InputError, match=r"folder was not read to its end in the time of the run"):
        store.reference(folder_of(tmp_path, a="text"), seconds=0)


@pytest.mark.parametrize("rule", ["*a" * 9 + "b", "*" * 20 + "b", "**/" * 4 + "b", "d/**/" * 4 + "b", "a**b**c*/"])
def test_a_rule_that_may_take_for_ever_is_refused(store, tmp_path, rule):
    folder = folder_of(tmp_path, a="text", **{"a" * 200: "text"})
    (folder / ".gitignore").write_text(f"# {'*' * 50}\n{rule}\n")
    with pytest.raises(InputError, match=r"\.gitignore has rules that may take minutes .*: write them with fewer"):
        store.reference(folder)


def test_the_rules_of_people_are_none_of_those(store, tmp_path):
    folder = folder_of(tmp_path, a="text")
    rules = [
        "*.py[cod]",
        "**/node_modules/**",
        "*conflicted*copy*",
        ".idea/**/dataSources*",
        "!*.keep",
        "\\*\\*\\*\\*\\*\\*",
    ]
    (folder / ".gitignore").write_text("\n".join([*rules, *(f"build{n}/**/*.o" for n in range(200))]))
    assert store.load(store.reference(folder)) == {"a.txt": "text"}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "long"])
def test_rules_that_are_no_file_of_rules_do_not_hold_a_walk_up(store, tmp_path, kind):
    folder = folder_of(tmp_path, a="text")
    rules = folder / ".gitignore"
    if kind == "long":
        rules.write_bytes(b"x\n" * (1 << 20))
        with pytest.raises(InputError, match=r"\.gitignore has more than 1,048,576 bytes"):
            store.reference(folder)
        return
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}[kind](rules)
    assert store.load(store.reference(folder)) == {"a.txt": "text"}


@pytest.mark.parametrize("kind", ["special", "link", "a link out", "unreadable"])
def test_what_cannot_be_read_is_named_or_refused_under_strict(readable_by_all, kind):
    """Also what the walk finds, and not only what a file turns out to be when it is opened."""
    folder, store = readable_by_all
    if kind == "special":
        os.mkfifo(folder / "odd")
    elif kind == "unreadable":
        (folder / "odd").mkdir(mode=0)
    else:
        (folder / "odd").symlink_to("/etc/passwd" if kind == "a link out" else "nowhere")
    (folder / ".hidden").touch()
    reason = "link" if "link" in kind else kind
    with as_nobody():
        ref = store.reference(folder)
        assert store.load(ref) == {"a.txt": "text"}
        assert f"1 {reason} (" in ref["notes"][0]
        with pytest.raises(InputError, match=rf'"odd/?" would be left out \({reason}\): take it away'):
            store.reference(folder, strict=True)


def test_a_folder_whose_rules_may_not_be_read_is_not_read_without_them(readable_by_all):
    folder, store = readable_by_all
    (folder / ".gitignore").write_text("a.txt")
    (folder / ".gitignore").chmod(0)
    with (
        as_nobody(),
        pytest.raises(InputError, match=r"cannot read .*\.gitignore \(Permission denied\): "),
    ):
        store.reference(folder)


@pytest.fixture
def readable_by_all():
    """A folder and a store, outside pytest's own folders, which only their owner may enter."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path in (root, root / "folder", root / "home"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        (root / "folder" / "a.txt").write_text("text")
        yield root / "folder", ContextStore(root / "home")


@contextmanager
def as_nobody():
    """Root may read everything, so it becomes somebody else; others stay who they are."""
    before = os.geteuid()
    if not before:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
