"""`literal_eval` of `ast`: a text as the value that it spells, and nothing is called."""

# ruff: noqa
# mypy: ignore-errors

import re

_STRING = r"[rRbBuU]{0,2}(?:\"\"\"(?:\\(?s:.)|(?s:.))*?\"\"\"|'''(?:\\(?s:.)|(?s:.))*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
_NUMBER = r"(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?[jJ]?)"
_WORD = r"(?:None|True|False|set\(\))"
_TOKEN = re.compile(f"(?:{_STRING}|{_NUMBER}|{_WORD}|[\\[\\](){{}},:+\\-]|\\s+)")


def literal_eval(text):
    """The value. Raises ValueError for anything that is no literal."""
    text, at = text.strip(), 0
    for token in _TOKEN.finditer(text):
        before, after = text[:at].rstrip()[-1:], text[token.end() : token.end() + 1]
        word = token.group()
        if token.start() != at or (word.isidentifier() and (after.isalnum() or after == "_")):
            break
        if word == "(" and (before.isalnum() or before in "\"')]}_" and before):
            raise ValueError("malformed literal: a call")
        if word in "+-" and (before.isalnum() or before in "\"')]}_" and before):
            raise ValueError("malformed literal: a sum")
        at = token.end()
    if at < len(text) or not text:
        raise ValueError(f"malformed literal at character {at}: {text[at : at + 30]!r}")
    return eval(text)
