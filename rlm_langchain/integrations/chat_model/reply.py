"""Turns the output of an RLM into an `AIMessage`, or into the chunks of a stream that add up to one.

The turns of the root model are the reasoning of the reply. A stream yields them while they happen, and the answer,
in pieces, at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from pydantic_core import to_jsonable_python

from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.records import Record, RLMOutput

MAX_TURN_CHARS = 2_000
"""The most characters of a turn, or of its output, in the reasoning."""
CHUNK_CHARS = 40
"""The approximate number of characters of an answer in one chunk."""


class ChatReply(NamedTuple):
    """An RLM output, ready to be turned into an `AIMessage` or chunks."""

    text: str
    calls: Sequence[ToolCall]
    output: RLMOutput
    model: str

    @property
    def metadata(self) -> dict[str, Any]:
        """The `response_metadata` of the message."""
        output = self.output
        details = {key: output[key] for key in ("status", "stop_reason", "cost_usd", "degraded", "found")}
        details |= {"misfit": output["misfit"]} if output.get("misfit") else {}
        return {"model_name": self.model, "finish_reason": "tool_calls" if self.calls else "stop", **details}

    def message(self, reasoning: str) -> AIMessage:
        """Return the whole reply as a message."""
        return AIMessage(
            content=self.text,
            tool_calls=list(self.calls),
            usage_metadata=usage(self.output),
            response_metadata=self.metadata,
            additional_kwargs=_reasoning_kwargs(reasoning),
        )

    def chunks(self) -> Iterator[AIMessageChunk]:
        """Yield the reply in chunks. The last one has the tool calls, the usage and the metadata."""
        for piece in _pieces(self.text):
            yield AIMessageChunk(content=piece)
        calls = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=i)
            for i, call in enumerate(self.calls)
        ]
        yield AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            usage_metadata=usage(self.output),
            response_metadata=self.metadata,
            chunk_position="last",
        )


def reasoning_of(record: Record) -> str:
    """Return the text that a record adds to the reasoning. Empty for most records, and for all of child runs."""
    if record["path"]:
        return ""
    match record["type"]:
        case "turn":
            return f"{clip(record['text'], MAX_TURN_CHARS)}\n\n"
        case "wave":
            return f"(asks {record['count']} {'model' if record['count'] == 1 else 'models'})\n\n"
        case "output" if record["outcome"] != "answered":
            return f"{clip(record['text'], MAX_TURN_CHARS)}\n\n"
        case _:
            return ""


def reasoning_of_run(records: Iterable[Record]) -> str:
    """Return the reasoning of a finished run."""
    return "".join(map(reasoning_of, records))


def reasoning_chunk(text: str) -> AIMessageChunk:
    """Return a chunk of reasoning for a stream."""
    return AIMessageChunk(content="", additional_kwargs=_reasoning_kwargs(text))


def as_text(answer: Any) -> str:
    """Return an answer as the content of a message. Everything but text becomes JSON."""
    if answer is None:
        return ""
    plain = to_jsonable_python(answer)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def checked_stop(stop: Any) -> list[str] | None:
    """Return the words that end a reply. Raises `ConfigurationError` for anything but a list of words, or None."""
    if stop is None or (isinstance(stop, list | tuple) and all(isinstance(word, str) and word for word in stop)):
        return stop if stop is None else [*stop]
    raise ConfigurationError(f"stop={stop!r} cannot be used: give a list of words, as in stop=['END']")


def cut_at_stop(text: str, stop: Sequence[str] | None) -> str:
    """Return a text up to the first of these words."""
    ends = [text.find(word) for word in stop or () if word in text]
    return text[: min(ends)] if ends else text


def usage(output: RLMOutput) -> UsageMetadata:
    """Return the usage of the whole run tree: all turns, sub-calls and child runs."""
    usages = [output["usage"]["root"], output["usage"]["sub"]]
    read, produced = sum(u["input"] for u in usages), sum(u["output"] for u in usages)
    return UsageMetadata(
        input_tokens=read,
        output_tokens=produced,
        total_tokens=read + produced,
        input_token_details=InputTokenDetails(cache_read=sum(u["cached"] for u in usages)),
    )


def _reasoning_kwargs(text: str) -> dict[str, Any]:
    """Return reasoning as LangChain expects it. In `content_blocks` it is a block of the type `reasoning`."""
    return {"reasoning_content": text} if text else {}


def _pieces(text: str) -> list[str]:
    """Split a text after words into pieces of about `CHUNK_CHARS` characters."""
    return re.findall(rf"(?s).{{1,{CHUNK_CHARS}}}(?:\S{{0,20}}\s+|\S{{0,20}}$|)", text)
