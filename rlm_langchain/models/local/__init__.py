"""The small model that comes along: Qwen2.5-Coder-1.5B-Instruct, on this machine, without a key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlm_langchain.models.model import Model

NAME = "local"
WINDOW = 16_384
"""Tokens of the server; a root conversation may take all of them."""
SUB_WINDOW = 8_192
"""Tokens that a sub-call may take, so that the root keeps its place."""
OUTPUT = {"root": 512, "sub": 256}
"""Tokens of a reply at most."""


def model(role: Literal["root", "sub"]) -> Model:
    """The local model, its server on the way. The weights are found or downloaded first.

    Raises `MissingDependency` when the package or the weights are not to be had.
    """
    from rlm_langchain.models.http.transport import async_client, sync_client
    from rlm_langchain.models.local import server as local_server
    from rlm_langchain.models.local import weights
    from rlm_langchain.models.local.chat import LocalChat
    from rlm_langchain.models.local.server_process import ROOT_SLOT, SUB_SLOT
    from rlm_langchain.models.model import FREE, Model
    from rlm_langchain.prompts.render import few_shot_messages

    path = weights.find()
    begin = few_shot_messages("compact")
    mark = hashlib.sha256(repr(begin).encode()).hexdigest()[:16]
    server = local_server.shared(path, NAME, WINDOW, begin, weights.folder() / "states" / f"{mark}.bin")
    server.ready()
    chat = LocalChat.on(
        server,
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
