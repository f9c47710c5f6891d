"""What Anthropic's Messages API looks like on the wire, and how its prompt cache counts.

Only what a request marks is put into the cache, and only at a mark, or up to twenty blocks before one, is it looked
for. Tokens are four characters, as everywhere here; the least size of what real caches take is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.servers.openai import Reply

LOOKBACK = 20
ENDS = {"stop": "end_turn", "length": "max_tokens"}


@dataclass
class Anthropic:
    """The dialect of one server. Its cache lives as long as that does."""

    path: str = "/v1/messages"
    cache: set[str] = field(default_factory=set)
    """The prefixes that are in it."""
    bills: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By the request: asking twice what one costs must not find its own prefix in the cache."""

    def billed(self, body: dict[str, Any], reply: Reply) -> dict[str, Any] | None:
        """The usage object that goes with a reply."""
        if reply.usage != "counted":
            return reply.usage
        return self.bills.setdefault(id(body), self._counted(body, reply))

    def counts(self, usage: dict[str, Any]) -> dict[str, int]:
        """The same in the words of `Server.tokens`."""
        read, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
        return {
            "input": usage.get("input_tokens", 0) + read + written,
            "output": usage.get("output_tokens", 0),
            "cached": read,
            "written": written,
        }

    def _counted(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        prompt = blocks(body)
        sizes = [_tokens(block.get("text", "")) for block in prompt]
        prefixes = [json.dumps([_unmarked(block) for block in prompt[: n + 1]]) for n in range(len(prompt))]
        marks = [n for n, block in enumerate(prompt) if "cache_control" in block]
        looked = {n for mark in marks for n in range(max(0, mark - LOOKBACK), mark + 1)}
        found = max((n for n in looked if prefixes[n] in self.cache), default=-1)
        last = max(marks, default=-1)
        self.cache.update(prefixes[n] for n in marks)
        return {
            "input_tokens": sum(sizes[max(found, last) + 1 :]),
            "cache_read_input_tokens": sum(sizes[: found + 1]),
            "cache_creation_input_tokens": sum(sizes[found + 1 : last + 1]),
            "output_tokens": _tokens(reply.text or ""),
        }

    def completion(self, number: int, body: dict[str, Any], reply: Reply) -> bytes:
        """The body of a reply that is not streamed."""
        return json.dumps(self._message(number, body, reply)).encode()

    def _message(self, number: int, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        said = [{"type": "text", "text": reply.text}] if reply.text else []
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [*reply.extra.get("content", []), *said],
            "stop_reason": ENDS.get(reply.finish, reply.finish),
            "stop_sequence": None,
            "usage": self.billed(body, reply),
        }

    def events(self, number: int, body: dict[str, Any], reply: Reply) -> list[bytes]:
        """The events of a streamed reply, whose text comes in one piece."""
        whole = self._message(number, body, reply)
        start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
        text = {"type": "text_delta", "text": reply.text or ""}
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        sent: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": text},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": whole["usage"]},
            {"type": "message_stop"},
        ]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in sent]


def blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt of a request as a row of blocks, the system's first."""
    parts = [body.get("system") or [], *(message["content"] for message in body["messages"])]
    return [
        block for part in parts for block in ([{"type": "text", "text": part}] if isinstance(part, str) else part)
    ]


def _unmarked(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "cache_control"}


def _tokens(text: str) -> int:
    return -(-len(text) // 4)
