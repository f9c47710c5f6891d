"""Prepares a provider's error message for display: without keys, shortened, on one line.

Covered: the keys in the environment of this process and in the chat model, and everything that looks like a key:
after `Bearer` and `Basic`, in headers, in URLs, with the prefixes of known providers, and any other long word of
letters and digits. Not covered: a secret that is a short word and that this process does not know.
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

MAX_SHOWN = 300
"""Characters of a provider's message that are displayed."""
MAX_READ = 4_000
"""Characters of a provider's message that are read. Some patterns take time that is the square of the length."""
MIN_SECRET_LENGTH = 8
"""Minimum length of a secret in characters. Shorter words may occur in any sentence."""
REDACTED = "***"
_SECRET_NAME = re.compile(r".*(key|token|secret|password|passwd|credential|authorization|cookie).*", re.IGNORECASE)
_KEY_PATTERNS = (
    (
        re.compile(
            r"(?i)\b(bearer|basic)(['\"]?[\s:=]+['\"]?)(?!(?:auth\w*|token|key|scheme|of|in|is)\b)[^\s'\",;]+"
        ),
        r"\1\2***",
    ),
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (
        # `x-api-key: ...`, `?key=...`, `"token": "..."`. "the api key is wrong" does not match: it has no : or =.
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
        REDACTED,
    ),
    (re.compile(r"(?<![\w+/-])(?=[\w+/-]*\d)(?=[\w+/-]*[A-Za-z])[\w+/-]{28,}={0,2}(?![\w+/-])"), REDACTED),
)
_KEY_CHARACTERS = string.ascii_letters + string.digits + "_.*~+/=-"
_WEB_PAGE = re.compile(r"(?is)^\s*(?:<!doctype|<html|<\?xml|<head|<body)")


def start_of(text: str) -> str:
    """Return the first `MAX_READ` characters of a text. A word at the cut is left out, because half a key would
    not be recognised."""
    return text if len(text) <= MAX_READ else f"{text[:MAX_READ].rstrip(_KEY_CHARACTERS)}..."


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the start of the text with `***` for everything that is or looks like a key, or is in `secrets`."""
    text = start_of(text)
    known = {*_environment_secrets(), *(secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    for pattern, replacement in _KEY_PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def displayed_words(words: str, secrets: Iterable[str] = ()) -> str:
    """Return a provider's message for display. For a web page, its title."""
    words = start_of(words)
    if _WEB_PAGE.match(words):
        title = re.search(r"(?is)<(title|h1)[^>]*>(.*?)</\1", words)
        words = f"a web page: {title[2].strip()}" if title else "a web page"
    plain = quotable(one_line(redact(" ".join(words.split()), secrets)))
    return plain if len(plain) <= MAX_SHOWN else f"{plain[:MAX_SHOWN]}..."


def log_failure(what: str, error: BaseException, secrets: Iterable[str] = ()) -> None:
    """Log an exception of foreign code at DEBUG with its traceback, for the author of that code. No model reads it.

    The keys are removed from the text, so log handlers do not get the exception itself.
    """
    logger = logging.getLogger(__name__)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s\n%s", what, redact("".join(traceback.format_exception(error)), secrets))


def message_in_body(body: Any) -> str:
    """Return the start of the message in the body of an error, wherever the provider puts it; empty if there is
    none."""
    if isinstance(body, str | bytes):
        return start_of(body[: 4 * MAX_READ].decode(errors="replace") if isinstance(body, bytes) else body)
    if isinstance(body, list):  # Google's
        return message_in_body(body[0]) if body else ""
    if not isinstance(body, Mapping):
        return ""
    if isinstance(place := body.get("loc"), list | tuple):  # FastAPI's
        return start_of(f"{'.'.join(map(str, place))}: {body.get('msg') or body.get('type')}")
    found = (message_in_body(body.get(name)) for name in ("error", "message", "detail", "msg", "error_description"))
    said = next((words for words in found if words), "")
    raw = (body.get("metadata") or {}).get("raw") if isinstance(body.get("metadata"), Mapping) else None
    quotes = said and isinstance(raw, str) and raw not in said  # OpenRouter's upstream
    return start_of(f"{said}: {raw}") if quotes else said


def secrets_of(chat: Any) -> set[str]:
    """Return the secrets of a model: in its fields, headers and URLs."""
    return {secret for secret in _secrets(getattr(chat, "__dict__", {}), 0) if len(secret) >= MIN_SECRET_LENGTH}


def _secrets(value: Any, depth: int) -> Iterator[str]:
    if depth > 4 or not isinstance(value, Mapping):
        return
    for name, value_of_field in value.items():
        if isinstance(value_of_field, SecretStr):
            yield value_of_field.get_secret_value()
        elif isinstance(value_of_field, Mapping):
            yield from _secrets(value_of_field, depth + 1)
        elif isinstance(value_of_field, str) and _SECRET_NAME.fullmatch(str(name)):
            yield from value_of_field.split()
        elif isinstance(value_of_field, str) and "@" in value_of_field and "://" in value_of_field:
            yield from value_of_field.partition("://")[2].rpartition("@")[0].split(":")


def _environment_secrets() -> set[str]:
    return {
        word
        for name, value in os.environ.items()
        if _SECRET_NAME.fullmatch(name)
        for word in value.split()
        if len(word) >= MIN_SECRET_LENGTH
    }
