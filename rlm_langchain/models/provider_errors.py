"""Classifies the exceptions of any provider's SDK, without importing it.

SDKs differ in their classes but share habits: an HTTP status somewhere, a descriptive class name, a cause, the body
that the provider sent. A reply with status 200 may be an error too: its body is read as if it had its own status.
Of the text of an exception only the provider's message is passed on, without keys (`provider_words.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from rlm_langchain.models.provider_words import displayed_words, message_in_body, start_of

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
_NOT_SENT = re.compile(
    "Connect(Error|Timeout|or|ionRefused|ionTimeout)|PoolTimeout|gaierror|SSL|ProxyError|TooManyRedirects"
)
"""Class names of exceptions that are raised before a request is sent."""
_LOST: frozenset[ErrorCode] = frozenset({"timeout", "connection", "server_error"})

_BODY_STATUS: tuple[tuple[int, re.Pattern[str]], ...] = tuple(
    (status, re.compile(pattern, re.IGNORECASE))
    for status, pattern in (
        (402, r"insufficient[ _](quota|credit|balance|funds)|billing|credit balance|payment[ _]required"),
        (429, r"rate[ _-]?limit|too[ _]many[ _]requests|resource[ _]?exhausted|throttl|quota[ _]exceeded"),
        (401, r"authenticat|unauthori[sz]ed|invalid[ _](x-)?api[ _-]?key|incorrect api key"),
        (403, r"permission|forbidden|access[ _]denied"),
        (404, r"not[ _]?found|does not exist|unknown[ _]model"),
        (413, r"request[ _]too[ _]large|payload[ _]too[ _]large"),
        (529, r"overload|over[ _]capacity|at[ _]capacity|capacity[ _]exceeded|engine[ _]busy"),
        (
            503,
            r"(temporarily |service[ _]?)unavailable|^unavailable$|no healthy upstream|no[ _]available|try again",
        ),
        (504, r"time[ _-]?out|timed out|deadline[ _]exceeded"),
        (502, r"bad[ _]gateway|upstream|provider returned error"),
        (
            400,
            r"invalid[ _](request|argument|parameter|prompt|value)|bad[ _]?request|unsupported|context[ _]length"
            r"|content[ _]?(filter|policy)|moderation",
        ),
        (500, r"server[ _]?(had an )?error|internal|api[ _]error"),
    )
)
"""The HTTP status that an error in the body of a reply stands for, by its identifiers or else by its words."""
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|maximum (context|prompt|input)|reduce the length|n_ctx|max_model_len"
    r"|(prompt|inputs?|messages?|request)\b[^.]{0,60}\btoo (long|large)|exceed(s|ed)? max(imum)? (length|context)"
    r"|\b(input|prompt|tokens?( count)?)\b[^.]{0,60}\bexceed(s|ed)? (the )?(configured "
    r"|model'?s? )?(\w+ )?(limit|maximum)"
    r"|(input|prompt) tokens? exceed|too many (input |prompt )?tokens|exceeds? the maximum number of tokens"
    r"|total number of tokens in the request cannot exceed|model token limit|token limit exceeded"
    r"|\binputs?\b(?=.*tokens).{0,60}must (be|have) (<=?|less than|at most)"
    r"|range of input length|exceed_context|string_above_max_length|tokens to keep from the initial prompt"
    r"|context (the )?(overflow|exceed)|too long for",
    re.IGNORECASE,
)
_LONGER_THAN_ALLOWED = re.compile(
    r"\b(?=(inputs?|prompts?|requests?|messages?|conversation|sequence|tokens?)\b)"
    r"(?=.*(token|length|context|character|capacity))\w+[^.]{0,60}"
    r"\b(exceed(s|ed)?|(longer|greater|larger|more) than|too (long|big|large|many))\b"
    r"|(conversation|request|prompt|input|chat)\b[^.]{0,20}\btoo (long|big)|token_?limit_?exceed|max_seq_len"
    r"|only (supports?|accepts?|allows?|reads?) (up to )?\d[\d,_]* ?tokens|model only (supports?|accepts?) \d"
    r"|expected maxLength|(shorten|truncate) (your|the) (prompt|input|messages?|conversation)"
    r"|(输入|上下文|长度|tokens?)[^。]{0,20}(超|过长)",
    re.IGNORECASE | re.DOTALL,
)
"""Other words for a prompt that is too long. They may be about something else, which `_OF_ANOTHER_LIMIT` tells."""
_OF_ANOTHER_LIMIT = re.compile(
    r"max_(completion_|output_|new_)?tokens|\b(output|completion|response)\b|per (minute|hour|day)|\brate\b|quota"
    r"|\b(images?|tools?|functions?|schema|name|stop|temperature|logprobs)\b",
    re.IGNORECASE,
)
_WINDOW_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\d \+ \d[\d,_]*+ > (\d[\d,_]*)",  # prompt + cap > window
        r"[\"']?(?:n_ctx|max_model_len|max_seq_len)[\"']?\s*[:=(]\s*(\d[\d,_]*)",
        r"(?:context (?:length|window|size|limit)|(?:maximum|max) (?:context|prompt|input|model"
        r"|sequence)[\w ]{0,16}length"
        r"|token limit|prompt length)\b(?: of the model| of this model)?(?: is| of| to|:| =|=)*(?: only"
        r"| at most)?\s*"
        r"\(?(\d[\d,_]*)",
        r"(?<!\d)(?<!\d[,_])(\d[\d,_]*+)[ -]?(?:tokens? )?(?:maximum )?context (?:length|window|size|limit)",
        r"model with (\d[\d,_]*) maximum context",
        r"(?<!\d)(?<!\d[,_])\d[\d,_]*+ tokens? > (\d[\d,_]*)",
        r"\(\d[\d,_]*\) exceeds the maximum number of tokens allowed \((\d[\d,_]*)\)",
        r"(?:exceeds?|exceed(?:ed)?|cannot exceed|above|over|than|at most|<=?|limit is|limit of|limit:?"
        r"|maximum(?: is| of)?:?)"
        r"(?: the)?(?: configured)?(?: limit| maximum)?(?: of)?\s*(\d[\d,_]*)",
        r"only (?:supports?|accepts?|allows?|reads?) (?:up to )?(\d[\d,_]*)",
        r"range of input length should be \[\d+, ?(\d[\d,_]*)\]",
    )
)
"""Patterns for the context window in error messages. The most reliable come first."""
_OTHER_UNIT = re.compile(r"[\s-]?(bytes?|char|[kmg]i?b\b)", re.IGNORECASE)
"""After a number that is no number of tokens."""
MAX_OWN_TEXT = 200
"""Longest text of an exception, in characters, that is interpreted. A longer one may quote a reply."""
MIN_WINDOW = 256
"""Smallest number of tokens in an error message that is taken for a context window."""
_IDENTIFIER = re.compile(r"(?=.{1,40}$)[a-z]+(_[a-z]+)*")
_NO_REPLY = re.compile(
    r"null value for .?choices|No generation chunks were returned|No generations found in stream"
    r"|Unexpected response type|'(str|list|NoneType)' object has no attribute '(usage|choices|model_dump|content)'"
)
"""Errors that integrations raise for a response that contains no reply."""
_LOST_LOOP = re.compile(r"event loop is closed|attached to a different loop", re.IGNORECASE)
"""Errors of a client that has kept a connection of a closed event loop."""
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
    words: str = ""
    """The provider's message, unchanged. It may contain a key, so it is never displayed."""


