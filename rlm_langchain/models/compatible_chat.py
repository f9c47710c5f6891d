"""A chat model for servers that are compatible with OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from rlm_langchain.models.usage import is_valid_usage, valid_usage


class CompatibleChat(ChatOpenAI):
    """`ChatOpenAI` for other servers: caps output with `max_tokens`, and keeps the cost of a streamed reply.

    All compatible servers accept `max_tokens`, but only some of them its successor `max_completion_tokens`.
    """

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the settings. Of the URL only the host name is shown, because the rest may contain a password."""
        for name, value in super().__repr_args__():
            yield name, urlsplit(value).hostname if name == "openai_api_base" and value else value

    def _get_request_payload(self, input_: Any, *, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        if messages := payload.get("messages"):
            # The SDK searches every part of every message for fields to rename, a sixth of the CPU time of a call.
            # Fields in `extra_body` replace fields of the same name without being searched.
            extra = payload.get("extra_body") or {}
            payload["extra_body"] = {**self._extra_fields(messages), **extra, "messages": messages}
            payload["messages"] = []
        return payload

    def _extra_fields(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return additional request fields for this server that OpenAI's API does not have."""
        return {}

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        """Return the reply even if its usage is invalid. The reported usage is kept and checked later."""
        usage = response.get("usage") if isinstance(response, dict) else getattr(response, "usage", None)
        reported = usage if isinstance(usage, dict | None) else _as_dict(usage)
        error = response.get("error") if isinstance(response, dict) else getattr(response, "error", None)
        if error and reported:
            raise BilledError(error, reported)
        if isinstance(response, dict):
            response = {**response, "usage": valid_usage(reported)}
        else:
            response.usage = valid_usage(reported)
        result: ChatResult = super()._create_chat_result(response, generation_info)
        if result.llm_output is not None:
            result.llm_output["token_usage"] = reported
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        usage = chunk.get("usage")
        readable_chunk = {**chunk, "usage": valid_usage(usage)} if usage else chunk
        result = super()._convert_chunk_to_generation_chunk(
            readable_chunk, default_chunk_class, base_generation_info
        )
        if result is not None and isinstance(usage, dict) and ("cost" in usage or not is_valid_usage(usage)):
            # ChatOpenAI keeps only the token counts of a stream. They are put into a list because LangChain adds up
            # the numbers of all chunks, and fails for values that it cannot add.
            result.message.response_metadata["token_usages"] = [usage]
        return result


class BilledError(ValueError):
    """An error in the body of a reply that also reports usage."""

    def __init__(self, error: Any, usage: Any) -> None:
        super().__init__(error)
        self.body = {"usage": usage}


def _as_dict(usage: Any) -> Any:
    """Return a usage object of the SDK as the dict that was received."""
    return usage.to_dict(mode="python", warnings=False) if hasattr(usage, "to_dict") else usage
