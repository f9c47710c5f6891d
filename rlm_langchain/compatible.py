"""`ChatOpenAI` for servers that resemble OpenAI's and are not: OpenRouter, Ollama, vLLM, llama.cpp, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI


class CompatibleChat(ChatOpenAI):
    """Caps output by the old name, which all of them know, and keeps the cost of a streamed reply."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Its settings, and of its URL the server only: the rest may hold a password."""
        for name, value in super().__repr_args__():
            yield name, urlsplit(value).hostname if name == "openai_api_base" and value else value

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        if messages := payload.get("messages"):
            # The SDK looks through every part of every message for what it would have to rename: a sixth of what a
            # call computes. What is in `extra_body` takes the place of what is named the same, just as it is.
            more = payload.get("extra_body") or {}
            payload["extra_body"] = {**self._extensions(messages), **more, "messages": messages}
            payload["messages"] = []
        return payload

    def _extensions(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """What else this server is told, that OpenAI's API has no name for."""
        return {}

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        usage = chunk.get("usage")
        if made is not None and usage and usage.get("cost") is not None:
            # ChatOpenAI keeps the token counts of a stream only; whole replies keep all of `usage`, as here.
            made.message.response_metadata["token_usage"] = usage
        return made
