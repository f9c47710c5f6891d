from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError, JournalError

REAL = Path(argparse.__file__).resolve()


@pytest.fixture
def store(tmp_path):
    return ContextStore(tmp_path / "home")


def test_a_text_file_is_referenced_where_it_is_and_not_copied(store):
    ref = store.reference(REAL)
    data = REAL.read_bytes()
    assert ref["path"] == str(REAL)
    assert ref["sha256"] == hashlib.sha256(data).hexdigest()
    assert (ref["kind"], ref["length"], ref["size"]) == ("text", len(data.decode()), len(data))
    assert ref["about"].endswith('; from the file "argparse.py"')
    assert ref["preview"] == data.decode()[:300]
    assert store.load(ref) == data.decode()
    assert not list(store.root.rglob(ref["sha256"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@settings(deadline=None)
@given(text=st.text(min_size=1), padding=st.integers(262_130, 262_150))
def test_characters_are_counted_right_when_blocks_cut_them(place, text, padding):
    file = place / "cut.txt"
    file.write_bytes(b"x" * padding + text.encode())
    ref = ContextStore(place / "home").reference(file)
    if not text.startswith("\ufeff") or padding:
        assert ref["length"] == padding + len(text)
        assert ref["path"] == str(file)


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=50), padding=st.integers(262_130, 262_150))
def test_a_file_with_undecodable_bytes_is_copied_with_each_of_them_counted(place, data, padding):
    raw = b"x" * padding + data
    (place / "bad.txt").write_bytes(raw)
    store = ContextStore(place / "home")
    ref = store.reference(place / "bad.txt")
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - raw.count("\ufffd".encode())
    if "guessed" in ref["about"]:
        return
    assert store.load(ref) == text
    assert ("path" in ref) == (wrong == 0)
    assert (f"{wrong} undecodable byte sequence" in ref["about"]) == (wrong > 0)


def test_strict_names_the_file_and_the_offset_of_the_first_undecodable_byte(store, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes("é".encode() * 300_000 + b"\xff!")
    with pytest.raises(InputError, match=r"bad\.txt cannot be decoded at byte 600,000 "):
        store.reference(bad, strict=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_with_a_byte_order_mark_is_copied_without_it(store, tmp_path, encoding):
    file = tmp_path / "marked.txt"
    file.write_bytes(("naïve 漢字\r\n" * 100_000).encode(encoding))
    ref = store.reference(file, strict=True)
    assert "path" not in ref
    assert store.load(ref) == "naïve 漢字\r\n" * 100_000


@pytest.mark.parametrize("extra", [b"!", b""])
def test_a_file_that_changed_is_an_error_that_names_it_even_if_its_time_was_set_back(store, tmp_path, extra):
    file = tmp_path / "notes.txt"
    file.write_bytes(b"the first text")
    ref = store.reference(file)
    before = file.stat()
    file.write_bytes(b"the other text" + extra)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    for opener in (store, ContextStore(store.root)):
        with pytest.raises(JournalError, match=r"notes\.txt, which is the context .* has changed .* restore it"):
            opener.open(ref)
    file.write_bytes(b"the first text")
    assert store.load(ref) == "the first text"


def test_a_file_that_is_gone_or_became_a_folder_is_an_error_that_names_it(store, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("text")
    ref = store.reference(file)
    file.unlink()
    with pytest.raises(JournalError, match=r"notes\.txt, .* cannot be read \(No such file"):
        store.open(ref)
    file.mkdir()
    with pytest.raises(JournalError, match=r"notes\.txt, .* cannot be read \(it is not a regular file"):
        store.open(ref)


def test_a_file_that_moved_under_a_link_stays_the_file_it_was(store, tmp_path):
    (tmp_path / "log.1").write_text("one")
    (tmp_path / "latest").symlink_to("log.1")
    ref = store.reference(tmp_path / "latest")
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("log.2")
    assert store.load(ref) == "one"


OPENED_BY = """
import json, sys
from pathlib import Path
from rlm_langchain.context import ContextStore

opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
store = ContextStore(Path(sys.argv[1]))
ref = json.loads(sys.argv[2]) or store.reference(Path(sys.argv[3]))
reads = []
for _ in range(2):
    opened.clear()
    store.open(ref)
    reads.append(sys.argv[3] in opened)
print(json.dumps(reads))
"""


def opened_by_another_process(root, ref):
    """Whether a process that opens a reference twice opens its file, the first time and the second.

    Without a reference, it makes its own first. It is another process because an audit hook stays for good, and
    under it two threads that start at once can meet in `settrace`, where Python 3.11 lets one of them die.
    """
    run = subprocess.run(
        [sys.executable, "-c", OPENED_BY, root, json.dumps(ref), REAL], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def test_an_unchanged_file_is_not_read_again_by_this_or_another_process(store):
    assert opened_by_another_process(store.root, None) == [False, False]
    ref = store.reference(REAL)
    assert opened_by_another_process(store.root, ref) == [False, False]
    stranger = store.root / "elsewhere"
    assert opened_by_another_process(stranger, ref) == [True, False]
    assert opened_by_another_process(stranger, ref) == [False, False]


def test_a_damaged_note_about_a_file_only_means_that_it_is_read_again(store):
    ref = store.reference(REAL)
    (note,) = store.root.rglob(f"{ref['sha256']}.*")
    note.write_bytes(b"\xff{")
    assert opened_by_another_process(store.root, ref) == [True, False]
    assert note.read_bytes() != b"\xff{"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/file.txt", "there is no file or folder /no/such/file.txt: check the name"),
        ("/dev/null", "/dev/null is empty: there is nothing to ask about"),
        (sys.executable, r"is an executable: give its source, or the texts in it"),
        ("a\0b", r"cannot read a\\x00b"),
    ],
)
def test_a_path_that_cannot_be_a_context_is_refused_in_a_sentence(store, path, message):
    with pytest.raises(InputError, match=message):
        store.reference(Path(path))
    assert not list(store.root.rglob("unfinished-*"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc")
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(store):
    with pytest.raises(InputError, match=r"cannot read /proc/self/mem \(Input/output error\)"):
        store.reference(Path("/proc/self/mem"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_with_the_reason(store, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("text")
    secret.chmod(0)
    with pytest.raises(InputError, match=r"cannot read .*secret.txt \(Permission denied\)"):
        store.reference(secret)


def test_a_relative_path_becomes_absolute(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("text")
    assert store.reference(Path("notes.txt"))["path"] == str(tmp_path / "notes.txt")


def test_a_file_that_is_written_to_while_it_is_read_is_refused(store, tmp_path):
    log, done = tmp_path / "app.log", threading.Event()
    log.write_bytes(b"line\n" * 4_000_000)

    def write():
        with log.open("ab", buffering=0) as file:
            while not done.is_set():
                file.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(InputError, match=r"app\.log was written to while it was read: copy it first, or pipe"):
            store.reference(log)
    finally:
        done.set()
        writer.join()


def test_a_named_pipe_is_read_to_its_end(store, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["through a pipe " * 100_000])
    writer.start()
    ref = store.reference(pipe)
    writer.join()
    assert store.load(ref) == "through a pipe " * 100_000
    assert "path" not in ref


def test_standard_input_is_streamed_into_the_store(tmp_path):
    code = "import json, sys; from pathlib import Path; from rlm_langchain.context import ContextStore;"
    code += "print(json.dumps(ContextStore(Path(sys.argv[1])).reference(sys.stdin.buffer)))"
    text = REAL.read_bytes() * 20
    run = subprocess.run([sys.executable, "-c", code, tmp_path], input=text, capture_output=True, check=True)
    ref = json.loads(run.stdout)
    assert ContextStore(tmp_path).load(ref) == text.decode()
    assert ref["length"] == len(text.decode())


def test_open_files_of_both_kinds_are_read_from_where_they_are(store):
    with REAL.open("rb") as binary, REAL.open(encoding="utf-8") as text:
        assert binary.readline().decode() == text.readline()
        assert store.reference(binary) == store.reference(text)


def test_a_text_stream_with_a_surrogate_is_mended_or_refused_with_its_place(store):
    stream = "x" * 300_000 + "\udc80"
    assert store.load(store.reference(io.StringIO(stream))) == "x" * 300_000 + "\ufffd"
    with pytest.raises(InputError, match="the stream has a lone surrogate at character 300,000"):
        store.reference(io.StringIO(stream), strict=True)


def test_streams_that_cannot_be_read_are_refused_in_a_sentence(store, tmp_path):
    class Odd:
        name = "odd"

        def read(self, size):
            return 42

    closed = io.BytesIO(b"x")
    closed.close()
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    for stream, message in (
        (io.BytesIO(), "the stream is empty: there is nothing"),
        (io.StringIO(), "the stream is empty"),
        (Odd(), "cannot read odd: its `read` returns int, not text or bytes"),
        (closed, "cannot read the stream: I/O operation on closed file"),
        (io.BytesIO(b"%PDF-1.4"), "the stream is a damaged PDF"),
    ):
        with pytest.raises(InputError, match=message):
            store.reference(stream)
    with latin.open(encoding="utf-8") as stream, pytest.raises(InputError, match=r"latin\.txt cannot be decoded"):
        store.reference(stream)
    assert not list(store.root.rglob("unfinished-*"))


GROWTH = """
import json, sys
from pathlib import Path
from rlm_langchain.context import ContextStore

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

store = ContextStore(Path(sys.argv[1]))
store.reference(Path(__import__("argparse").__file__))
before = peak()
ref = store.reference(Path(sys.argv[2]))
store.open(ref)
print(json.dumps({"grown": peak() - before, **ref}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_of_a_gigabyte_is_referenced_without_being_loaded(tmp_path):
    file, size = tmp_path / "big.txt", 1 << 30
    with file.open("wb") as big:
        first = "first line, naïve 漢字\n".encode()
        big.write(first.ljust(1 << 20))
        for _ in range(1022):
            big.write(b"a line of text. " * (1 << 16))
        big.write(b"end\n".rjust(1 << 20))
    run = subprocess.run([sys.executable, "-c", GROWTH, tmp_path / "home", file], capture_output=True, check=True)
    ref = json.loads(run.stdout)
    assert ref["grown"] < 30 << 20
    assert ref["size"] == size
    assert ref["length"] == size - 5
    assert ref["path"] == str(file)
