"""Open files and pipes, such as `sys.stdin.buffer`: copied into the store in blocks, never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rlm_langchain.context.decoding import BLOCK, SAMPLE, Decoder, not_text, replaced
from rlm_langchain.context.intake import Intake, text_ref
from rlm_langchain.context.text import encode
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef


class Piece(NamedTuple):
    """A part of a text, ready to be stored."""

    data: bytes
    characters: int
    replaced: int
    """Bytes that could not be decoded, or lone surrogates."""


def accepts(value: Any) -> bool:
    """Open files, text or binary, and what can be read like them."""
    return callable(getattr(value, "read", None))


def refer(value: Any, intake: Intake) -> ContextRef:
    """All that is left to read."""
    return copy(value, str(getattr(value, "name", "the stream")), intake)


def copy(file: Any, name: str, intake: Intake, note: str = "") -> ContextRef:
    """What is left to read in `file`, as a text in the store; the note says where it came from."""
    characters = wrong = 0
    with intake.blobs.writer() as writer:
        for piece in _pieces(file, name, strict=intake.strict):
            writer.write(piece.data)
            characters += piece.characters
            wrong += piece.replaced
        if not characters:
            raise InputError(f"{name} is empty: there is nothing to ask about")
        return text_ref(writer.commit(), characters, note, replaced(wrong))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what an operating system says about a read into our error."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file or folder {name}: check the name") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name} cannot be decoded ({error.reason}): open it in binary mode") from error
    except OSError as error:
        raise InputError(f"cannot read {name} ({error.strerror or error}): check its permissions") from error
    except ValueError as error:
        raise InputError(f"cannot read {name}: {error}") from error


def _pieces(file: Any, name: str, *, strict: bool) -> Iterator[Piece]:
    first = _read(file, name)
    if isinstance(first, str):
        return _of_text(file, first, name, strict=strict)
    return _of_bytes(file, first, name, strict=strict)


def _of_text(file: Any, block: str, name: str, *, strict: bool) -> Iterator[Piece]:
    offset = 0
    while block:
        data, wrong = encode(block, strict=strict, name=name, offset=offset)
        yield Piece(data, len(block), wrong)
        offset += len(block)
        block = _read(file, name)


def _of_bytes(file: Any, block: bytes, name: str, *, strict: bool) -> Iterator[Piece]:
    while len(block) < SAMPLE and (more := _read(file, name)):  # a pipe may give a few bytes at first
        block += more
    sample = block[:SAMPLE]
    if wrong := not_text(sample):
        raise InputError(f"{name} is {wrong}")
    decoder = Decoder(name, sample, strict=strict)
    while True:
        before = decoder.replaced
        text = decoder.decode(block, final=not block)
        yield Piece(text.encode(), len(text), decoder.replaced - before)
        if not block:
            return
        block = _read(file, name)


def _read(file: Any, name: str) -> Any:
    with reading(name):
        block = file.read(BLOCK)
    if isinstance(block, str | bytes):
        return block
    raise InputError(f"cannot read {name}: its `read` gives {type(block).__name__}, not text or bytes")
