"""Makes chat models that users pass in send through the shared HTTP connections.

The SDKs of OpenAI and Anthropic keep one connection pool for all event loops, but a connection belongs to one loop.
On the next loop the first request fails, or it is sent, paid for and lost. Their pools also get slow with many
concurrent requests. A client or proxy that the user chose is kept; other providers' classes are used as they are.
"""

from __future__ import annotations

from typing import Any


def use_shared_http(chat: Any) -> Any:
    """Return a copy of the chat model that sends through the shared pools and does not retry itself, or the chat
    model unchanged where that is not possible."""
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


def uses_shared_http(chat: Any) -> bool:
    """Return whether the requests of a chat model go through our transport, where they can be changed."""
    from rlm_langchain.models.http.transport import async_client

    clients = (getattr(chat, "root_async_client", None), vars(chat).get("_async_client"))
    return any(getattr(client, "_client", None) is async_client() for client in clients if client is not None)
