"""The weights from the Hugging Face hub, or the mirror that `HF_ENDPOINT` names. Goes on where it was cut off."""

from __future__ import annotations

import os
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rlm_langchain.local.progress import Progress
from rlm_langchain.local.weights import CHUNK, Unavailable, Weights

SECONDS = 8.0
"""Of silence, when connecting and between bytes: a hub that is out of reach must not hold the next source up."""
FRUITLESS = 3
"""Requests in a row that bring nothing."""


def fetch(weights: Weights, folder: Path, progress: Progress) -> Path:
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
