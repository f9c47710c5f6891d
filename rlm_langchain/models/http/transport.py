"""HTTP clients for models chosen by name. They hold no connections; each request uses the running loop's pool.

Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`, ...). Not covered: SOCKS, `.netrc`.

A server that rejects a request may repeat the key that it was sent. The key is removed from error responses here,
before an SDK puts them into an exception that callbacks, traces and logs can see.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx2
from yarl import URL

from rlm_langchain.models.http.pool import Pool, pool_of_loop
from rlm_langchain.models.http.renamed import RENAMED_PARAMETERS
from rlm_langchain.models.provider_errors import ErrorCode, UnusableReply
from rlm_langchain.models.provider_words import MIN_SECRET_LENGTH

__all__ = ["async_client", "sync_client"]

CHUNK = 1 << 16
"""Most bytes of a streamed response that are read at once."""


@cache
def async_client() -> httpx2.AsyncClient:
    """Return the client that a model takes as `http_async_client`. It holds nothing and needs no closing."""
    return httpx2.AsyncClient(transport=_LoopTransport(), cookies=_no_cookies(), follow_redirects=True)


@cache
def sync_client() -> httpx2.Client:
    """Return the client that a model takes as `http_client`. It reads certificates at its first request."""
    return httpx2.Client(transport=_LazyTransport(), cookies=_no_cookies(), follow_redirects=True)


def _no_cookies() -> CookieJar:
    """Return a cookie jar that accepts no cookies: a client is shared by models of different providers and keys."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class _LoopTransport(httpx2.AsyncBaseTransport):
    """Sends each request through the connection pool of the running event loop."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        pool = await pool_of_loop()
        pool.busy += 1
        try:
            with _as_httpx_errors(request):
                response = await _send(pool, request)
        except BaseException:
            pool.busy -= 1
            raise
        received = httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response, pool, request),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()},
        )
        if received.is_error:
            await received.aread()
            await received.aclose()
            return _without_secrets(request, received)
        if request.method == "POST" and response.status in (301, 302, 303):  # clients turn these into a GET
            await received.aclose()
            raise _UnusableResponse(
                request, f"leads elsewhere, to {_redirect_target(received)}: set that address", code="bad_request"
            )
        if request.method == "POST" and received.is_success and _is_single_document(received):
            await received.aread()
            _check_reply(request, received)
        return received


class _UnusableResponse(httpx2.RemoteProtocolError, UnusableReply):
    """`UnusableReply` as a subclass of an httpx error, which the SDKs let through."""

    def __init__(
        self, request: httpx2.Request, what: str, body: object = None, code: ErrorCode = "server_error"
    ) -> None:
        UnusableReply.__init__(self, what, body, code)
        self.request = request


def _is_single_document(received: httpx2.Response) -> bool:
    """Return whether a response is a single document, and not a stream of events."""
    return (
        re.search(r"json$|^text/html|^text/plain|^$", received.headers.get("content-type", "").split(";")[0])
        is not None
    )


def _check_reply(request: httpx2.Request, received: httpx2.Response) -> None:
    """Raise `_UnusableResponse` for a response with status 200 that is empty, a web page or an error.

    Each SDK and integration would fail at it in its own way, and none would say what it was.
    """
    body = received.content.lstrip()
    if not body:
        raise _UnusableResponse(request, "is empty")
    if not body.startswith(b"{"):
        kind = "a web page" if body.startswith(b"<") else "no JSON object"
        raise _UnusableResponse(request, f"is {kind}", received.text if kind == "a web page" else None)
    if b'"error"' not in body[:MAX_ERROR_OFFSET]:
        return
    try:
        parsed = json.loads(body)
    except ValueError:
        return
    if parsed.get("error") and not parsed.get("choices"):
        raise _UnusableResponse(request, "is an error", parsed)


def _redirect_target(received: httpx2.Response) -> str:
    """Return the address that a redirect leads to, without the parts that may be secret."""
    url = httpx2.URL(received.headers.get("location", ""))
    return (
        f"{url.scheme}://{url.host}{f':{url.port}' * bool(url.port)}{url.path}"
        if url.host
        else url.path or "nowhere"
    )


def _rename_parameters(body: bytes) -> bytes:
    """Return the body of a request in which refused parameters are renamed or removed."""
    if not (names := RENAMED_PARAMETERS.get()) or not body.startswith(b"{"):
        return body
    sent = json.loads(body)
    for name, other in names.items():
        if name in sent:
            value = sent.pop(name)
            if other is not None:
                sent.setdefault(other, value)
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()


async def _send(pool: Pool, request: httpx2.Request) -> aiohttp.ClientResponse:
    wait = request.extensions.get("timeout", {})
    url, sent = _address(request.url), await request.aread()
    body = _rename_parameters(sent)
    headers = request.headers.multi_items()
    if body is not sent:
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return await pool.session.request(
        request.method,
        url,
        headers=headers,
        data=body or None,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(sock_connect=wait.get("connect"), sock_read=wait.get("read")),
        ssl=_certificates() if url.scheme == "https" else True,
        proxy=pool.proxy(url),
    )


@lru_cache(maxsize=256)
def _address(url: httpx2.URL) -> URL:
    """Return the URL without user and password. httpx has put them into a header, and aiohttp refuses both."""
    return URL(str(url.copy_with(username=None, password=None)), encoded=True)


@cache
def _certificates() -> ssl.SSLContext:
    """Return the TLS context, read once in a process and not before the first request that needs it."""
    return httpx2.create_ssl_context()


@dataclass(slots=True, eq=False)
class _Body(httpx2.AsyncByteStream):
    """The body of a response, streamed as it arrives."""

    response: aiohttp.ClientResponse
    pool: Pool
    request: httpx2.Request
    open: bool = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors(self.request):
            async for chunk in self.response.content.iter_chunked(CHUNK):
                yield chunk

    async def aclose(self) -> None:
        if self.open:
            self.open = False
            self.pool.busy -= 1
            self.response.release()


@contextmanager
def _as_httpx_errors(request: httpx2.Request) -> Iterator[None]:
    """Translate aiohttp's errors into httpx's, which the SDKs understand."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx2.ConnectTimeout("connecting timed out", request=request) from error
    except TimeoutError as error:
        raise httpx2.ReadTimeout("waiting for the reply timed out", request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError("the connection failed", request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError("the connection broke", request=request) from error


class _LazyTransport(httpx2.BaseTransport):
    """httpx's own transport, built at the first request."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        received = _sync_transport().handle_request(request)
        if received.is_error:
            received.read()
            received.close()
            return _without_secrets(request, received)
        return received


@cache
def _sync_transport() -> httpx2.HTTPTransport:
    transport = httpx2.HTTPTransport(verify=_certificates())
    atexit.register(transport.close)
    return transport


_SECRET_NAMES = re.compile("authorization|cookie|.*(key|token|secret).*", re.IGNORECASE)
"""Names of request headers and URL parameters whose values are secret."""
_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")
"""Response headers that describe the original body. They are dropped when the body is replaced."""
MAX_ERROR_OFFSET = 4096
"""Bytes at the start of a response in which an error would begin. A long reply is not parsed twice."""


def _without_secrets(request: httpx2.Request, received: httpx2.Response) -> httpx2.Response:
    """Return an error response in which the secrets of the request are replaced by `***`."""
    secrets = sorted(_secrets(request), key=len, reverse=True)

    def redacted(text: bytes) -> bytes:
        for secret in secrets:
            text = text.replace(secret, b"***")
        return text

    headers = [(name, value) for name, value in received.headers.raw if name.decode().lower() not in _BODY_HEADERS]
    return httpx2.Response(
        received.status_code,
        headers=[(name, redacted(value)) for name, value in headers],
        content=redacted(received.content),
        extensions=received.extensions,
    )


def _secrets(request: httpx2.Request) -> set[bytes]:
    """Return the secrets in the headers and the URL of a request."""
    values = {value for name, value in request.headers.multi_items() if _SECRET_NAMES.fullmatch(name)}
    values |= {value for name, value in request.url.params.multi_items() if _SECRET_NAMES.fullmatch(name)}
    words = {word for value in values for word in value.split()} | {request.url.password}
    return {word.encode() for word in words | {_password(word) for word in words} if len(word) >= MIN_SECRET_LENGTH}


def _password(word: str) -> str:
    """Return the password in a value of HTTP's `Basic` authentication, or an empty text for any other value."""
    try:
        return base64.b64decode(word, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
