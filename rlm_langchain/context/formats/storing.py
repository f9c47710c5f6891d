"""Stores what a file becomes, and finds it again by the hash of the file and the version of the reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

from rlm_langchain.context import describe
from rlm_langchain.context.blobs import Blob
from rlm_langchain.context.decoding import replace_surrogates
from rlm_langchain.context.file_hashes import hash_stream
from rlm_langchain.context.formats.detect import format_of
from rlm_langchain.context.formats.parsed import (
    PACKAGES,
    AsText,
    Parsed,
    Reading,
    SourceFile,
    TooLong,
    Unreadable,
    dumps,
    with_article,
)
from rlm_langchain.context.formats.table import FORMATS, misread, read_as, too_long
from rlm_langchain.context.images import Images
from rlm_langchain.context.reference import StoreWriter, with_images, with_notes
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.types import ContextRef

FIRST_CHARS, LAST_CHARS = 200, 90
"""Characters of a preview: of the beginning, and of the last item."""


def file_reference(file: SourceFile, name: str, note: str, store_writer: StoreWriter) -> ContextRef | AsText:
    """Return a reference to what a file becomes, or that it is a text.

    `name` is for errors, `note` says where it came from. Raises `InputError` and `MissingDependency`.
    """
    try:
        key = format_of(file)
        return AsText() if key is None else _found_or_stored(file, key, name, note, store_writer)
    except Unreadable as error:
        raise error.named(name) from error


def reading(store_writer: StoreWriter, name: str) -> Reading:
    """Return how files are read for a store."""
    images = Images(store_writer.images)
    return Reading(images, strict=store_writer.strict, check=lambda: store_writer.seconds_left(name))


def _found_or_stored(
    file: SourceFile, key: str, name: str, note: str, store_writer: StoreWriter
) -> ContextRef | AsText:
    blobs = store_writer.blobs
    sha256 = hash_stream(file.blocks())
    place = blobs.path(sha256).with_name(f"{sha256}.{_edition(key, strict=store_writer.strict)}")
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(place.read_bytes())
        if "text" in found:
            return AsText(found["text"])
        count, ids, written_of = found["images"]
        has_images = all(map(store_writer.images.touch, ids))
        if (
            has_images
            and (not count or written_of == file.name)
            and blobs.reuse(Blob(found["sha256"], found["size"], b""))
        ):
            return _with_note(found, note)
    made = _stored(file, key, store_writer)
    said = [made.note] if isinstance(made, AsText) else made["notes"]
    if any(said) and store_writer.strict:
        raise InputError(f"{name}: {said[0]}, which `strict` refuses: put it right, or leave out `strict`")
    with suppress(OSError):  # without this it is read once more, nothing worse
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_text(json.dumps({"text": made.note} if isinstance(made, AsText) else made))
    return made if isinstance(made, AsText) else _with_note(made, note)


def _edition(key: str, *, strict: bool) -> str:
    """Return what the result depends on besides the file: the reader, options, and packages that are missing."""
    return "-".join(filter(None, (key, str(FORMATS[key].version), "strict" if strict else "", *_missing())))


@cache
def _missing() -> tuple[str, ...]:
    return tuple(module for module in PACKAGES if find_spec(module) is None)


def _with_note(made: dict[str, Any], note: str) -> ContextRef:
    """Return the reference, with where it came from and what was left out in its description."""
    ref = ContextRef(
        sha256=made["sha256"],
        kind=made["kind"],
        type=made["type"],
        length=made["length"],
        size=made["size"],
        about=describe.join_parts(made["about"], note),
        preview=made["preview"],
    )
    return with_notes(with_images(ref, made["images"][0]), made["notes"])


def _stored(file: SourceFile, key: str, store_writer: StoreWriter) -> dict[str, Any] | AsText:
    """Read a file into the store. Return the fields of a reference, with notes, or that it is a text."""
    parsed = read_as(file, key)
    if isinstance(parsed, AsText):
        return parsed
    try:
        with store_writer.blobs.writer() as writer:
            for data in _utf8(parsed) if parsed.shape == "str" else parsed.json():
                file.reading.check()
                writer.write(data)
            if not parsed.count:
                return _empty(parsed, FORMATS[key].is_text)
            blob = writer.commit()
    except TooLong:
        return too_long(file, FORMATS[key])
    except (RLMError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - as in `read_as`, of a reader that reads while it is asked for more
        return misread(key, error)
    is_text = parsed.shape == "str"
    return {
        "sha256": blob.sha256,
        "kind": "text" if is_text else "json",
        "type": parsed.shape,
        "length": parsed.count,
        "size": blob.size,
        "about": about(parsed, blob.size),
        "preview": describe.preview_of_bytes(blob.head) if is_text else _preview(parsed, blob),
        "notes": parsed.notes,
        "images": [file.reading.images.count, [*file.reading.images.ids], file.name],  # handles have names, too
    }


def _empty(parsed: Parsed, is_text: bool) -> AsText:
    if is_text:
        return AsText(f"there is no {parsed.noun} in it, so it is read as text")
    raise Unreadable(parsed.kind, "empty", "there is nothing to ask about")


def _utf8(parsed: Parsed) -> Iterator[bytes]:
    for piece in (parsed.value,) if isinstance(parsed.value, str) else parsed.value:
        text, _ = replace_surrogates(piece)
        parsed.count += len(text)
        yield text.encode()


def about(parsed: Parsed, size: int) -> str:
    """Return `list of 1,200 rows of a CSV table (about 12,000 tokens as JSON); ...`."""
    details = parsed.details if isinstance(parsed.details, str) else parsed.details()
    if parsed.shape == "str":
        first = describe.describe_text(parsed.count, size, f"from {with_article(parsed.kind)}")
    else:
        items = f"{parsed.shape} of {describe.count(parsed.count, parsed.noun)}"
        first = f"{items}, {parsed.kind} ({describe.tokens(size)} as JSON)"
    return describe.join_parts(first, details)


def _preview(parsed: Parsed, blob: Blob) -> str:
    """Return the beginning of the JSON, and the last item of a list."""
    head = describe.preview_of_bytes(blob.head)
    if parsed.shape != "list" or blob.size <= describe.PREVIEW_CHARS or parsed.last is None:
        return head
    return f"{head[:FIRST_CHARS]}\n... the last: {describe.preview(dumps(parsed.last))[:LAST_CHARS]}"
