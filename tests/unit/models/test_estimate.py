"""What is reserved for a prompt is never less than what a tokenizer makes of it."""

from __future__ import annotations

import random
import string
import warnings
from importlib.resources import files

import pytest

from rlm_langchain.models.estimate import most_tokens

CODE = files("rlm_langchain").joinpath("budget", "ledger.py").read_text(encoding="utf-8")
TEXTS = {
    "nothing": "",
    "prose": "The quick brown fox jumps over the lazy dog. " * 20,
    "code": CODE,
    "digits": "3141592653589793" * 40,
    "capitals": "ZQXJKVBPYGFWMUCLDRHSNIOATE" * 20,
    "marks": "{}[]();:!?<>@#$%^&*~`|\\/" * 20,
    "emoji": "\U0001f9ff\U0001faa9\u2764\ufe0f" * 50,
    "rare": "\u9f98\u9750\u9f49\u7c72" * 50,
    "surrogate": "a\ud800b",
    "blank": " " * 300 + "\n" * 300 + "\t" * 300,
}


def count(encoding: str, text: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how it reads its own data
        import bpe_openai

        return len(bpe_openai.get_encoding(encoding).encode(text))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_no_text_has_more_tokens_than_are_reserved_for_it(name, encoding):
    text = TEXTS[name].encode("utf-8", "replace").decode()
    assert count(encoding, text) <= most_tokens(TEXTS[name])


@pytest.mark.parametrize("alphabet", [string.ascii_lowercase + " ", string.ascii_letters, string.printable])
def test_not_even_characters_drawn_at_random(alphabet):
    chance = random.Random(alphabet)
    for size in (1, 10, 100, 1000, 10_000):
        text = "".join(chance.choices(alphabet, k=size))
        assert count("o200k_base", text) <= most_tokens(text)


def test_prose_is_not_reserved_for_at_a_token_a_byte():
    assert most_tokens(TEXTS["prose"]) < 0.65 * len(TEXTS["prose"])
