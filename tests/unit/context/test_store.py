from __future__ import annotations

import email
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlm_langchain.context.blobs import Collected
from rlm_langchain.context.store import ContextStore, home
from rlm_langchain.errors import InputError, JournalError

DAY = 86_400


@pytest.fixture
def store(tmp_path):
    return ContextStore(tmp_path / "home")


def blobs(store):
    """Every blob by its name, and a check that each holds what its name says."""
    found = {path.name: path for path in store.root.glob("contexts/??/*") if "." not in path.name}
    for sha256, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    return found


def age(path, days):
    """Let a file look as if it was last used so long ago."""
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))


def test_nothing_is_created_before_the_first_write(store):
    assert store.reference(None) is None
    assert store.reference("") is None
    assert store.collect(older_than=0, keep=()) == Collected((), 0)
    with pytest.raises(InputError):
        store.reference(42)
    assert not store.root.exists()
    store.reference("text")
    assert store.root.exists()


def test_the_folder_is_for_its_owner_only(store):
    ref = store.reference("text")
    blob = store.open(ref).path
    assert [path.stat().st_mode & 0o777 for path in (blob, blob.parent, blob.parent.parent)] == [
        0o600,
        0o700,
        0o700,
    ]


def test_the_default_place_is_rlm_home_or_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RLM_HOME", str(tmp_path / "mine"))
    assert home() == ContextStore().root == tmp_path / "mine"
    monkeypatch.delenv("RLM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home().name == "rlm_langchain"
    assert ContextStore().root == home()


def test_equal_contexts_are_kept_once_and_not_written_again(store):
    first = store.open(store.reference("the same text")).path
    inode = first.stat().st_ino
    for again in (store, ContextStore(store.root)):
        assert again.open(again.reference("the same text")).path.stat().st_ino == inode
        assert again.open(again.reference(b"the same text")).path.stat().st_ino == inode
        with open(__file__, "rb") as file:
            again.reference(file)
            file.seek(0)
            assert again.reference(file)
    assert len(blobs(store)) == 2


def test_a_reference_is_plain_json_and_can_be_given_again(store):
    for value in ("text", ["a", "b"], {"a": 1}, Path(__file__)):
        ref = json.loads(json.dumps(store.reference(value)))
        assert store.reference(ref) == ref
        assert ContextStore(store.root).reference(ref) == ref


def test_a_store_can_be_pickled_to_another_process(store):
    ref = store.reference("text")
    assert pickle.loads(pickle.dumps(store)).load(ref) == "text"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"T" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes() + b"!"),
    ],
    ids=["cut", "emptied", "changed", "longer"],
)
def test_a_damaged_blob_is_refused_and_healed_when_the_context_is_given_again(store, damage):
    ref = store.reference("text of a context")
    path = store.open(ref).path
    damage(path)
    for opener in (store, ContextStore(store.root)):
        with pytest.raises(JournalError, match=f"{path} is damaged: pass the context again"):
            opener.open(ref)
        with pytest.raises(JournalError, match="damaged"):
            opener.load(ref)
    assert store.load(store.reference("text of a context")) == "text of a context"
    assert ContextStore(store.root).load(ref) == "text of a context"


def test_a_missing_blob_is_refused_by_name(store, tmp_path):
    ref = store.reference("text")
    with pytest.raises(JournalError, match=rf"elsewhere/contexts/../{ref['sha256']} cannot be read \(No such file"):
        ContextStore(tmp_path / "elsewhere").open(ref)
    with pytest.raises(JournalError, match="cannot be read"):
        ContextStore(tmp_path / "elsewhere").reference(ref)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", "../../../../etc/passwd"),
        ("sha256", "A" * 64),
        ("kind", "pickle"),
        ("length", -1),
        ("size", "12"),
        ("size", True),
        ("path", "relative.txt"),
        ("about", None),
        ("preview", "x" * 100_000),
    ],
)
def test_a_reference_that_was_tampered_with_is_refused_and_names_the_key(store, key, value):
    ref = {**store.reference("text"), key: value}
    with pytest.raises(JournalError, match=f"a reference to a context is damaged: its '{key}' is not valid"):
        store.open(ref)
    with pytest.raises(InputError, match=f"looks like a reference, but its '{key}' is not valid"):
        store.reference(ref)


def test_a_reference_to_a_file_whose_content_is_not_known_opens_nothing(store):
    ref = {**store.reference("text"), "path": "/etc/hostname"}
    with pytest.raises(JournalError, match=r"/etc/hostname, .* (has changed|cannot be read)"):
        store.open(ref)


def test_a_dict_with_other_keys_than_a_reference_is_data(store):
    value = {**store.reference("text"), "more": 1}
    assert store.load(store.reference(value)) == value


def test_many_threads_and_stores_may_write_the_same_contexts_at_once(store):
    def use(n):
        mine = ContextStore(store.root)
        ref = mine.reference(f"context {n % 5} " * 10_000)
        return mine.load(ref) == f"context {n % 5} " * 10_000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(100)))
    assert len(blobs(store)) == 5
    assert not list(store.root.glob("contexts/unfinished-*"))


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from rlm_langchain.context import ContextStore

store, left = ContextStore(Path(sys.argv[1])), int(sys.argv[2])
context = Path(sys.argv[3]) if len(sys.argv) > 3 else "the context " * 50_000

def die(event, args):
    global left
    if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.utime"} and sys.argv[1] in str(args):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