class UnusableReply(Exception):
    """A response with status 200 that contains no reply: an error, a web page, nothing. It may have been billed."""

    def __init__(self, what: str, body: Any = None, code: ErrorCode = "server_error") -> None:
        self.what, self.code = what, code
        """Completes the sentence "its reply ..."."""
        self.body = body
        super().__init__(what)


def classify_error(error: BaseException, secrets: Iterable[str] = ()) -> ProviderError:
    """Return the classification of an exception and its causes. `secrets` are left out of the provider's words."""
    causes = list(_chain_of_causes(error))
    said = next((words for cause in causes if (words := _provider_message(cause))), "")
    status = next((found for cause in causes if (found := _status(cause)) is not None), None)
    after = next((wait for cause in causes if (wait := _retry_after(cause)) is not None), None)
    code = _code(causes, status)
    shown_status = [f"status {status}"] if status else []
    details = ", ".join([*shown_status, type(error).__name__, *(_body_identifiers(causes) if status else ())])
    # OpenRouter sends 402 with a time to wait when other requests in flight have reserved the money.
    retryable = code in RETRYABLE or (code == "no_credit" and status == 402 and after is not None)
    address = _address(causes) if code == "connection" else ""
    sentence = NOT_FOUND if status == 404 and code == "bad_request" else SENTENCES[code]
    unusable = next((f": its reply {cause.what}" for cause in causes if isinstance(cause, UnusableReply)), "")
    words = said or " ".join(start_of(str(cause)) for cause in causes if _status(cause) is not None)
    shown = f'; it says: "{displayed_words(said, secrets)}"' if said else ""
    return ProviderError(
        code,
        f"{sentence}{unusable}{address} ({details}){shown}",
        retryable,
        after,
        _arrival(causes, status),
        _usage(causes),
        words,
    )


