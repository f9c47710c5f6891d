"""What a provider says of an error, in its own words, so that a person can read it: without keys, cut, on one line.

Covered: the keys that this process has in its environment and in the chat model, and what looks like a key of any
provider: after `Bearer` and `Basic`, in headers, in URLs, by the prefixes that providers give theirs, and any other
long word of letters and digits. Not covered: a secret that is a short word which nobody has told us.
"""

from __future__ import annotations

import logging
import os
import re
import string
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from rlm_langchain.context.sanitize import one_line, quotable

MOST = 300
"""Characters of a provider's words that are shown."""
MOST_READ = 4_000
"""Characters of a provider's words that are read. Some patterns take the square of the length of what they read."""
SHORTEST_SECRET = 8
"""Least characters of a secret. Shorter words may occur in any sentence."""
HIDDEN = "***"
_SECRET_NAME = re.compile(r".*(key|token|secret|password|passwd|credential|authorization|cookie).*", re.IGNORECASE)
_KEYS = (
    (
        re.compile(
            r"(?i)\b(bearer|basic)(['\"]?[\s:=]+['\"]?)(?!(?:auth\w*|token|key|scheme|of|in|is)\b)[^\s'\",;]+"
        ),
        r"\1\2***",
    ),
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (
        # `x-api-key: ...`, `?key=...`, `"token": "..."`. A sentence such as "the api key is wrong" has no sign.
        re.compile(
            r"(?i)((?:(?<![\w-])[\w-]*(?:api[-_ ]?key|apikey|token|secret|password|authorization|cookie)"
            r"|[?&][\w-]*key|\bkey)"
            r"['\"]?(?:\s+provided)?\s*[:=]\s*['\"]?)(?!\s|(?:bearer|basic)\b)[^\s'\",;&}]{4,}"
        ),
        r"\1***",
    ),
    (
        re.compile(
            r"\b(?:sk|pk|rk|gsk|hf|xai|pplx|r8|nvapi|gh[pousr]|glpat|csk|fw|tgp|dop_v1)[-_][\w.*-]{5,}"
            r"|\b(?:AIza|AKIA|ASIA|eyJ|ya29\.)[\w.*-]{8,}"
            r"|\b(?:key|api|org|proj|co)[-_](?=[\w.*-]*[\d*])[\w.*-]{6,}"
        ),
        HIDDEN,
    ),
    (re.compile(r"(?<![\w+/-])(?=[\w+/-]*\d)(?=[\w+/-]*[A-Za-z])[\w+/-]{28,}={0,2}(?![\w+/-])"), HIDDEN),
)
_OF_KEYS = string.ascii_letters + string.digits + "_.*~+/=-"
_PAGE = re.compile(r"(?is)^\s*(?:<!doctype|<html|<\?xml|<head|<body)")


def start_of(text: str) -> str:
    """As much of a provider's text as is read. A word that the cut goes through is left out: half a key does not
    look like one."""
    return text if len(text) <= MOST_READ else f"{text[:MOST_READ].rstrip(_OF_KEYS)}..."


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """The start of the text, without what is, or looks like, a key. `secrets` are further ones that are known."""
    text = start_of(text)
    known = {*_of_environment(), *(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _KEYS:
        text = pattern.sub(instead, text)
    return text


def shown_words(words: str, secrets: Iterable[str] = ()) -> str:
    """A provider's words as a message may hold them. Of a web page, the title."""
    words = start_of(words)
    if _PAGE.match(words):
        title = re.search(r"(?is)<(title|h1)[^>]*>(.*?)</\1", words)
        words = f"a web page: {title[2].strip()}" if title else "a web page"
    plain = quotable(one_line(scrub(" ".join(words.split()), secrets)))
    return plain if len(plain) <= MOST else f"{plain[:MOST]}..."


def log_failure(what: str, error: BaseException, secrets: Iterable[str] = ()) -> None:
    """Log what foreign code raised, at DEBUG, with its traceback: for who wrote that code, and never for a model.

    The keys are left out, so it is text: handlers get no exception.
    """
    logger = logging.getLogger(__name__)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s\n%s", what, scrub("".join(traceback.format_exception(error)), secrets))


def words_of_body(body: Any) -> str:
    """The start of what the body of an error says in words: its message, wherever providers put that; nothing, if
    it has none."""
    if isinstance(body, str | bytes):
        return start_of(body[: 4 * MOST_READ].decode(errors="replace") if isinstance(body, bytes) else body)
    if isinstance(body, list):  # Google's
        return words_of_body(body[0]) if body else ""
    if not isinstance(body, Mapping):
        return ""
    if isinstance(place := body.get("loc"), list | tuple):  # FastAPI's
        return start_of(f"{'.'.join(map(str, place))}: {body.get('msg') or body.get('type')}")
    found = (words_of_body(body.get(name)) for name in ("error", "message", "detail", "msg", "error_description"))
    said = next((words for words in found if words), "")
    raw = (body.get("metadata") or {}).get("raw") if isinstance(body.get("metadata"), Mapping) else None
    quotes = said and isinstance(raw, str) and raw not in said  # OpenRouter's upstream
    return start_of(f"{said}: {raw}") if quotes else said


def secrets_of(chat: Any) -> set[str]:
    """The secrets that a model was given, in fields, in headers and in URLs."""
    return {secret for secret in _secrets(getattr(chat, "__dict__", {}), 0) if len(secret) >= SHORTEST_SECRET}


def _secrets(value: Any, depth: int) -> Iterator[str]:
    if depth > 4 or not isinstance(value, Mapping):
        return
    for name, held in value.items():
        if isinstance(held, SecretStr):
            yield held.get_secret_value()
        elif isinstance(held, Mapping):
            yield from _secrets(held, depth + 1)
        elif isinstance(held, str) and _SECRET_NAME.fullmatch(str(name)):
            yield from held.split()
        elif isinstance(held, str) and "@" in held and "://" in held:
            yield from held.partition("://")[2].rpartition("@")[0].split(":")


def _of_environment() -> set[str]:
    return {
        word
        for name, value in os.environ.items()
        if _SECRET_NAME.fullmatch(name)
        for word in value.split()
        if len(word) >= SHORTEST_SECRET
    }
