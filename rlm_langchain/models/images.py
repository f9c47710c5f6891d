"""Pictures in messages: LangChain's standard content blocks, and an upper bound of the tokens that each takes."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from rlm_langchain.context.images import MAX_EDGE, kind_and_size

_HEAD = 65_536
"""Characters of a picture in base64 among which its size is."""


def message_with_images(prompt: str, images: Sequence[tuple[bytes, str]]) -> HumanMessage:
    """Return a message of pictures, each with its MIME type, and a prompt below them."""
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": mime_type}
        for data, mime_type in images
    ]
    return HumanMessage([*blocks, {"type": "text", "text": prompt}])


def image_tokens(width: int = MAX_EDGE, height: int = MAX_EDGE) -> int:
    """Return the most tokens that a picture of this size takes, by the rules that providers publish.

    OpenAI: 85 and 170 for each tile of 512 pixels, or 2.46 for each of at most 1,536 patches of 32 pixels.
    Anthropic: a token for 750 pixels. Google: 258 for each tile of 768 pixels. Qwen: a token for 28 x 28 pixels.
    gpt-4o-mini, which counts 33 times as many, exceeds this; the ledger learns it from the first reply.
    """
    return max(
        85 + 170 * _tiles(width, height, 512),
        min(1_536, _tiles(width, height, 32)) * 246 // 100 + 1,
        width * height // 750 + 1,
        258 * _tiles(width, height, 768),
        _tiles(width, height, 28) + 2,
    )


def _tiles(width: int, height: int, edge: int) -> int:
    return -(-width // edge) * -(-height // edge)


def tokens_of_images(messages: Sequence[BaseMessage]) -> int:
    """Return the most tokens that the pictures in messages take."""
    return sum(image_tokens(*_size(block)) for message in messages for block in _images(message))


def text_in(message: BaseMessage) -> str:
    """Return the content of a message without its pictures."""
    images = [*_images(message)]
    return str(message.text if images else message.content)


def _images(message: BaseMessage) -> Iterator[dict[str, Any]]:
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, dict) and block.get("type") == "image":
            yield block


def _size(block: dict[str, Any]) -> tuple[int, int]:
    """Return the size of a picture, or the largest that is sent if it is not known."""
    try:
        head = base64.b64decode(str(block.get("base64", ""))[:_HEAD])
    except binascii.Error:
        head = b""
    _, size = kind_and_size(io.BytesIO(head))
    return size if all(size) else (MAX_EDGE, MAX_EDGE)
