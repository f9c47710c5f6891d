"""Classifies the exceptions of any provider's SDK, without importing it.

SDKs differ in their classes but share habits: an HTTP status somewhere, a descriptive class name, a cause. The text
of an exception is only used to classify it. It is never passed on: it can hold keys, headers and URLs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

ErrorCode = Literal[
    "rate_limited",
    "timeout",
    "connection",
    "server_error",
    "refused_by_provider",
    "auth",
    "no_credit",
    "too_long",
    "bad_request",
    "unknown",
]

SENTENCES: dict[ErrorCode, str] = {
    "rate_limited": "the provider's rate limit was reached",
    "timeout": "the provider did not reply in time",
    "connection": "the connection to the provider failed",
    "server_error": "the provider's server failed",
    "refused_by_provider": "the provider refused to answer this prompt",
    "auth": "the provider does not accept the key, or the key may not use this model",
    "no_credit": "the provider account has no credit or quota left",
    "too_long": "the prompt is longer than the model can read",
    "bad_request": "the provider rejected the request",
    "unknown": "the model or its provider failed with an unknown error",
}
NOT_FOUND = "the provider does not know this model, or nothing answers at its address"
RETRYABLE: frozenset[ErrorCode] = frozenset({"rate_limited", "timeout", "connection", "server_error"})
"""Errors that may not occur when the request is sent again."""

_STATUS: dict[int, ErrorCode] = {
    401: "auth",
    402: "no_credit",
    403: "auth",
    408: "timeout",
    409: "server_error",
    413: "too_long",
    425: "server_error",
    429: "rate_limited",
    451: "refused_by_provider",
}
_NAMES: tuple[tuple[str, ErrorCode], ...] = (
    ("Timeout|DeadlineExceeded", "timeout"),
    ("RateLimit|Throttl|TooManyRequests|ResourceExhausted", "rate_limited"),
    ("ContextOverflow|ContextWindowExceeded", "too_long"),
    ("Authentication|PermissionDenied|Unauthorized|Forbidden|Credentials", "auth"),
    ("Refusal|ContentFilter|ContentPolicy", "refused_by_provider"),
    (
        "Connect|Network|ReadError|WriteError|ProtocolError|Disconnected|Payload|gaierror|SSLError",
        "connection",
    ),
    ("InternalServer|ServiceUnavailable|Overloaded|JSONDecode", "server_error"),
    ("BadRequest|InvalidRequest|NotFound", "bad_request"),
)
Arrival = Literal["none", "lost", "unread"]
"""Whether there was a reply. `none`: an error came back, or nothing was sent. `lost`: the reply did not arrive.
`unread`: it arrived and could not be parsed, or it has status 200 and a failure in its body."""
_NOT_SENT = re.compile("Connect(Error|Timeout|or|ionRefused|ionTimeout)|PoolTimeout|gaierror|SSL|ProxyError")
"""Class names of exceptions that are raised before a request is sent."""
_LOST: frozenset[ErrorCode] = frozenset({"timeout", "connection", "server_error"})

_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|maximum context|reduce the length|n_ctx"
    r"|(prompt|input|messages?)\b[^.]{0,40}\btoo (long|large)"
    r"|(input|prompt) tokens? exceed|too many (input |prompt )?tokens|exceeds? the maximum number of tokens",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"(?=.{1,40}$)[a-z]+(_[a-z]+)*")
_LOST_LOOP = re.compile(r"event loop is closed|attached to a different loop", re.IGNORECASE)
"""Errors of a client that kept a connection of an event loop that has ended."""
_NO_CREDIT = re.compile(r"insufficient[ _](quota|credit|balance|funds)|credit balance is too low", re.IGNORECASE)
_REFUSED = re.compile(
    r"content[ _]?(filter|policy|management)|moderation|flagged|ResponsibleAI|safety", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ProviderError:
    """A classified exception: what went wrong, and whether to retry."""

    code: ErrorCode
    message: str
    """Message of this library, with the HTTP status and the class name of the exception."""
    retryable: bool
    """Whether the error is temporary."""
    retry_after: float | None = None
    """Seconds that the provider asks to wait."""
    arrival: Arrival = "none"
    """Whether there was a reply, which may have to be paid for."""
    usage: Any = None
    """The `usage` object in the body of the error, if it has one."""


def classify_error(error: BaseException) -> ProviderError:
    """Return the classification of an exception and its causes."""
    causes = list(_causes(error))
    status = next((found for cause in causes if (found := _status(cause)) is not None), None)
    after = next((wait for cause in causes if (wait := _retry_after(cause)) is not None), None)
    code = _code(causes, status)
    shown_status = [f"status {status}"] if status else []
    details = ", ".join([*shown_status, type(error).__name__, *(_provider_codes(causes) if status else ())])
    # OpenRouter sends 402 with a time to wait when other requests in flight have reserved the money.
    retryable = code in RETRYABLE or (code == "no_credit" and status == 402 and after is not None)
    address = _address(causes) if code == "connection" else ""
    sentence = NOT_FOUND if status == 404 else SENTENCES[code]
    return ProviderError(
        code, f"{sentence}{address} ({details})", retryable, after, _arrival(causes, status), _usage(causes)
    )


def _arrival(causes: list[BaseException], status: int | None) -> Arrival:
    """Return whether there was a reply. Only class names decide: the text of an exception may quote a reply."""
    if any(_NOT_SENT.search(type(cause).__name__) for cause in causes):
        return "none"
    if status is not None:
        refused = status < 500 or any(map(_is_status, (place for cause in causes for place in _of_response(cause))))
        return "none" if refused else "unread"
    named = next((code for cause in causes if (code := _named(cause)) != "unknown"), "unknown")
    if named in _LOST:
        return "lost"
    return "unread" if named in ("unknown", "refused_by_provider") else "none"  # a refusal may be a billed reply


def _usage(causes: list[BaseException]) -> Any:
    """Return the `usage` object of an error's body, wherever the SDK keeps it."""
    for cause in causes:
        for body in (vars(cause).get("body"), _body(vars(cause).get("response")), *cause.args[:1]):
            if isinstance(body, dict) and body.get("usage"):
                return body["usage"]
    return None


