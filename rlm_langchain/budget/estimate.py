"""How many tokens a text may be, whichever model reads it: what is reserved before it is sent.

A token is at least one byte, and that is all that holds for every tokenizer and every text. For English it would
be four to five times too much. But in a vocabulary of 100,000 tokens or more all common pairs of small letters
are there, and a space goes with the word after it: so nine of these characters are no more than five tokens, even
drawn at random (measured with o200k and cl100k, from which that of Qwen comes). Everything else counts as its
bytes: digits, which Qwen reads one by one, capitals and marks, emoji, rare Chinese characters. Prose comes out at
two to three times what it is. What was not used comes back when the reply tells.
"""

from __future__ import annotations

from string import ascii_lowercase

_SMALL = f"{ascii_lowercase} ".encode()


def most_tokens(text: str) -> int:
    """How many tokens a text is at most, but for one that is made to be read badly."""
    data = text.encode("utf-8", "replace")
    other = len(data.translate(None, _SMALL))
    return other - (other - len(data)) * 5 // 9
