from __future__ import annotations

import email
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError


@pytest.fixture
def store(tmp_path):
    return ContextStore(tmp_path / "home")


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder: names, with a slash at the end for empty folders, and their content."""

    def fill(files, root="folder"):
        for name, content in files.items():
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_bytes(content)
        return tmp_path / root

    return fill


def test_a_folder_is_a_dict_of_its_text_files(store):
    root = Path(email.__file__).parent
    ref = store.reference(root)
    files = {
        p.relative_to(root).as_posix(): p.read_bytes().decode()
        for p in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix())
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert store.load(ref) == files
    assert list(store.load(ref)) == list(files)
    assert (ref["kind"], ref["length"]) == ("json", len(files))
    characters = sum(map(len, files.values()))
    assert ref["about"].startswith(f"dict of {len(files)} files: path -> text, {characters:,} characters in all")
    assert store.reference(files)["sha256"] == ref["sha256"]


def test_paths_are_sorted_relative_and_with_slashes(store, folder):
    root = folder({"b.txt": b"3", "a/x.txt": b"2", "a.txt": b"1", "a/b/c.txt": b""})
    assert list(store.load(store.reference(root)).items()) == [
        ("a.txt", "1"),
        ("a/b/c.txt", ""),
        ("a/x.txt", "2"),
        ("b.txt", "3"),
    ]


def test_hidden_files_caches_and_environments_are_left_out_and_counted(store, folder):
    root = folder(
        {
            "kept.py": b"x",
            ".env": b"SECRET=1",
            ".git/config": b"[core]",
            "src/__pycache__/a.pyc": b"x",
            "node_modules/a/index.js": b"x",
            "env/pyvenv.cfg": b"home = /usr",
            "env/lib/site.py": b"x",
            "build/CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55",
            "build/out.txt": b"x",
        }
    )
    ref = store.reference(root)
    assert store.load(ref) == {"kept.py": "x"}
    assert ref["about"].endswith('; keys: "kept.py"; left out: 4 cache, 2 hidden')


def test_binary_files_are_left_out_and_counted(store, folder):
    root = folder(
        {
            "text.txt": "naïve".encode(),
            "nul.dat": b"text\0text",
            "photo.jpg": b"\xff\xd8\xff\xe0 rest",
            "old.txt": "ёжик в тумане".encode("cp1251"),
            "windows.txt": "naïve".encode("utf-16"),
        }
    )
    ref = store.reference(root)
    assert store.load(ref) == {"text.txt": "naïve", "windows.txt": "naïve"}
    assert '"photo.jpg" (damaged JPEG image)' in ref["about"]
    assert ref["about"].endswith("; left out: 2 binary, 1 damaged JPEG image")


def test_undecodable_bytes_are_counted_over_all_files_or_refused_with_file_and_offset(store, folder):
    root = folder({"a.txt": b"caf\x81", "b.txt": b"\xef\xbb\xbfna\xefve, d\xe9j\xe0", "c.txt": b"plain"})
    ref = store.reference(root)
    assert store.load(ref) == {"a.txt": "caf\ufffd", "b.txt": "na\ufffdve, d\ufffdj\ufffd", "c.txt": "plain"}
    assert ref["about"].endswith("; 4 undecodable byte sequences replaced by U+FFFD")
    with pytest.raises(InputError, match=r"a\.txt cannot be decoded at byte 3 "):
        store.reference(root, strict=True)


RULES = b"""
# a comment
*.log
!keep.log
/only-here.txt
build/
docs/**/draft-*.md
"""
RULED = dict.fromkeys(
    (
        *("a.py", "a.log", "keep.log", "sub/b.log", "only-here.txt", "sub/only-here.txt", "build/a.txt"),
        *("sub/build/b.txt", "docs/draft-1.md", "docs/x/y/draft-2.md", "docs/x/final.md"),
    ),
    b"x",
)


def test_the_gitignore_of_the_folder_is_obeyed_and_counted(store, folder):
    ref = store.reference(folder({".gitignore": RULES, **RULED}))
    assert set(store.load(ref)) == {"a.py", "docs/x/final.md", "keep.log", "sub/only-here.txt"}
    assert ref["about"].endswith("; left out: 7 ignored by .gitignore, 1 hidden")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")
def test_what_is_ignored_is_what_git_ignores(store, folder):
    root = folder({".gitignore": RULES, **RULED})
    environment = {"PATH": os.environ["PATH"], "HOME": str(root)}
    git = partial(subprocess.run, cwd=root, env=environment, check=True, capture_output=True)
    git(["git", "init", "-q"])
    listed = git(["git", "ls-files", "-z", "--others", "--exclude-standard"]).stdout
    assert set(store.load(store.reference(root))) == set(listed.decode().split("\0")) - {"", ".gitignore"}


def test_links_are_followed_to_files_inside_and_never_out_or_around(store, folder, tmp_path):
    root = folder({"docs/readme.md": b"inside", "sub/a.txt": b"a"})
    folder({"secret.txt": b"outside", "more/b.txt": b"outside"}, "elsewhere")
    (root / "README").symlink_to("docs/readme.md")
    (root / "out.txt").symlink_to(tmp_path / "elsewhere/secret.txt")
    (root / "up.txt").symlink_to("../elsewhere/secret.txt")
    (root / "more").symlink_to(tmp_path / "elsewhere/more")
    (root / "sub/loop").symlink_to("..")
    (root / "broken").symlink_to("nowhere")
    ref = store.reference(root)
    assert store.load(ref) == {"README": "inside", "docs/readme.md": "inside", "sub/a.txt": "a"}
    assert ref["about"].endswith("; left out: 5 link")


def test_a_folder_that_is_itself_a_link_is_read(store, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder({"a.txt": b"a"}))
    assert store.load(store.reference(tmp_path / "link")) == {"a.txt": "a"}


def test_a_pipe_in_a_folder_does_not_block(store, folder):
    root = folder({"a.txt": b"a"})
    os.mkfifo(root / "pipe")
    assert store.reference(root)["about"].endswith("; left out: 1 special")


def test_a_name_that_is_no_utf8_is_kept_with_a_mark(store, folder):
    root = folder({"a.txt": b"a"})
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_text("b")
    assert store.load(store.reference(root)) == {"a.txt": "a", "caf\ufffd.txt": "b"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"sub/": b""}, "folder contains no readable text$"),
        ({"empty.txt": b"", ".hidden": b"x"}, "folder contains no readable text; left out: 1 hidden$"),
        ({"a.bin": b"\0\1", "b.bin": b"\0"}, "folder contains no readable text; left out: 2 binary$"),
    ],
)
def test_a_folder_without_readable_text_is_refused_with_what_was_seen(store, folder, files, message):
    with pytest.raises(InputError, match=message):
        store.reference(folder(files))
    assert not [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_counted(store, folder):
    root = folder({"a.txt": b"a", "secret.txt": b"b", "sub/c.txt": b"c"})
    (root / "secret.txt").chmod(0)
    (root / "sub").chmod(0)
    ref = store.reference(root)
    (root / "sub").chmod(0o700)
    assert store.load(ref) == {"a.txt": "a"}
    assert ref["about"].endswith("; left out: 2 unreadable")


def test_a_folder_with_more_text_than_a_sandbox_holds_is_refused(store, folder, monkeypatch):
    monkeypatch.setattr("rlm_langchain.context.sources.folders.MAX_TEXT_BYTES", 1000)
    root = folder({"a.txt": b"x" * 600, "b.txt": b"x" * 600})
    with pytest.raises(InputError, match=r"contains more than .* of text: give a folder in it, or join its files"):
        store.reference(root)
