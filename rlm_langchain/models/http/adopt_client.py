"""Chat models that users bring, on our connections.

The SDKs of OpenAI and Anthropic keep one pool of connections for all event loops, and a connection belongs to one:
on the next loop the first request fails, or is sent, paid and lost. Besides, theirs become slow with many requests
at once. Whoever has chosen a client or a proxy keeps it; other providers' classes are used as they are.
"""

from __future__ import annotations

from typing import Any


def use_shared_http(chat: Any) -> Any:
    """A copy that sends through our pools, and leaves it to us to try again; or the chat model as it is."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(chat).__mro__}
    if "langchain_openai" in kinds and chat.root_async_client and not (chat.http_async_client or chat.openai_proxy):
        client = _with_our_client(chat.root_async_client)
        return chat.model_copy(update={"root_async_client": client, "async_client": client.chat.completions})
    if "langchain_anthropic" in kinds and not chat.anthropic_proxy:
        copied = chat.model_copy()
        vars(copied)["_async_client"] = _with_our_client(chat._async_client)
        return copied
    return chat


def _with_our_client(client: Any) -> Any:
    from rlm_langchain.models.http.transport import async_client

    return client.with_options(http_client=async_client(), max_retries=0)