def window_in(words: str) -> int | None:
    """Return the context window that a provider's message states, in tokens, or None."""
    for pattern in _WINDOW_PATTERNS:
        for found in pattern.finditer(start_of(words)):
            tokens = int(re.sub(r"\D", "", found[1]))
            if tokens >= MIN_WINDOW and not _OTHER_UNIT.match(found.string, found.end(1)):
                return tokens
    return None


def _arrival(causes: list[BaseException], status: int | None) -> Arrival:
    """Return whether there was a reply. Only class names decide: the text of an exception may quote a reply."""
    if any(_NOT_SENT.search(type(cause).__name__) for cause in causes):
        return "none"
    if any(isinstance(cause, UnusableReply) and cause.code == "bad_request" for cause in causes):
        return "none"
    if status is not None:
        refused = status < 500 or any(
            map(_is_status, (place for cause in causes for place in _response_statuses(cause)))
        )
        return "none" if refused else "unread"
    if any(isinstance(cause, UnusableReply) for cause in causes):
        return "unread"
    named = next((code for cause in causes if (code := _code_by_class(cause)) != "unknown"), "unknown")
    if named in _LOST:
        return "lost"
    return "unread" if named in ("unknown", "refused_by_provider") else "none"  # a refusal may be a billed reply


def _usage(causes: list[BaseException]) -> Any:
    """Return the `usage` object of an error's body, wherever the SDK keeps it."""
    for cause in causes:
        for body in _bodies(cause):
            if isinstance(body, dict) and body.get("usage"):
                return body["usage"]
    return None


def _bodies(cause: BaseException) -> Iterator[Any]:
    """Yield what an SDK may keep of the body that the provider sent."""
    yield vars(cause).get("body")
    yield _body(vars(cause).get("response"))
    yield from (argument for argument in cause.args[:1] if isinstance(argument, dict))


def _provider_message(cause: BaseException) -> str:
    """Return the provider's message, if an exception certainly contains one; empty for other exceptions."""
    if said := next((words for body in _bodies(cause) if (words := message_in_body(body))), ""):
        return said
    if isinstance(cause, UnusableReply) or _status(cause) is None:
        return ""
    attributes = vars(cause)
    texts = (getattr(attributes.get("response"), "text", None), attributes.get("error"), attributes.get("message"))
    return next((start_of(text) for text in texts if isinstance(text, str) and text.strip()), "")


def _body(response: Any) -> Any:
    """Return the body of an HTTP response, or None if it was not read or is not JSON."""
    try:
        return response.json()
    except Exception:  # noqa: BLE001 - no response, or of any class, or not read, or no JSON
        return None


