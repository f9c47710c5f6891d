"""An upper bound for the tokens of a text, for any model. It is reserved before the text is sent.

The only bound that holds for every tokenizer and every text is one token per byte, four to five times too much for
English. But a vocabulary of 100,000 tokens or more contains all common pairs of lower-case letters, and a space is
part of the following word. So nine of these characters are at most five tokens, even if they are random (measured
with o200k and cl100k, which Qwen's tokenizer is derived from). All other characters count as their bytes: digits,
which Qwen reads one by one, capitals and punctuation, emoji, rare Chinese characters. For prose the bound is two to
three times the true number. The difference is released when the reply reports its usage.
"""

from __future__ import annotations

from string import ascii_lowercase

_SMALL = f"{ascii_lowercase} ".encode()


def most_tokens(text: str) -> int:
    """Return an upper bound of the token count. A text made to defeat tokenizers may exceed it."""
    data = text.encode("utf-8", "replace")
    other = len(data.translate(None, _SMALL))
    return other - (other - len(data)) * 5 // 9
