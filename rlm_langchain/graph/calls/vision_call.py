"""Answers calls of `llm_query` with pictures. They leave the store here, and nowhere else: state and records have
handles."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.limiters import PerEventLoop
from rlm_langchain.context.formats.scaled import JPEG_QUALITY, MAX_PNG_BYTES, ScaledImage, scaled
from rlm_langchain.context.images import MAX_EDGE, MAX_IMAGES, handles_in
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.model_call import ModelCall, ModelCallHandler
from rlm_langchain.models.images import image_tokens, message_with_images
from rlm_langchain.run.ask_model import ModelRequest, recorded_reply
from rlm_langchain.types import CallResult

MAX_AT_ONCE = 8
"""Most questions whose pictures are in memory at once."""
_LIMITER: PerEventLoop[asyncio.Semaphore] = PerEventLoop(lambda: asyncio.Semaphore(MAX_AT_ONCE))


class VisionCallHandler(ModelCallHandler):
    """Handles `vision`: one call of the model for sub-calls, with pictures."""

    def most_read(self, site: CallSite) -> int:
        """Return the most tokens of the prompt of the call, as if each picture were sent in full size."""
        images = min(len(handles_in(site.numbered.call.context)), MAX_IMAGES)
        return super().most_read(site) + images * image_tokens()

    def call_of(self, site: CallSite) -> ModelCall:
        """Return the call to the model."""
        return VisionCall.of(site)


class VisionCall(ModelCall):
    """A call to the model for sub-calls, with pictures."""

    __slots__ = ()

    async def reply(self, config: RunnableConfig) -> CallResult:
        """Return the model's answer. A model that is known not to see is not asked."""
        if wrong := self._fault(config):
            return CallResult(None, f"not asked: {wrong}")
        return await super().reply(config)

    def _fault(self, config: RunnableConfig) -> str | None:
        """Return why this cannot be asked, or None."""
        handles, model = handles_in(self.numbered.call.context), self.model.chosen(config)
        if model.sees is False:
            return (
                f"{model.name} reads only text, and nothing else in this REPL sees pictures: say so in the answer, "
                "and that a model that sees can be given with recursive_model= or --sub-model"
            )
        if not handles:
            return "there are no pictures in images: pass a list of handles from the context"
        if len(handles) > MAX_IMAGES:
            return (
                f"images has {len(handles):,} pictures, and at most {MAX_IMAGES} are sent at once: ask more often"
            )
        odd = next((number for number, one in enumerate(handles) if not _is_handle(one)), None)
        return None if odd is None else f'images[{odd}] is no handle: pass the dict that has the key "image"'

    async def _ask(self, request: ModelRequest, config: RunnableConfig) -> CallResult:
        if recorded_reply(self.tree, request) is not None:
            return await super()._ask(request, config)
        async with _LIMITER.of_this_loop():
            try:
                async with asyncio.timeout(self.tree.ledger.seconds_left()):
                    images = await asyncio.to_thread(self._images)
            except ValueError as error:
                return CallResult(None, f"not asked: {error}")
            except TimeoutError:
                return CallResult(None, "not asked: the time of the run is over", refused="seconds")
            message = message_with_images(self._prompt(), images)
            return await super()._ask(replace(request, messages=[message]), config)

    def _images(self) -> list[ScaledImage]:
        """Return the pictures as they are sent. Raises `ValueError` with the reason if one cannot be."""
        found, store = list[ScaledImage](), self.components.store.images
        for number, handle in enumerate(handles_in(self.numbered.call.context)):
            data = store.read(handle["image"])
            if data is None:
                raise ValueError(f"images[{number}] is not a picture of this context: pass its handles unchanged")
            try:
                found.append(scaled(data, handle.get("page")))
            except ValueError as error:
                raise ValueError(f"images[{number}] cannot be sent: {error}") from error
        return found

    @property
    def _context(self) -> Any:
        return self.numbered.call.context.get("context")  # type: ignore[union-attr]  # `_fault` made sure

    def _described_only(self) -> list[BaseMessage]:
        """Return the ids of the pictures, and how they are scaled: they are read only if the request is sent."""
        pictures = [[one["image"], one.get("page")] for one in handles_in(self.numbered.call.context)]
        return [HumanMessage(f"{pictures} {MAX_EDGE} {MAX_PNG_BYTES} {JPEG_QUALITY}")]


def _is_handle(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("image"), str)
        and (value.get("page") is None or type(value["page"]) is int)
    )