def _chain_of_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and those that it was raised from. Integrations wrap the exceptions of their SDK."""
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


def _body_identifiers(causes: list[BaseException]) -> list[str]:
    """Return `code` and `param` of an error body in OpenAI's format. Only identifiers are passed on, so no key
    is."""
    for cause in causes:
        body = vars(cause).get("body")
        inner = body.get("error") if isinstance(body, dict) else None
        body = inner if isinstance(inner, dict) else body
        codes = [body.get("code"), body.get("param")] if isinstance(body, dict) else []
        if found := [name for name in codes if isinstance(name, str) and _IDENTIFIER.fullmatch(name)]:
            return found
    return []


def _code(causes: list[BaseException], status: int | None) -> ErrorCode:  # noqa: PLR0911 - one for each kind
    texts = " ".join(start_of(str(cause)) for cause in causes)
    words = texts if status is not None else " ".join(text for cause in causes if (text := _own_text(cause)))
    codes_and_bodies = (str(vars(cause).get(name)) for cause in causes for name in ("code", "body"))
    words = " ".join([words, *map(start_of, codes_and_bodies)])
    said = status if status is not None else _status_in_words(causes)
    if said in (400, 402, 403, 429, None) and _NO_CREDIT.search(words):
        return "no_credit"
    if said in (400, 413, 422, 500, None) and _says_too_long(words):
        return "too_long"
    if said in (400, 403, 422) and _REFUSED.search(words):
        return "refused_by_provider"
    if said is None and _LOST_LOOP.search(texts):
        return "connection"
    if any(type(cause).__name__ == "TooManyRedirects" for cause in causes):
        return "bad_request"
    if said is None and (unusable := next((one for one in causes if isinstance(one, UnusableReply)), None)):
        return unusable.code
    if said is None and _NO_REPLY.search(texts):
        return "server_error"
    if said is None:
        return next((code for cause in causes if (code := _code_by_class(cause)) != "unknown"), "unknown")
    return _STATUS.get(said, "server_error" if said >= 500 else "bad_request")


def _says_too_long(words: str) -> bool:
    if _TOO_LONG.search(words):
        return True
    return bool(_LONGER_THAN_ALLOWED.search(words)) and not _OF_ANOTHER_LIMIT.search(words)


def _status_in_words(causes: list[BaseException]) -> int | None:
    """Return the HTTP status that an error without one stands for.

    It is judged by the message in the error's body, or by the error's own text if its class is not informative.
    """
    for cause in causes:
        words = [said for body in _bodies(cause) if (said := message_in_body(body))]
        if not words and _code_by_class(cause) == "unknown":
            words = [_own_text(cause)]
        if (found := next((status for said in words if (status := _status_of_words(said))), None)) is not None:
            return found
    return None


def _own_text(cause: BaseException) -> str:
    """Return the text of an exception if it may be the provider's message, else an empty text.

    A long text of an uninformative class, or of an error in a program, may quote a reply.
    """
    text = str(cause)
    if isinstance(cause, UnusableReply) or (
        _code_by_class(cause) != "unknown" and type(cause).__module__ != "builtins"
    ):
        return start_of(text)
    return text if len(text) <= MAX_OWN_TEXT and not _is_bug(cause) else ""


def _is_bug(cause: BaseException) -> bool:
    """Return whether an exception shows a bug, such as `TypeError`. Integrations do not raise these."""
    return type(cause).__module__ == "builtins" and type(cause) not in (ValueError, RuntimeError, Exception)


def _status_of_words(text: str) -> int | None:
    return next((status for status, pattern in _BODY_STATUS if pattern.search(text)), None)


def _code_by_class(error: BaseException) -> ErrorCode:
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
    if type(error).__module__ == "aiohttp.http_exceptions":
        return  # a stream that broke off: aiohttp sets the code itself, no server sent it
    yield from _response_statuses(error)
    for body in _bodies(error):
        yield _status_of_body(body)
    yield getattr(error, "code", None)


def _status_of_body(body: Any) -> int | None:
    """Return the status that the body of a reply names, by a number or by an identifier."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, dict):
        return _status_of_body(error)
    named: list[Any] = [body.get(key) for key in ("code", "status", "error_code", "type")]
    for value in named:
        if _is_status(value) or (isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value)):
            return int(value)  # some gateways send it as a text
    return next((status for value in named if isinstance(value, str) and (status := _status_of_words(value))), None)


def _response_statuses(error: BaseException) -> Iterator[Any]:
    """Yield all values that may be the HTTP status of the response. A status in its body is not included."""
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
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value := str(headers.get("retry-after-ms") or "")):
        return float(value) / 1000
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
    """Return whether this is a signal of LangGraph. A model or retriever that is a graph may pause, and that is
    not a failure."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)
