"""A text file by its path: referenced where it is, read once in blocks, never loaded.

A file that is not plain UTF-8 (a byte order mark, UTF-16, undecodable bytes) cannot be opened in place by a
sandbox, so a mended copy of it is stored. So is what a named pipe gives.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rlm_langchain.context.about import HEAD, quoted
from rlm_langchain.context.blobs import Blob
from rlm_langchain.context.decoding import SAMPLE, blocks, encoding_of, not_text
from rlm_langchain.context.intake import Intake, text_ref
from rlm_langchain.context.seals import Stamp
from rlm_langchain.context.streams import copy, reading
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef


class Scan(NamedTuple):
    """What one pass over a file found."""

    sha256: str
    characters: int


def accepts(value: Any) -> bool:
    """A `pathlib.Path`, or another path object; whether there is such a file is said by `refer`."""
    return isinstance(value, os.PathLike)


def refer(value: os.PathLike[Any], intake: Intake) -> ContextRef:
    """The file in place, or a copy of what cannot be opened in place."""
    name = os.fsdecode(value)
    with reading(name), open(name, "rb", buffering=0) as file:
        note = f"from the file {quoted(Path(name).name)}"
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return copy(file, name, intake)
        return _in_place(file, Path(name).resolve(), intake, note) or copy(file, name, intake, note)


def refer_opened(file: BinaryIO, path: Path, intake: Intake) -> ContextRef:
    """The regular file that was opened at this real path: in place, if it still stands there, or a copy."""
    note = f"from the file {quoted(path.name)}"
    with reading(str(path)):
        return _in_place(file, path, intake, note) or copy(file, str(path), intake, note)


def _in_place(file: BinaryIO, path: Path, intake: Intake, note: str) -> ContextRef | None:
    sample = file.read(SAMPLE)
    if wrong := not_text(sample):
        raise InputError(f"{path} is {wrong}")
    file.seek(0)
    at, stamp = time.time_ns(), Stamp.at(os.fstat(file.fileno()))
    found = scan(file) if sample and encoding_of(sample) == "utf-8" else None
    if found is None:
        file.seek(0)
        return None
    if Stamp.of(path) != stamp:
        raise InputError(f"{path} was written to while it was read: copy it first, or pipe it in")
    intake.blobs.seals.seal(path, found.sha256, stamp, at)
    ref = text_ref(Blob(found.sha256, stamp.size, sample[:HEAD]), found.characters, note)
    return {**ref, "path": str(path)}


def scan(file: BinaryIO) -> Scan | None:
    """The hash and the length of UTF-8, in one pass; None for anything else.

    Decoding proves that it is UTF-8 and counts its characters, and takes half as long as hashing: so both
    run at once, the hash in a thread of its own.
    """
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    characters = 0
    with ThreadPoolExecutor(1) as pool:
        try:
            for block in blocks(file):
                hashed = pool.submit(digest.update, block)
                characters += len(decoder.decode(block))
                hashed.result()
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            return None
    return Scan(digest.hexdigest(), characters)
