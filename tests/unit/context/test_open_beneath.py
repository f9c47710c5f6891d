"""Reading below a root while somebody swaps files and folders for links: at no moment does a read lead out."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.context import beneath
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError, JournalError, RLMError

SECRET = "the secret of others"


@contextmanager
def swapping(at: int, swap: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Within the block, `swap` happens just before the look number `at`. Gives whether it has happened.

    The functions of Python's own library are replaced, since an audit hook stays for good: under one, two threads
    that start at once can meet in `settrace`, where Python 3.11 lets one of them die.
    """
    looks = 0
    within = False

    def look() -> None:
        nonlocal looks, within
        if within:
            return
        looks += 1
        if looks == at + 1:
            within = True
            try:
                swap()
            finally:
                within = False

    def looking(does: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            look()
            return does(*args, **options)

        return do

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "open"), (io, "open"), (builtins, "open"), (os, "scandir"), (os, "listdir")):
            patch.setattr(module, name, looking(getattr(module, name)))
        yield lambda: looks > at


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root, with a folder in it, and what is outside under the same names."""
    for top, text in (("root", "mine"), ("outside", SECRET)):
        folder = tmp_path / top / "box" / "inner"
        folder.mkdir(parents=True)
        (folder / "deep.txt").write_text(f"deep {text}")
        (folder.parent / "flat.txt").write_text(f"flat {text}")
    return tmp_path / "root"


def replaced_by_link(place: Path, name: str) -> Callable[[], None]:
    """Move what is below the root away, and put a link to the same name outside into its place."""

    def swap() -> None:
        path = place / name
        path.rename(path.with_name("moved away"))
        path.symlink_to(place.parent / "outside" / name)

    return swap


def replaced_by_fifo(place: Path, name: str) -> Callable[[], None]:
    def swap() -> None:
        path = place / name
        path.rename(path.with_name("moved away"))
        os.mkfifo(path)

    return swap


def taken(store: ContextStore, place: Path, given: str) -> Callable[[], str]:
    """What tells what the store took of a path."""
    reference = store.reference_beneath(place / given, [place])
    assert reference is not None
    return lambda: f"{reference} {store.load(reference)}"


def all_of(store: ContextStore, place: Path, given: str) -> str:
    return taken(store, place, given)()


MOMENTS = 40
CASES = [
    ("box/flat.txt", "box/flat.txt"),
    ("box/flat.txt", "box"),
    ("box/inner/deep.txt", "box/inner"),
    ("box/inner/deep.txt", "box"),
    ("box", "box"),
    ("box", "box/inner"),
    ("box", "box/inner/deep.txt"),
    ("box", "box/flat.txt"),
    ("", "box"),
    ("", "box/inner"),
]


def outcomes(read: Callable[[int], str], tmp_path: Path) -> list[str]:
    """What came of it, for a swap at each moment there is."""
    found = []
    for moment in range(MOMENTS):
        try:
            found.append(read(moment))
        except StopIteration:
            return found
        except RLMError as error:
            found.append(str(error))
    raise AssertionError("more moments than expected")


def tried(place: Path, given: str, swap: Callable[[Path], Callable[[], None]], reader: Any) -> list[str]:
    """What `reader(store, root, given)` has taken, with a swap before each of its looks, each in a fresh copy."""

    def read(moment: int) -> str:
        fresh = place.parent / str(moment)
        shutil.copytree(place.parent / "root", fresh / "root", symlinks=True)
        shutil.copytree(place.parent / "outside", fresh / "outside", symlinks=True)
        store = ContextStore(fresh / "home")
        with swapping(moment, swap(fresh / "root")) as happened:
            try:
                tell = reader(store, fresh / "root", given)
            finally:
                has_happened = happened()
        if not has_happened:
            raise StopIteration
        return str(tell())

    return outcomes(read, place)


@pytest.mark.parametrize(("given", "swapped"), CASES)
def test_a_link_that_appears_at_any_moment_leads_nowhere(place: Path, given: str, swapped: str) -> None:
    found = tried(place, given, lambda root: replaced_by_link(root, swapped), taken)
    assert len(found) > 2
    assert SECRET not in "".join(found)


@pytest.mark.parametrize(("given", "swapped"), CASES)
def test_the_same_where_the_system_cannot_open_relative_to_a_folder(
    place: Path, given: str, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_CAN_OPEN_RELATIVE", False)
    found = tried(place, given, lambda root: replaced_by_link(root, swapped), taken)
    assert SECRET not in "".join(found)


@pytest.mark.parametrize("given", ["box/flat.txt", "box/inner/deep.txt"])
def test_the_control_reads_outside(place: Path, given: str) -> None:
    """What resolves first and opens later is caught by this test."""

    def naive(_: ContextStore, root: Path, name: str) -> Callable[[], str]:
        path = (root / name).resolve()
        assert path.is_relative_to(root)
        text = path.read_text()
        return lambda: text

    found = tried(place, given, lambda root: replaced_by_link(root, given), naive)
    assert SECRET in "".join(found)


@pytest.mark.parametrize(("given", "swapped"), [case for case in CASES if case[1].endswith(".txt")])
def test_a_fifo_that_appears_at_any_moment_blocks_nobody(place: Path, given: str, swapped: str) -> None:
    assert tried(place, given, lambda root: replaced_by_fifo(root, swapped), taken)


def test_links_to_places_below_the_root_work_and_others_are_refused(place: Path, tmp_path: Path) -> None:
    store = ContextStore(tmp_path / "home")
    (place / "link").symlink_to(place / "box")
    (place / "box" / "near").symlink_to("flat.txt")
    (place / "box" / "far").symlink_to(place.parent / "outside" / "box" / "flat.txt")
    (place / "loop").symlink_to(place / "loop")
    (place / "box" / ".gitignore").symlink_to(place.parent / "outside" / "box" / "flat.txt")
    assert "flat mine" in all_of(store, place, "link/flat.txt")
    assert "flat mine" in all_of(store, place, "box/near")
    assert "near" in all_of(store, place, "link")
    for wrong in (
        "box/far",
        "../outside/box",
        "../outside/box/flat.txt",
        "loop",
        "link/../../outside/box/flat.txt",
    ):
        with pytest.raises(InputError):
            all_of(store, place, wrong)


def test_a_file_that_is_swapped_after_it_was_loaded_is_not_read(place: Path, tmp_path: Path) -> None:
    store = ContextStore(tmp_path / "home")
    reference = store.reference_beneath(place / "box" / "flat.txt", [place])
    assert reference is not None
    replaced_by_link(place, "box")()
    with pytest.raises(JournalError):
        store.load(reference)


def test_devices_and_pipes_are_refused_at_once(place: Path, tmp_path: Path) -> None:
    os.mkfifo(place / "pipe")
    for path, root in ((place / "pipe", place), (Path("/dev/zero"), Path("/dev"))):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            ContextStore(tmp_path / "home").reference_beneath(path, [root])