store.load(store.reference(context))
"""


def killed_at(store, step, *context):
    """Whether a process that stores a context was killed just before its `step`th touch of the store."""
    run = subprocess.run([sys.executable, "-c", KILLED_AT, store.root, str(step), *context], check=False)
    assert run.returncode in (0, -signal.SIGKILL)
    return run.returncode != 0


@pytest.mark.parametrize("context", [(), (Path(email.__file__).parent,)], ids=["text", "folder"])
def test_a_process_killed_at_any_step_of_a_write_leaves_no_broken_blob(tmp_path, context):
    step = 0
    while True:
        step += 1
        store = ContextStore(tmp_path / f"home{step}")
        if not killed_at(store, step, *context):
            break
        blobs(store)
        value = context[0] if context else "the context " * 50_000
        assert store.load(store.reference(value)) == ContextStore(tmp_path / "whole").load(
            ContextStore(tmp_path / "whole").reference(value)
        )
    assert step > 5


ENDLESS = """
import sys
from pathlib import Path
from rlm_langchain.context import ContextStore

class Endless:
    blocks = 0
    def read(self, size):
        self.blocks += 1
        if self.blocks == 20:
            print("written", flush=True)
            sys.stdin.read()
        return b"x" * size

ContextStore(Path(sys.argv[1])).reference(Endless())
"""


def test_what_a_killed_writer_leaves_is_collected_after_a_day(store):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"written\n"
        child.kill()
    assert blobs(store) == {}
    (left,) = store.root.glob("contexts/unfinished-*")
    assert store.collect(older_than=0, keep=()) == Collected((), 0)
    size = left.stat().st_size
    age(left, 2)
    assert store.collect(older_than=0, keep=()) == Collected((), size)
    assert size > 1 << 20
    assert not left.exists()


FULL = """
import resource, sys
from pathlib import Path
from rlm_langchain.context import ContextStore
from rlm_langchain.errors import JournalError

store = ContextStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.reference("x" * (2 << 20))
except JournalError as error:
    print(error)
"""


def test_a_write_that_finds_no_room_says_so_and_leaves_nothing(store):
    run = subprocess.run([sys.executable, "-c", FULL, store.root], capture_output=True, text=True, check=True)
    assert (
        f"a context cannot be stored under {store.root}/contexts (File too large): free some space there"
        in run.stdout
    )
    assert not list(store.root.glob("contexts/*"))


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        JournalError, match=r"\(Not a directory\): free some space there, or set RLM_HOME to a writable folder"
    ):
        ContextStore(tmp_path / "file").reference("text")


def test_collecting_removes_what_is_old_and_not_kept_and_tells_how_much(store):
    refs = {name: store.reference(name * 1000) for name in ("old", "kept", "new")}
    age(store.open(refs["old"]).path, 10)
    age(store.open(refs["kept"]).path, 10)
    found = store.collect(older_than=9 * DAY, keep={refs["kept"]["sha256"]})
    assert found == Collected((refs["old"]["sha256"],), 3000)
    assert set(blobs(store)) == {refs["kept"]["sha256"], refs["new"]["sha256"]}
    with pytest.raises(JournalError, match="cannot be read"):
        store.open(refs["old"])
    assert store.load(refs["kept"]) == "kept" * 1000


@pytest.mark.parametrize("use", ["open", "reference"])
def test_a_context_that_is_used_again_is_young_again(store, use):
    ref = store.reference("text")
    age(store.open(ref).path, 10)
    other = ContextStore(store.root)
    other.open(ref) if use == "open" else other.reference("text")
    assert store.collect(older_than=DAY, keep=()) == Collected((), 0)
    assert store.load(ref) == "text"


def test_collecting_touches_no_file_that_is_referenced_in_place(store, tmp_path):
    real = Path(json.__file__)
    ref = store.reference(real)
    (note,) = store.root.rglob(f"{ref['sha256']}.*")
    age(note, 10)
    assert store.collect(older_than=DAY, keep={ref["sha256"]}) == Collected((), 0)
    found = store.collect(older_than=DAY, keep=())
    assert found.removed == ()
    assert found.size > 0
    assert not note.exists()
    assert store.load(ref) == real.read_text()


PLUG_IN = '''
from rlm_langchain.errors import InputError

class Numbers:
    """Accepts ranges, and complex numbers for which it cannot give a context."""

    def accepts(self, value):
        return isinstance(value, range | complex)

    def read(self, value):
        if isinstance(value, complex):
            return value
        if not value:
            raise InputError("the range is empty")
        return [str(n) for n in value]

numbers = Numbers()
'''


@pytest.mark.parametrize("target", ["Numbers", "numbers"])
def test_an_installed_plug_in_is_asked_for_what_nobody_else_accepts(store, tmp_path, monkeypatch, target):
    site = tmp_path / f"site_{target}"
    (site / "numbers_context-1.dist-info").mkdir(parents=True)
    (site / f"numbers_context_{target}.py").write_text(PLUG_IN)
    (site / "numbers_context-1.dist-info/METADATA").write_text("Name: numbers-context\nVersion: 1\n")
    (site / "numbers_context-1.dist-info/entry_points.txt").write_text(
        f"[rlm_langchain.contexts]\nnumbers = numbers_context_{target}:{target}\n"
    )
    with pytest.raises(InputError, match="range cannot be a context"):
        store.reference(range(3))
    monkeypatch.syspath_prepend(site)
    assert store.load(store.reference(range(3))) == ["0", "1", "2"]
    with pytest.raises(InputError, match="the range is empty"):
        store.reference(range(0))
    with pytest.raises(
        InputError, match="the context plug-in 'numbers' returned a complex, not a str, a list or a dict"
    ):
        store.reference(1j)
    with pytest.raises(InputError, match="a value of type object cannot be a context"):
        store.reference(object())
