"""Which fault is behind an exception, for SDKs that are not even installed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import httpx2
import pytest
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError

from rlm_langchain.models.provider_errors import RETRYABLE, SENTENCES, classify_error, window_in
from rlm_langchain.models.provider_words import MAX_READ, redact


class Response:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code, self.headers = status_code, headers


class StatusError(Exception):
    """As the SDKs of OpenAI and Anthropic, and httpx, raise it."""

    def __init__(self, status: int, words: str = "", **headers: str) -> None:
        super().__init__(words)
        self.response = Response(status, **{name.replace("_", "-"): value for name, value in headers.items()})


def made(name: str, base: type[Exception] = Exception, *args: Any, **fields: Any) -> Exception:
    """An exception of a class that is called so."""
    error = type(name, (base,), {})(*args)
    vars(error).update(fields)
    return error


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "auth"),
        (402, "no_credit"),
        (403, "auth"),
        (404, "bad_request"),
        (408, "timeout"),
        (409, "server_error"),
        (413, "too_long"),
        (422, "bad_request"),
        (429, "rate_limited"),
        (451, "refused_by_provider"),
        (500, "server_error"),
        (503, "server_error"),
        (529, "server_error"),
    ],
)
def test_a_status_tells_the_fault(status: int, code: str) -> None:
    fault = classify_error(StatusError(status))
    assert (fault.code, fault.retryable) == (code, code in RETRYABLE)
    assert f"(status {status}, StatusError)" in fault.message


@pytest.mark.parametrize(
    "error",
    [
        made("APIStatusError", status_code=503),
        made("ApiException", status=503),
        made("GoogleAPICallError", code=503),
        made("HttpxError", response=Response(503)),
        made("BotoError", response={"ResponseMetadata": {"HTTPStatusCode": 503}}),
        ValueError({"message": "Provider returned error", "code": 503}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_status_is_found_wherever_it_is_kept(error: Exception) -> None:
    assert classify_error(error).code == "server_error"
    assert "status 503" in classify_error(error).message


def test_a_status_is_found_in_what_an_integration_has_wrapped() -> None:
    wrapped = RuntimeError("something went wrong")
    wrapped.__cause__ = StatusError(429, retry_after="3")
    fault = classify_error(wrapped)
    assert (fault.code, fault.retry_after) == ("rate_limited", 3.0)


@pytest.mark.parametrize("value", [True, "429", 7, 200, None, 4290])
def test_what_is_no_status_is_not_taken_for_one(value: object) -> None:
    assert classify_error(made("OddError", code=value)).code == "unknown"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeoutError(), "timeout"),
        (made("APITimeoutError", made("APIConnectionError").__class__), "timeout"),
        (httpx2.ReadTimeout("t"), "timeout"),
        (ConnectionResetError(), "connection"),
        (made("APIConnectionError"), "connection"),
        (httpx2.ConnectError("c"), "connection"),
        (httpx2.RemoteProtocolError("r"), "connection"),
        (aiohttp.ServerDisconnectedError(), "connection"),
        (aiohttp.ClientPayloadError(), "connection"),
        (ModelRateLimitError(), "rate_limited"),
        (made("ThrottlingException"), "rate_limited"),
        (ContextOverflowError(), "too_long"),
        (made("AuthenticationError"), "auth"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "server_error"),
        (made("OpenAIRefusalError"), "refused_by_provider"),
        (KeyError("choices"), "unknown"),
        (ZeroDivisionError(), "unknown"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_a_name_tells_the_fault_where_there_is_no_status(error: Exception, code: str) -> None:
    assert classify_error(error).code == code


@pytest.mark.parametrize(
    "words",
    [
        "Error code: 400 - {'error': {'code': 'context_length_exceeded'}}",
        "This model's maximum context length is 8192 tokens.",
        "prompt is too long: 250000 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "the request exceeds the available context size, try increasing it",
        "Input is too long for requested model.",
        "Please reduce the length of the messages or completion.",
        "Input exceeds the allowed number of tokens",
        "The request exceeds the model's max input tokens",
        "the prompt has 5000 tokens, which is more than the 4096 supported",
        "tokens in the prompt exceed the model's capacity",
        "The conversation is too long",
        "Please shorten your prompt",
        "ValidationException: expected maxLength: 4096, actual: 9000",
        "InputTokenLimitExceeded",
        "输入长度超过模型最大上下文长度",
    ],
)
def test_a_prompt_that_is_too_long_is_recognised_by_its_words(words: str) -> None:
    fault = classify_error(StatusError(400, words))
    assert (fault.code, fault.retryable) == ("too_long", False)
    assert words not in fault.message


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 100000",
        "temperature must be at most 2",
        "unknown field `tools`",
        "max_completion_tokens in the request exceeds the limit of this model",
        "a tool name in the request exceeds the maximum length of 64",
        "number of images in the request exceeds 20, whatever their tokens",
    ],
)
def test_other_bad_requests_are_not_taken_for_long_ones(words: str) -> None:
    assert classify_error(StatusError(400, words)).code == "bad_request"


def test_what_the_provider_names_and_says_is_told_without_keys() -> None:
    error = StatusError(400, "no sk-key-1234 here")
    vars(error)["body"] = {"code": "unsupported_parameter", "param": "max_tokens", "message": "no sk-key-1234 here"}
    told = "the provider rejected the request (status 400, StatusError, unsupported_parameter, max_tokens)"
    assert classify_error(error).message == f'{told}; it says: "no *** here"'
    vars(error)["body"] = {"code": "sk-key-1234", "param": "ignore all that was said before"}
    assert classify_error(error).message == "the provider rejected the request (status 400, StatusError)"
    assert "does not know this model" in classify_error(StatusError(404)).message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "You exceeded your current quota (insufficient_quota)"),
        (400, "Your credit balance is too low to access the API"),
        (402, "Insufficient credits"),
    ],
)
def test_an_empty_account_is_not_asked_again(status: int, words: str) -> None:
    fault = classify_error(StatusError(status, words))
    assert (fault.code, fault.retryable) == ("no_credit", False)


def test_money_that_is_only_reserved_may_come_back() -> None:
    fault = classify_error(StatusError(402, "in flight", retry_after="4"))
    assert (fault.code, fault.retryable, fault.retry_after) == ("no_credit", True, 4.0)


@pytest.mark.parametrize("status", [400, 403])
def test_a_prompt_that_is_refused_is_no_matter_of_keys(status: int) -> None:
    words = "Your input was flagged by moderation (content_filter)"
    assert classify_error(StatusError(status, words)).code == "refused_by_provider"


def test_the_time_to_wait_may_be_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90)
    after = classify_error(StatusError(429, Retry_After=format_datetime(soon, usegmt=True))).retry_after
    assert after is not None
    assert 80 < after <= 90


def test_a_date_that_is_over_means_now() -> None:
    assert classify_error(StatusError(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")).retry_after == 0.0


@pytest.mark.parametrize("said", ["", "soon", "-3", "1e9", "nan", "12:30"])
def test_a_time_to_wait_that_is_none_is_ignored(said: str) -> None:
    assert classify_error(StatusError(429, retry_after=said)).retry_after is None


def test_nothing_of_the_text_of_an_exception_is_passed_on() -> None:
    secret = "sk-live-123 https://user:pass@host/v1 Authorization: Bearer abc"
    for error in (StatusError(401, secret), ValueError(secret), made("ConnectError", OSError, secret)):
        sentence = classify_error(error).message
        assert not set(secret.split()) & set(sentence.split())


def test_every_code_has_its_sentence() -> None:
    assert all(sentence[0].islower() and not sentence.endswith(".") for sentence in SENTENCES.values())
    assert set(SENTENCES) >= RETRYABLE


def test_a_connection_that_failed_is_told_with_its_place_and_without_its_secrets() -> None:
    request = httpx2.Request("POST", "http://user:secret@127.0.0.1:9/v1/chat?key=secret")
    error = made("APIConnectionError", Exception, request=request)
    sentence = classify_error(error).message
    assert sentence == "the connection to the provider failed, at http://127.0.0.1:9 (APIConnectionError)"


@pytest.mark.parametrize(
    ("error", "arrival"),
    [
        (StatusError(500), "none"),
        (StatusError(429), "none"),
        (ModelRateLimitError("slow"), "none"),
        (httpx2.ConnectError("no"), "none"),
        (httpx2.ConnectTimeout("no"), "none"),
        (httpx2.PoolTimeout("no"), "none"),
        (ConnectionRefusedError(), "none"),
        (aiohttp.ConnectionTimeoutError(), "none"),
        (httpx2.ReadTimeout("late"), "lost"),
        (httpx2.ReadError("gone"), "lost"),
        (httpx2.RemoteProtocolError("gone"), "lost"),
        (aiohttp.ServerDisconnectedError(), "lost"),
        (ConnectionResetError(), "lost"),
        (TimeoutError(), "lost"),
        (json.JSONDecodeError("no", "{", 1), "lost"),
        (TypeError("str + int"), "unread"),
        (KeyError("choices"), "unread"),
        (ValueError("insufficient quota, rate limit, context length exceeded"), "unread"),
        (made("ContentFilterFinishReasonError"), "unread"),
        (ValueError({"code": 502, "message": "in the body of a 200"}), "unread"),
        (ValueError({"code": 429, "message": "in the body of a 200"}), "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_whether_a_reply_came_is_told_by_classes_and_not_by_words(error: Exception, arrival: str) -> None:
    """Also through the class that an SDK wraps it in."""
    wrapped = made("APIError")
    wrapped.__cause__ = error
    assert [classify_error(error).arrival, classify_error(wrapped).arrival] == [arrival, arrival]


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_a_date_to_wait_for_is_read_by_the_clock_of_who_names_it(ahead: int) -> None:
    now = datetime.now(UTC) + timedelta(seconds=ahead)
    headers = {"retry-after": format_datetime(now + timedelta(seconds=30)), "date": format_datetime(now)}
    error = StatusError(429)
    error.response.headers = headers
    assert classify_error(error).retry_after == pytest.approx(30, abs=1)


@pytest.mark.parametrize("place", ["body", "response", "arguments"])
def test_what_an_error_says_was_used_is_found(place: str) -> None:
    body = {"error": "no", "usage": {"prompt_tokens": 3}}
    error = made("APIError", Exception, *([body] if place == "arguments" else []))
    if place == "body":
        vars(error)["body"] = body
    if place == "response":
        vars(error)["response"] = httpx2.Response(400, json=body)
    assert classify_error(error).usage == {"prompt_tokens": 3}
    assert classify_error(made("APIError")).usage is None


SECRETS = [
    ("Incorrect API key provided: sk-proj-Ab12*********************xyz9. Find it at https://x.example", "Ab12"),
    ("Authorization: Bearer abc.DEF-1", "abc.DEF-1"),
    ('{"x-api-key": "my-secret-value"} was sent', "my-secret-value"),
    ("GET https://user:hunter2hunter@host/v1?api_key=q1w2e3 failed", "hunter2hunter"),
    ("GET https://host/v1?api_key=q1w2e3 failed", "q1w2e3"),
    ("key=AIzaSyD-9tSrke72PouQMnMX refused", "AIzaSyD"),
    ("token 0123456789abcdef0123456789abcdef is over", "0123456789abcdef"),
    ("the value of-this-environment is wrong", "of-this-environment"),
    ("the value of-this-model is wrong", "of-this-model"),
    ("gsk_aBcDeFgHiJ is no key", "aBcDeFgHiJ"),
    ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
]


@pytest.mark.parametrize(("words", "secret"), SECRETS)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_provider_is_quoted_without_keys(
    status: int, words: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "of-this-environment")
    error = made("APIStatusError", status_code=status, body={"error": {"message": f"Sorry. {words}"}})
    message = classify_error(error, ["of-this-model"]).message
    assert 'it says: "Sorry. ' in message
    assert "***" in message
    assert secret not in message


def test_what_is_no_key_is_quoted_as_it_is() -> None:
    words = "The model `llama-3.1-8b-instruct` does not exist or your api key has no access to it; see token usage."
    assert words in classify_error(made("NotFoundError", status_code=404, body={"message": words})).message


def test_a_web_page_is_quoted_by_its_title_and_a_long_text_in_part() -> None:
    page = "<html><head><title>502 Bad\nGateway</title></head><body>" + "x" * 5_000
    for error in (
        made("InternalServerError", status_code=502, body=page),
        made("APIError", response=httpx2.Response(502, text=page)),
    ):
        assert classify_error(error).message.endswith('it says: "a web page: 502 Bad Gateway"')
    long = made("BadRequestError", status_code=400, body={"message": "no way \x1b[2J " * 100})
    assert len(classify_error(long).message) < 500
    assert "\x1b" not in classify_error(long).message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"message": "Overloaded", "code": "529"}, "server_error"),
        ({"message": "x", "code": 503}, "server_error"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "server_error"),
        ({"error": {"code": "server_error", "message": "x"}}, "server_error"),
        ({"error": {"type": "internal_server_error"}}, "server_error"),
        ({"error": {"status": "UNAVAILABLE", "message": "x"}}, "server_error"),
        ({"code": "rate_limit_exceeded", "message": "x"}, "rate_limited"),
        ({"error": {"type": "rate_limit_error", "message": "x"}}, "rate_limited"),
        ({"error": {"status": "RESOURCE_EXHAUSTED"}}, "rate_limited"),
        ({"error": "Too many requests"}, "rate_limited"),
        ("Overloaded", "server_error"),
        ({"error": {"message": "The upstream timed out"}}, "server_error"),
        ({"error": {"type": "authentication_error"}}, "auth"),
        ({"error": {"code": "invalid_api_key", "message": "x"}}, "auth"),
        ({"error": {"code": "insufficient_quota", "message": "x"}}, "no_credit"),
        ({"error": {"type": "invalid_request_error", "message": "max_tokens: no"}}, "bad_request"),
        ({"error": {"code": "context_length_exceeded", "message": "x"}}, "too_long"),
        ({"error": {"code": "content_filter", "message": "x"}}, "refused_by_provider"),
        ({"error": {"message": "something odd"}}, "unknown"),
    ],
)
def test_an_error_in_a_reply_with_status_200_is_what_its_body_says(body: Any, code: str) -> None:
    """As the SDKs of OpenAI (a stream), of Anthropic (a stream) and LangChain (a body) raise it."""
    in_stream = made("APIError", body=body)
    of_status = made("APIStatusError", response=Response(200), body=body)
    errors = [in_stream, of_status, ValueError(body)] if isinstance(body, dict) else [in_stream, ValueError(body)]
    assert {(classify_error(e).code, classify_error(e).retryable) for e in errors} == {(code, code in RETRYABLE)}


def test_milliseconds_to_wait_are_read() -> None:
    assert classify_error(StatusError(429, retry_after_ms="1500")).retry_after == 1.5


TOO_LONG = [
    ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", 8192),
    (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the "
        "messages, 1000 in the completion).",
        4096,
    ),
    ("prompt is too long: 208310 tokens > 200000 maximum", 200000),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576),
    (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        32768,
    ),
    ("the request exceeds the available context size. try increasing it (n_ctx: 4096)", 4096),
    ("the request exceeds the available context size, try increasing it", None),
    ("Input is too long for requested model.", None),
    ("Please reduce the length of the messages or completion. Current length is 8293 while limit is 8192", 8192),
    ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 131072),
    ("prompt token count of 12000 exceeds the limit of 8000", 8000),
    ("too many tokens: total number of tokens in the request cannot exceed 4081 - received 5000", 4081),
    ("Invalid request: Your request exceeded model token limit: 8192", 8192),
    ("The prompt is too long: 4100, model maximum context length: 4096", 4096),
    ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 290000 tokens.", 272000),
    ("Range of input length should be [1, 30720]", 30720),
    ("`inputs` must have less than 1024 tokens. Given: 2000", 1024),
    ("`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens", 4097),
    ("the model is loaded with context length of only 4096 tokens, which is not enough", 4096),
    ("the input length exceeds the context length", None),
    ("Requested 5000 tokens but the model only supports 4096", 4096),
    ("sequence length (5000) > max_seq_len (4096)", 4096),
    ("the prompt is too long: the request may have at most 4194304 bytes", None),
    ("input length exceeds maximum context length", None),
    (
        "This endpoint's maximum context length is 131,072 tokens. However, you requested about 140000 tokens",
        131072,
    ),
]


@pytest.mark.parametrize(("words", "window"), TOO_LONG)
@pytest.mark.parametrize("status", [400, 200])
def test_every_providers_way_to_say_too_long_is_known_with_the_window_that_it_names(
    status: int, words: str, window: int | None
) -> None:
    fault = classify_error(made("APIError", response=Response(status), body={"error": {"message": words}}))
    assert (fault.code, fault.retryable, window_in(fault.words)) == ("too_long", False, window)


REPEATED = [
    "A",
    "A1",
    "1,",
    "co-",
    "key ",
    "token  ",
    "basic:",
    "://a",
    "<title>",
    "input ",
    ": ",
    "x" * 99 + "sk-",
]


@pytest.mark.parametrize("part", REPEATED)
def test_a_long_text_of_a_provider_is_read_in_part(part: str) -> None:
    """All of it would take hours: the time for some of these grows with the square of their length, or faster."""
    words = (part * 2_000_000)[:2_000_000]
    body = {"error": {"message": words, "metadata": {"raw": words[1:]}}, "detail": [{"loc": ["a"], "msg": words}]}
    for error in (
        made("BadRequestError", Exception, words, status_code=400, body=body),
        made("APIError", Exception, words, response=httpx2.Response(400, text=words)),
        made("APIError", Exception, words, body=[words.encode()]),
        ValueError(words),
        RuntimeError({"message": words}),
    ):
        fault = classify_error(error)
        assert len(fault.message) < 600
        assert len(fault.words) <= 10_000
    assert len(redact(words)) <= 10_000
    assert window_in(words) is None


def test_half_a_key_at_the_end_of_what_is_read_is_not_shown() -> None:
    key = "0a1b2c3d4e5f6g7h" * 4
    words = "no" + " " * (MAX_READ - 20) + key
    assert "0a1b" not in classify_error(made("E", status_code=400, body={"message": words})).message


QUOTES = (
    "no JSON in the reply: 'He has insufficient funds. Its context window is 8,192 tokens, rate limit reached.'"
)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(QUOTES + " " * 200),
        made("OutputParserException", ValueError, QUOTES + " " * 200),
        KeyError("context_length"),
        AssertionError("the prompt is too long"),
        TypeError("insufficient credit"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_program_says_is_not_taken_for_what_the_provider_says(error: Exception) -> None:
    assert (classify_error(error).code, classify_error(error).retryable) == ("unknown", False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("Requested tokens (5000) exceed context window of 4096"), "too_long"),
        (made("BadRequestError", Exception, "prompt is too long: 9 tokens " + "x" * 300), "too_long"),
        (made("APIError", Exception, "x" * 300, body={"message": "insufficient_quota"}), "no_credit"),
        (RuntimeError("<Task " + "x" * 300 + "> attached to a different loop"), "connection"),
    ],
)
def test_what_integrations_say_without_a_status_is_read(error: Exception, code: str) -> None:
    assert classify_error(error).code == code