def _body(response: Any) -> Any:
    """Return the body of an HTTP response, or None if it was not read or is not JSON."""
    try:
        return response.json()
    except Exception:  # noqa: BLE001 - no response, or of any class, or not read, or no JSON
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those it was raised from: integrations wrap what their SDK raised."""
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _address(causes: list[BaseException]) -> str:
    """Return scheme and host of the provider, for the message. The rest of the URL may hold a key."""
    urls = (getattr(vars(cause).get("request"), "url", None) for cause in causes)
    found = next((urlsplit(str(url)) for url in urls if url is not None), None)
    if found is None or not found.hostname:
        return ""
    return f", at {found.scheme}://{found.netloc.rpartition('@')[2]}"


def _provider_codes(causes: list[BaseException]) -> list[str]:
    """Return `code` and `param` of an error body in OpenAI's format. Only identifiers are passed on, so no key
    is."""
    for cause in causes:
        body = vars(cause).get("body")
        codes = [body.get("code"), body.get("param")] if isinstance(body, dict) else []
        if found := [name for name in codes if isinstance(name, str) and _IDENTIFIER.fullmatch(name)]:
            return found
    return []


def _code(causes: list[BaseException], status: int | None) -> ErrorCode:
    words = " ".join(f"{cause} {vars(cause).get('code')} {vars(cause).get('body')}" for cause in causes)
    if status in (400, 402, 403, 429, None) and _NO_CREDIT.search(words):
        return "no_credit"
    if status in (400, 413, 422, 500, None) and _TOO_LONG.search(words):
        return "too_long"
    if status in (400, 403, 422) and _REFUSED.search(words):
        return "refused_by_provider"
    if status is None and _LOST_LOOP.search(words):
        return "connection"
    if status is None:
        return next((code for cause in causes if (code := _named(cause)) != "unknown"), "unknown")
    return _STATUS.get(status, "server_error" if status >= 500 else "bad_request")


def _named(error: BaseException) -> ErrorCode:
    """Return the code that the names of an exception's classes imply, the most derived class first."""
    for kind in type(error).__mro__:
        for pattern, code in _NAMES:
            if re.search(pattern, kind.__name__):
                return code
    return "unknown"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status, wherever the SDK keeps it."""
    return next((value for value in _status_candidates(error) if _is_status(value)), None)


def _status_candidates(error: BaseException) -> Iterator[Any]:
    yield from _of_response(error)
    if error.args and isinstance(body := error.args[0], dict):  # OpenRouter, in the body of a reply with status 200
        yield body.get("code")
    yield getattr(error, "code", None)


def _of_response(error: BaseException) -> Iterator[Any]:
    """Yield the places for the status of the response itself, rather than for one that is named in its body."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status_code", "http_status", "status"):
            yield getattr(holder, name, None)
    if isinstance(response, dict):  # boto
        yield response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _retry_after(error: BaseException) -> float | None:
    """Return the value of `Retry-After`, a number or a date, in seconds from now."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    value = str(headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - _server_time(headers))
    except (ValueError, OverflowError):
        return None


def _server_time(headers: Mapping[str, Any]) -> float:
    """Return the current time by the server's clock, if it sends a `Date`: the local clock may be wrong."""
    try:
        return parsedate_to_datetime(str(headers.get("date") or headers.get("Date"))).timestamp()
    except (ValueError, OverflowError):
        return time.time()


def is_graph_signal(error: BaseException) -> bool:
    """Whether LangGraph is at work: a model or retriever that is itself a graph may pause, which is no failure."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)
