"""What went wrong with a model call, read from any provider's exception without importing the provider.

SDKs differ in their classes and agree in their habits: a status somewhere, a telling class name, a cause. The
words of an exception are looked at to tell one fault from another, and never passed on: they can hold keys,
headers and URLs.
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
    "rate_limited": "the provider limits how often it may be asked",
    "timeout": "the provider did not reply in time",
    "connection": "the connection to the provider failed",
    "server_error": "the provider's server failed",
    "refused_by_provider": "the provider refuses to answer this prompt",
    "auth": "the provider does not accept the key, or the key may not use this model",
    "no_credit": "the provider wants to be paid: the account has no credit or quota left",
    "too_long": "the prompt is longer than the model can read",
    "bad_request": "the provider rejects the request",
    "unknown": "the model, or its provider, failed in a way that is not known",
}
NOT_FOUND = "the provider does not know this model, or there is nothing at its address"
PASSING: frozenset[ErrorCode] = frozenset({"rate_limited", "timeout", "connection", "server_error"})
"""Faults that may be gone when the same is asked again."""

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
"""`none`: an error came back, or nothing was sent. `lost`: a reply, on its way. `unread`: one that is not one, such
as a failure in the middle of the work, which is in the body of a reply whose own status is 200."""
_NOT_SENT = re.compile("Connect(Error|Timeout|or|ionRefused|ionTimeout)|PoolTimeout|gaierror|SSL|ProxyError")
"""Names of exceptions that are raised before a request is sent."""
_LOST: frozenset[ErrorCode] = frozenset({"timeout", "connection", "server_error"})

_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|maximum context|reduce the length|n_ctx"
    r"|(prompt|input|messages?)\b[^.]{0,40}\btoo (long|large)"
    r"|(input|prompt) tokens? exceed|too many (input |prompt )?tokens|exceeds? the maximum number of tokens",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"(?=.{1,40}$)[a-z]+(_[a-z]+)*")
_LOST_LOOP = re.compile(r"event loop is closed|attached to a different loop", re.IGNORECASE)
"""A client has kept a connection of an event loop that is over."""
_NO_CREDIT = re.compile(r"insufficient[ _](quota|credit|balance|funds)|credit balance is too low", re.IGNORECASE)
_REFUSED = re.compile(
    r"content[ _]?(filter|policy|management)|moderation|flagged|ResponsibleAI|safety", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ProviderError:
    """What went wrong, and whether to try again."""

    code: ErrorCode
    message: str
    """Words of ours, with a status and a class name."""
    retryable: bool
    """Whether it may be gone when the same is asked again."""
    retry_after: float | None = None
    """Seconds that the provider asks to wait."""
    arrival: Arrival = "none"
    """What came back, and may have to be paid."""
    usage: Any = None
    """What the body of an error says was used."""


def classify_error(error: BaseException) -> ProviderError:
    """The fault behind an exception."""
    causes = list(_causes(error))
    status = next((found for cause in causes if (found := _status(cause)) is not None), None)
    after = next((wait for cause in causes if (wait := _after(cause)) is not None), None)
    code = _code(causes, status)
    told = [f"status {status}"] if status else []
    where = ", ".join([*told, type(error).__name__, *(_named_by_the_provider(causes) if status else ())])
    # OpenRouter sends 402 with a time to wait when money is only reserved, by other requests in flight.
    passing = code in PASSING or (code == "no_credit" and status == 402 and after is not None)
    place = _place(causes) if code == "connection" else ""
    sentence = NOT_FOUND if status == 404 else SENTENCES[code]
    return ProviderError(
        code, f"{sentence}{place} ({where})", passing, after, _arrival(causes, status), _usage(causes)
    )


def _arrival(causes: list[BaseException], status: int | None) -> Arrival:
    """Whether there was a reply. Only classes tell: the words of an exception may be those of a reply."""
    if any(_NOT_SENT.search(type(cause).__name__) for cause in causes):
        return "none"
    if status is not None:
        refused = status < 500 or any(map(_is_status, (place for cause in causes for place in _of_response(cause))))
        return "none" if refused else "unread"
    named = next((code for cause in causes if (code := _named(cause)) != "unknown"), "unknown")
    if named in _LOST:
        return "lost"
    return "unread" if named in ("unknown", "refused_by_provider") else "none"  # a refusal may be a reply, too


def _usage(causes: list[BaseException]) -> Any:
    """The `usage` of an error's body, wherever this SDK keeps it."""
    for cause in causes:
        for body in (vars(cause).get("body"), _body(vars(cause).get("response")), *cause.args[:1]):
            if isinstance(body, dict) and body.get("usage"):
                return body["usage"]
    return None


def _body(response: Any) -> Any:
    """The body of an HTTP response, when it was read and is JSON."""
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


def _place(causes: list[BaseException]) -> str:
    """Where the provider was looked for: no more of its URL than that, since the rest may hold a key."""
    urls = (getattr(vars(cause).get("request"), "url", None) for cause in causes)
    found = next((urlsplit(str(url)) for url in urls if url is not None), None)
    if found is None or not found.hostname:
        return ""
    return f", at {found.scheme}://{found.netloc.rpartition('@')[2]}"


def _named_by_the_provider(causes: list[BaseException]) -> list[str]:
    """What OpenAI's form of an error calls the fault and the parameter. A key is no such word."""
    for cause in causes:
        body = vars(cause).get("body")
        given = [body.get("code"), body.get("param")] if isinstance(body, dict) else []
        if found := [name for name in given if isinstance(name, str) and _IDENTIFIER.fullmatch(name)]:
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
    """What the names of an exception's classes tell, the most special class first."""
    for kind in type(error).__mro__:
        for pattern, code in _NAMES:
            if re.search(pattern, kind.__name__):
                return code
    return "unknown"


def _status(error: BaseException) -> int | None:
    """The HTTP status, wherever this SDK keeps it."""
    return next((place for place in _places(error) if _is_status(place)), None)


def _places(error: BaseException) -> Iterator[Any]:
    yield from _of_response(error)
    if error.args and isinstance(body := error.args[0], dict):  # OpenRouter, in the body of a reply with status 200
        yield body.get("code")
    yield getattr(error, "code", None)


def _of_response(error: BaseException) -> Iterator[Any]:
    """The places for the status of the response itself, rather than for one that is named in its body."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status_code", "http_status", "status"):
            yield getattr(holder, name, None)
    if isinstance(response, dict):  # boto
        yield response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def _is_status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _after(error: BaseException) -> float | None:
    """What `Retry-After` says, in seconds from now: it may be a number or a date."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    said = str(headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - _now(headers))
    except (ValueError, OverflowError):
        return None


def _now(headers: Mapping[str, Any]) -> float:
    """By the clock of the server that names a time, when it tells: ours may be wrong, or jump."""
    try:
        return parsedate_to_datetime(str(headers.get("date") or headers.get("Date"))).timestamp()
    except (ValueError, OverflowError):
        return time.time()
