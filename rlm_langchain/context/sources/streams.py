"""Open files and pipes, such as `sys.stdin.buffer`: copied to the store in blocks, never loaded.

A stream may never end, so the size and time of the copy are limited.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

from rlm_langchain.context.decoding import (
    SAMPLE_BYTES,
    Decoder,
    replacement_note,
    why_not_text,
)
from rlm_langchain.context.formats.detect import has_signature
from rlm_langchain.context.formats.parsed import MAX_UNPACKED_BYTES, AsText, SourceFile
from rlm_langchain.context.formats.storing import file_reference, reading
from rlm_langchain.context.reference import StoreWriter, text_reference
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.context.sources.pipes import block_reader
from rlm_langchain.context.sources.text import encode_text
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.types import ContextRef

_REMEDIES = {
    errno.ELOOP: "it is a link that leads to itself, or one of too many: give the file itself",
    errno.ENAMETOOLONG: "its path is too long: move it up, or use a relative path from a folder closer to it",
    errno.ENXIO: "it is a socket or a device, and only files, folders and pipes can be read",
}
"""Advice for errors of the operating system. For all others: check the permissions."""


class EncodedBlock(NamedTuple):
    """A part of a text, encoded for the store."""

    data: bytes
    characters: int
    replaced: int
    """Number of undecodable bytes or lone surrogates that were replaced."""
    guess: str = ""
    """What was guessed of the encoding."""


def accepts(value: Any) -> bool:
    """Accept open files, text or binary, and other objects with `read`."""
    return callable(getattr(value, "read", None))


def to_reference(value: Any, store_writer: StoreWriter) -> ContextRef:
    """Return a reference to the rest of the stream."""
    return copy_stream(
        value, one_line(getattr(value, "name", "the stream")), store_writer, max_bytes=store_writer.max_stream_bytes
    )


def copy_stream(
    file: Any,
    name: str,
    store_writer: StoreWriter,
    note: str = "",
    *notes: str,
    max_bytes: float = inf,
    sample: bytes = b"",
) -> ContextRef:
    """Copy the rest of `file` to the store as a text. `note` says where it came from, and its encoding is told from
    `sample`, by default its first bytes.

    Raises `InputError` if it has more than `max_bytes` bytes.
    """
    characters = wrong = size = 0
    guesses = dict[str, None]()
    with store_writer.blobs.writer() as writer:
        read = _checked_reader(file, name, store_writer)
        begun = _begun(read)
        if isinstance(begun, bytes) and has_signature(begun):
            found = _file_in_stream(begun, read, name, note, store_writer, max_bytes)
            if found is not None:
                return found
        for piece in _encoded_blocks(read, begun, name, sample, strict=store_writer.strict):
            size += len(piece.data)
            if size > max_bytes:
                raise InputError(
                    f"{name} goes on after {max_bytes:,} bytes, and no more is copied from a stream: save what you "
                    "need of it to a file, which may be of any size, or set RLM_MAX_STREAM_BYTES"
                )
            store_writer.seconds_left(name)
            writer.write(piece.data)
            characters += piece.characters
            wrong += piece.replaced
            guesses.update(dict.fromkeys(filter(None, (piece.guess,))))
        if not characters:
            raise InputError(f"{name} is empty: there is nothing to ask about")
        return text_reference(writer.commit(), characters, note, *notes, *guesses, replacement_note(wrong))


@contextmanager
def as_input_error(name: str) -> Iterator[None]:
    """Turn operating system errors of a read into an `InputError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file or folder {one_line(name)}: check the name") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{one_line(name)} cannot be decoded ({error.reason}): open it in binary mode") from error
    except OSError as error:
        way_out = _REMEDIES.get(error.errno or 0, "check its permissions")
        raise InputError(f"cannot read {one_line(name)} ({error.strerror or error}): {way_out}") from error
    except ValueError as error:
        raise InputError(f"cannot read {one_line(name)}: {error}") from error


ReadBlock = Callable[[], Any]
"""Returns the next block of a stream, text or bytes; an empty one at the end."""


def _begun(read: ReadBlock) -> str | bytes:
    """Return the first block: of bytes, enough of them to tell what they are."""
    first: str | bytes = read()
    while isinstance(first, bytes) and first and len(first) < SAMPLE_BYTES and (more := read()):
        first += more  # a pipe may give a few bytes at first
    return first


def _file_in_stream(
    first: bytes, read: ReadBlock, name: str, note: str, store_writer: StoreWriter, max_bytes: float
) -> ContextRef | None:
    """Return a reference to what a stream becomes that is a file of some format: it is read whole, into memory."""
    parts, size = [first], len(first)
    while block := read():
        store_writer.seconds_left(name)
        size += len(block)
        if size > min(max_bytes, MAX_UNPACKED_BYTES):
            raise InputError(f"{name} is a file that is too long to be read from a stream: give its path")
        parts.append(block)
    file = SourceFile.of_bytes(b"".join(parts), "", reading(store_writer, name))
    found = file_reference(file, name, note, store_writer)
    return None if isinstance(found, AsText) else found


def _encoded_blocks(
    read: ReadBlock, first: str | bytes, name: str, sample: bytes, *, strict: bool
) -> Iterator[EncodedBlock]:
    if isinstance(first, str):
        return _encode_text(read, first, name, strict=strict)
    return _decode_bytes(read, first, name, sample or first[:SAMPLE_BYTES], strict=strict)


def _encode_text(read: ReadBlock, block: str, name: str, *, strict: bool) -> Iterator[EncodedBlock]:
    offset = 0
    while block:
        data, wrong = encode_text(block, strict=strict, name=name, offset=offset)
        yield EncodedBlock(data, len(block), wrong)
        offset += len(block)
        block = read()


def _decode_bytes(
    read: ReadBlock, block: bytes, name: str, sample: bytes, *, strict: bool
) -> Iterator[EncodedBlock]:
    if wrong := why_not_text(block[:SAMPLE_BYTES]):
        raise InputError(f"{name} is {wrong}")
    decoder = Decoder(name, sample, strict=strict)
    while True:
        before = decoder.replaced
        text = decoder.decode(block, final=not block)
        yield EncodedBlock(text.encode(), len(text), decoder.replaced - before, decoder.note)
        if not block:
            return
        block = read()


def _checked_reader(file: Any, name: str, store_writer: StoreWriter) -> ReadBlock:
    """Return a reader that checks that all blocks have one type. Turns every error of a foreign `read` into an
    `InputError`."""
    read, kinds = block_reader(file, name, store_writer), set[type]()

    def block() -> Any:
        with as_input_error(name):
            try:
                data = read()
            except (RLMError, OSError, ValueError):
                raise
            except Exception as error:
                raise InputError(f"cannot read {name}: its `read` raised {type(error).__name__}") from error
        if data is None:
            raise InputError(f"cannot read {name}: it has no data now, and is non-blocking")
        kinds.add(type(data))
        if not isinstance(data, str | bytes) or len(kinds) > 1:
            given = " and ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(f"cannot read {name}: its `read` returns {given}, not text or bytes")
        return data

    return block
