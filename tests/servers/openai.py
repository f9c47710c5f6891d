"""What a chat completion looks like on the wire: whole, or as a stream of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server says to one request. The defaults make a good reply; every field can spoil it."""

    text: str | None = ""
    latency: float | None = None
    """Seconds; None is the server's own. `FOREVER` waits until the client goes away or `Server.release()`."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: dict[str, Any] | Literal["counted"] | None = "counted"
    """`counted`: four characters are a token. None: the provider says nothing of it."""
    cached: int = 0
    """Input tokens that were read from the provider's cache."""
    cost: float | None = None
    """Dollars, as OpenRouter reports them, when the request asked for it (`usage.include`)."""
    finish: str = "stop"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the message: `refusal`, `tool_calls`, `reasoning_content`."""
    raw: bytes | None = None
    """The body, whatever it is, instead of a completion."""
    drop: bool = False
    """The connection is closed instead of a reply."""
    sent: int | None = None
    """Of a stream: events after which nothing more comes. None: all of them."""
    hangs: bool = False
    """Whether the connection of a stream that stops (`sent`) stays open; else it is reset."""


FOREVER = inf


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it. `retry_after="2"` becomes the header `retry-after`."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, raw=json.dumps(body).encode())


RATE_LIMITED = failure(429, "slow down", retry_after="2")
SERVER_ERROR = failure(500, "oops")
DROPPED = Reply(drop=True)
HANGING = Reply("late", latency=FOREVER)
INVALID_JSON = Reply(raw=b'{"choices": [{"mess')
TOO_LONG = failure(400, "maximum context length is 8192 tokens", "context_length_exceeded")


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    """One entry of a message's `tool_calls`."""
    call = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": "call_0", "type": "function", "function": call}


@dataclass(frozen=True)
class OpenAI:
    """The dialect of chat completions."""

    path: str = "/chat/completions"

    def billed(self, body: dict[str, Any], reply: Reply) -> dict[str, Any] | None:
        """The usage object that goes with a reply."""
        return billed(body, reply)

    def counts(self, usage: dict[str, Any]) -> dict[str, int]:
        """The same in the words of `Server.tokens`."""
        details = usage.get("prompt_tokens_details")
        return {
            "input": whole(usage.get("prompt_tokens")),
            "output": whole(usage.get("completion_tokens")),
            "cached": whole(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        }

    def completion(self, number: int, body: dict[str, Any], reply: Reply) -> bytes:
        """The body of a reply that is not streamed."""
        return completion(number, body, reply)

    def events(self, number: int, body: dict[str, Any], reply: Reply) -> list[bytes]:
        """The chunks of a streamed reply."""
        return events(number, body, reply)


def whole(count: object) -> int:
    """A count, if it is one: a server that lies bills nothing by it."""
    return count if type(count) is int else 0


def counted(messages: list[Message], reply: Reply) -> dict[str, Any]:
    """Usage by the rule that four characters are a token, rounded up."""
    prompt = sum(-(-len(text_of(message)) // 4) for message in messages)
    output = -(-len(reply.text or "") // 4)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": reply.cached},
    }


def text_of(message: Message) -> str:
    """The words of a message, whether they are a text or blocks of it."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def billed(body: dict[str, Any], reply: Reply) -> dict[str, Any] | None:
    """The usage object that goes with a reply."""
    usage = counted(body["messages"], reply) if reply.usage == "counted" else reply.usage
    asked = (body.get("usage") or {}).get("include")
    return {**usage, "cost": reply.cost} if usage is not None and reply.cost is not None and asked else usage


def completion(number: int, body: dict[str, Any], reply: Reply) -> bytes:
    """The body of a reply that is not streamed."""
    message = {"role": "assistant", "content": reply.text, **reply.extra}
    return _envelope(
        number,
        body,
        "chat.completion",
        choices=[{"index": 0, "message": message, "finish_reason": reply.finish}],
        usage=billed(body, reply),
    )


def events(number: int, body: dict[str, Any], reply: Reply) -> list[bytes]:
    """The chunks of a streamed reply, one word in each."""
    words = (reply.text or "").split(" ")
    pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", **reply.extra}]
    deltas += [{"content": piece} for piece in pieces if piece]
    chunks = [_chunk(number, body, [{"index": 0, "delta": d, "finish_reason": None}]) for d in deltas]
    chunks.append(_chunk(number, body, [{"index": 0, "delta": {}, "finish_reason": reply.finish}]))
    if (body.get("stream_options") or {}).get("include_usage") and reply.usage is not None:
        chunks.append(_chunk(number, body, [], usage=billed(body, reply)))
    return [b"data: " + chunk + b"\n\n" for chunk in [*chunks, b"[DONE]"]]


def _chunk(number: int, body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> bytes:
    return _envelope(number, body, "chat.completion.chunk", choices=choices, **more)


def _envelope(number: int, body: dict[str, Any], kind: str, **fields: Any) -> bytes:
    head = {"id": f"chatcmpl-{number}", "object": kind, "created": 1_700_000_000, "model": body.get("model")}
    return json.dumps({**head, **fields}).encode()


def as_reply(said: str | Reply | None, latency: float) -> Reply:
    """What a script returned, as a reply with a latency."""
    reply = said if isinstance(said, Reply) else Reply(said)
    return reply if reply.latency is not None else replace(reply, latency=latency)
