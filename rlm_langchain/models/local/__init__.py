"""The local model, which needs no key: Qwen2.5-Coder-1.5B-Instruct on this machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlm_langchain.models.model import Model

NAME = "local"
WINDOW = 16_384
"""Context window of the server in tokens. A root conversation may use all of it."""
SUB_WINDOW = 8_192
"""Most tokens of a sub-call, so that the cached root conversation is not evicted."""
OUTPUT = {"root": 512, "sub": 256}
"""Most output tokens of a reply."""


def model(role: Literal["root", "sub"]) -> Model:
    """Return the local model and start its server. The weights are found or downloaded first.

    Raises `MissingDependency` if the package or the weights are not available.
    """
    from rlm_langchain.models.http.transport import async_client, sync_client
    from rlm_langchain.models.local import server, weights
    from rlm_langchain.models.local.chat import LocalChat
    from rlm_langchain.models.local.server_process import ROOT_SLOT, SUB_SLOT
    from rlm_langchain.models.model import FREE, Model
    from rlm_langchain.prompts.render import few_shot_messages

    path = weights.find()
    begin = few_shot_messages("compact")
    mark = hashlib.sha256(repr(begin).encode()).hexdigest()[:16]
    running = server.shared_server(path, NAME, WINDOW, begin, weights.folder() / "states" / f"{mark}.bin")
    running.ready()
    chat = LocalChat.on(
        running,
        ROOT_SLOT if role == "root" else SUB_SLOT,
        max_tokens=OUTPUT[role],
        max_retries=0,
        timeout=None,
        stream_usage=True,
        use_responses_api=False,
        http_client=sync_client(),
        http_async_client=async_client(),
    )
    return Model(NAME, chat, "compact", WINDOW if role == "root" else SUB_WINDOW, FREE)
