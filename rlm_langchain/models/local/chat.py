"""The local model as a chat model. It waits for its server, and restricts the replies of a root model to code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from langchain_core.language_models import ModelProfile
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr, SecretStr

from rlm_langchain.models.compatible_chat import CompatibleChat
from rlm_langchain.models.local.server import LocalServer
from rlm_langchain.prompts.render import few_shot_messages


class LocalChat(CompatibleChat):
    """A model on a `LocalServer`. A conversation that starts with a system prompt is one of a root model: code
    only."""

    _server: LocalServer = PrivateAttr()
    _slot: int = PrivateAttr(default=0)

    @classmethod
    def on(cls, server: LocalServer, slot: int, **options: Any) -> LocalChat:
        """Return a chat model on this server, which caches its conversations in this slot."""
        key = SecretStr(server.key)
        profile = ModelProfile(image_inputs=False)
        chat = cls(model=server.name, base_url=server.url, api_key=key, temperature=0.0, profile=profile, **options)
        chat._server, chat._slot = server, slot
        return chat

    def _extra_fields(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id_slot": self._slot, **_grammar(messages)}

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self._server.ready().result()
        return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await _ready(self._server)
        return await super()._agenerate(*args, **kwargs)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self._server.ready().result()
        yield from super()._stream(*args, **kwargs)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        await _ready(self._server)
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk


_NO_REPETITION = {
    "temperature": 0.3,
    "seed": 1,
    "dry_multiplier": 1.0,
    "dry_allowed_length": 16,
    "dry_penalty_last_n": 2_048,
    "dry_sequence_breakers": ["```"],
}


async def _ready(server: LocalServer) -> None:
    # Shielded: others wait for the same future, and cancelling one must not cancel it for all.
    await asyncio.shield(asyncio.wrap_future(server.ready()))


def _grammar(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the grammar of a root model's reply. Before anything has been printed, it cannot be a literal
    answer.

    After two turns without an error the reply must answer; an earlier reply cannot be repeated.
    """
    if messages[0]["role"] != "system":
        return {}
    conversation = [(message["role"], message["content"]) for message in messages]
    opening = max((len(one) for one in openings() if tuple(conversation[: len(one)]) == one), default=0)
    replies = [message["content"] for message in messages[opening:] if message["role"] == "assistant"]
    last = str(messages[-1]["content"])
    root = "block" if not replies or "Error" in last else "answering"
    root = "final" if "last turn" in last else root
    value = "any" if replies else "computed"
    sampling = _NO_REPETITION if replies else {}
    return {"grammar": f"root ::= {root}\n{_rules()}value ::= {value}\n", **sampling}


@cache
def openings() -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return all message sequences with which a conversation of the compact profile may start."""
    kinds = [f"examples_{kind}" for kind in ("dict", "str")]
    plain = few_shot_messages("compact")
    return (plain[:1], plain, *(few_shot_messages("compact", kind) for kind in kinds))


@cache
def _rules() -> str:
    return files(__package__).joinpath("reply.gbnf").read_text(encoding="utf-8")
