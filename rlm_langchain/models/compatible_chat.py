"""The chat model for servers that speak OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from rlm_langchain.models.usage import is_readable, readable


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

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        """The reply, also when its usage cannot be read: what is told of that is looked at later."""
        usage = response.get("usage") if isinstance(response, dict) else getattr(response, "usage", None)
        whole = usage if isinstance(usage, dict | None) else _plain(usage)
        error = response.get("error") if isinstance(response, dict) else getattr(response, "error", None)
        if error and whole:
            raise BilledError(error, whole)
        if isinstance(response, dict):
            response = {**response, "usage": readable(whole)}
        else:
            response.usage = readable(whole)
        made: ChatResult = super()._create_chat_result(response, generation_info)
        if made.llm_output is not None:
            made.llm_output["token_usage"] = whole
        return made

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        usage = chunk.get("usage")
        readable_chunk = {**chunk, "usage": readable(usage)} if usage else chunk
        made = super()._convert_chunk_to_generation_chunk(readable_chunk, default_chunk_class, base_generation_info)
        if made is not None and isinstance(usage, dict) and ("cost" in usage or not is_readable(usage)):
            # ChatOpenAI keeps the token counts of a stream only. In a list, since LangChain adds up the numbers
            # of all chunks, and fails where it cannot.
            made.message.response_metadata["token_usages"] = [usage]
        return made


class BilledError(ValueError):
    """An error in the body of a reply that also reports usage."""

    def __init__(self, error: Any, usage: Any) -> None:
        super().__init__(error)
        self.body = {"usage": usage}


def _plain(usage: Any) -> Any:
    """What the SDK has made of it, as it was sent."""
    return usage.to_dict(mode="python", warnings=False) if hasattr(usage, "to_dict") else usage
