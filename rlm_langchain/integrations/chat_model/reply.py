"""What an RLM answered, as a chat model says it: a message, or the chunks of a stream that add up to it.

The turns of the root model are the reply's reasoning: a stream shows them while they happen, and the answer,
which is known at the end only, after them in pieces.
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

SHOWN = 2_000
"""Characters of a turn, or of what its code printed, that are shown as reasoning."""
PIECE = 40
"""About as many characters of an answer are in one chunk."""


class ChatReply(NamedTuple):
    """A reply, before it is a message."""

    text: str
    calls: Sequence[ToolCall]
    output: RLMOutput
    model: str

    @property
    def metadata(self) -> dict[str, Any]:
        """What LangChain calls `response_metadata`."""
        output = self.output
        ended = {key: output[key] for key in ("status", "stop_reason", "cost_usd", "degraded", "found")}
        ended |= {"misfit": output["misfit"]} if output.get("misfit") else {}
        return {"model_name": self.model, "finish_reason": "tool_calls" if self.calls else "stop", **ended}

    def message(self, thought: str) -> AIMessage:
        """The whole reply."""
        return AIMessage(
            content=self.text,
            tool_calls=list(self.calls),
            usage_metadata=usage(self.output),
            response_metadata=self.metadata,
            additional_kwargs=_reasoning(thought),
        )

    def chunks(self) -> Iterator[AIMessageChunk]:
        """The same in pieces; usage and metadata come once, with the last."""
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


def thought(record: Record) -> str:
    """What a record of the top run adds to the reasoning; mostly nothing."""
    if record["path"]:
        return ""
    match record["type"]:
        case "turn":
            return f"{clip(record['text'], SHOWN)}\n\n"
        case "wave":
            return f"(asks {record['count']} {'model' if record['count'] == 1 else 'models'})\n\n"
        case "output" if record["outcome"] != "answered":
            return f"{clip(record['text'], SHOWN)}\n\n"
        case _:
            return ""


def thoughts(records: Iterable[Record]) -> str:
    """The reasoning of a run that is over."""
    return "".join(map(thought, records))


def thinking(text: str) -> AIMessageChunk:
    """A piece of reasoning in a stream."""
    return AIMessageChunk(content="", additional_kwargs=_reasoning(text))


def as_text(answer: Any) -> str:
    """An answer as the content of a message: text as it is, everything else as JSON."""
    if answer is None:
        return ""
    plain = to_jsonable_python(answer)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def checked_stop(stop: Any) -> list[str] | None:
    """Return the words that end a reply. Raises `ConfigurationError` for what are none."""
    if stop is None or (isinstance(stop, list | tuple) and all(isinstance(word, str) and word for word in stop)):
        return stop if stop is None else [*stop]
    raise ConfigurationError(f"stop={stop!r} cannot be used: give a list of words, as in stop=['END']")


def cut(text: str, stop: Sequence[str] | None) -> str:
    """A text up to the first of the words that end it."""
    ends = [text.find(word) for word in stop or () if word in text]
    return text[: min(ends)] if ends else text


def usage(output: RLMOutput) -> UsageMetadata:
    """Of the whole tree: every turn, every sub-call, every child run."""
    both = [output["usage"]["root"], output["usage"]["sub"]]
    read, written = sum(u["input"] for u in both), sum(u["output"] for u in both)
    return UsageMetadata(
        input_tokens=read,
        output_tokens=written,
        total_tokens=read + written,
        input_token_details=InputTokenDetails(cache_read=sum(u["cached"] for u in both)),
    )


def _reasoning(text: str) -> dict[str, Any]:
    """Where LangChain looks for it: it comes out of `content_blocks` as a block of type `reasoning`."""
    return {"reasoning_content": text} if text else {}


def _pieces(text: str) -> list[str]:
    return re.findall(rf"(?s).{{1,{PIECE}}}(?:\S{{0,20}}\s+|\S{{0,20}}$|)", text)
