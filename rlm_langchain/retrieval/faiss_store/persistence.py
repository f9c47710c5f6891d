"""Saves and loads a vector store: a file of FAISS, and the documents as JSON that names that file by its hash."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.documents import Document

from rlm_langchain.context.atomic import UNFINISHED, write_file
from rlm_langchain.context.file_hashes import hash_file
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.retrieval.extras import import_library
from rlm_langchain.retrieval.faiss_store.metadata import from_json_value, to_json_value, to_python_types

DOCUMENTS = "documents.json"
FORMAT = 3


class StoredDocument(NamedTuple):
    """A document of a store."""

    number: int
    """Number of its vector."""
    text: str
    metadata: dict[str, Any]

    def document(self, name: str) -> Document:
        """Return it as a LangChain document with this id. The caller may change the copy."""
        return Document(id=name, page_content=self.text, metadata=to_python_types(self.metadata))


def save(folder: Path, index: Any, documents: dict[str, StoredDocument], next_number: int) -> None:
    """Write both files, the JSON last and in one step, so that the folder always holds a complete store."""
    with _as_journal_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        vectors = _write_vectors(folder, index)
        rows = [
            [name, one.number, one.text, _metadata_to_json(name, one.metadata)] for name, one in documents.items()
        ]
        content = {"vectors": vectors, "next": next_number, "documents": rows}
        write_file(folder / DOCUMENTS, _encode({"format": FORMAT, "sha256": _checksum(content), **content}))
        for old in folder.glob("vectors-*.faiss"):
            if old.name != f"vectors-{vectors}.faiss":
                with suppress(OSError):
                    old.unlink()


def load(folder: Path) -> tuple[Any, dict[str, StoredDocument], int]:
    """Return the index, the documents by id, and the number of the next vector. Raises `JournalError`."""
    try:
        content = json.loads((folder / DOCUMENTS).read_bytes())
        if content["format"] != FORMAT:
            raise JournalError(
                f"the vector store in {folder} is of another version of rlm-langchain (format "
                f"{content['format']!r}, not {FORMAT}): use that version, or build the store again from its "
                "documents"
            )
        if content["sha256"] != _checksum(
            {key: content[key] for key in content if key not in ("format", "sha256")}
        ):
            raise _damaged_error(folder)
        documents = {
            name: StoredDocument(number, text, dict(from_json_value(value)))
            for name, number, text, value in content["documents"]
        }
        next_number, vectors = int(content["next"]), content["vectors"]
        index = None if vectors is None else _read_vectors(folder / f"vectors-{vectors}.faiss", vectors)
    except OSError as error:
        raise JournalError(f"there is no complete vector store in {folder}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise _damaged_error(folder) from error
    if _numbers(index) != sorted(one.number for one in documents.values()):
        raise _damaged_error(folder)
    return index, documents, next_number


def _write_vectors(folder: Path, index: Any) -> str | None:
    """Write the vectors to a file that is named by its SHA-256, and return that. None: there are no vectors."""
    if index is None:
        return None
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder)
    os.close(handle)
    try:
        import_library("faiss").write_index(index, name)
        sha256 = hash_file(Path(name))
        os.replace(name, folder / f"vectors-{sha256}.faiss")
    finally:
        Path(name).unlink(missing_ok=True)
    return sha256


def _read_vectors(path: Path, sha256: str) -> Any:
    """Read the vectors. The hash is checked first, because FAISS trusts what it reads. Raises `JournalError`."""
    if hash_file(path) != sha256:
        raise _damaged_error(path.parent)
    return import_library("faiss").read_index(str(path))


def _numbers(index: Any) -> list[int]:
    """Return the numbers of the vectors in an index, sorted."""
    return [] if index is None else sorted(import_library("faiss").vector_to_array(index.id_map).tolist())


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of the content, which does not depend on the layout of the JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _metadata_to_json(name: str, metadata: dict[str, Any]) -> Any:
    try:
        return to_json_value(metadata)
    except InputError as error:
        raise InputError(f"the metadata of document {name!r} cannot be saved: {error}") from error


def _encode(content: dict[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # half of a surrogate pair, which UTF-8 cannot encode
        raise InputError(f"the vector store holds text that cannot be saved: {error}") from error


def _damaged_error(folder: Path) -> JournalError:
    return JournalError(
        f"the vector store in {folder} is damaged or was changed: build it again from its documents"
    )


@contextmanager
def _as_journal_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(f"the vector store cannot be saved in {folder}: {error.strerror}") from error
