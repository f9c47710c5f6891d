"""A language model of 40 KB that says nothing sensible: all that is needed to try a server for real."""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path
from typing import Any

WIDTH, HEADS, INNER, CONTEXT = 32, 2, 64, 16_384
LETTERS = ["▁", "\n", *map(chr, range(33, 127))]
WORDS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS]
KINDS = [2, 3, 3, *[6] * 256, *[1] * len(LETTERS)]
"""Of each token: 1 normal, 2 unknown, 3 control, 6 a byte."""
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "

SETTINGS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": CONTEXT,
    "llama.embedding_length": WIDTH,
    "llama.block_count": 1,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.scores": [0.0] * len(WORDS),
    "tokenizer.ggml.token_type": KINDS,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": TEMPLATE,
}
SHAPES = {
    "token_embd.weight": (WIDTH, len(WORDS)),
    "output_norm.weight": (WIDTH,),
    "output.weight": (WIDTH, len(WORDS)),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_k.weight": (WIDTH, WIDTH),
    "blk.0.attn_v.weight": (WIDTH, WIDTH),
    "blk.0.attn_output.weight": (WIDTH, WIDTH),
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (WIDTH, INNER),
    "blk.0.ffn_up.weight": (WIDTH, INNER),
    "blk.0.ffn_down.weight": (INNER, WIDTH),
}


def write(path: Path, seed: int = 0) -> Path:
    """The model as a GGUF file, version 3: settings, the tensors' names and places, their values."""
    chance = random.Random(seed)
    head, data = b"", b""
    for key, value in SETTINGS.items():
        head += _text(key) + _value(value)
    for name, shape in SHAPES.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        size = shape[0] * (shape[1] if len(shape) > 1 else 1)
        data += array("f", (chance.gauss(0.0, 0.5) for _ in range(size))).tobytes()
        data += b"\0" * (-len(data) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(SHAPES), len(SETTINGS)) + head
    path.write_bytes(start + b"\0" * (-len(start) % 32) + data)
    return path


def _value(value: Any) -> bytes:
    match value:
        case list():
            kinds = {int: (5, "<i"), float: (6, "<f"), str: (8, "")}
            kind, form = kinds[type(value[0])]
            items = (_text(item) if kind == 8 else struct.pack(form, item) for item in value)
            return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(items)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case float():
            return struct.pack("<If", 6, value)
        case _:
            return struct.pack("<II", 4, value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
