"""Makes every character of a text show, for previews, outputs and terminals.

Covered: control characters (so ANSI escapes, backspaces, carriage returns), direction marks and overrides,
zero-width and other invisible characters, tag characters and variation selectors that can carry a hidden
message, line separators other than a newline, lone surrogates.
Not covered: letters that look alike, and what the text says.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, without tab and newline
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # soft hyphen, joiners, fillers
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # zero width, separators, direction
    "\ufe00-\ufe0d"  # variation selectors; the last two only choose between text and emoji, and stay
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # annotation and format controls
    "\ud800-\udfff"  # halves of a surrogate pair: no UTF-8 can hold them
    "\U000e0000-\U000e0fff"  # tags and variation selectors: a hidden alphabet
    "]+"
)


def visible(text: str) -> str:
    r"""The text with each character that cannot be seen written as its escape; `\n` and `\t` stay.

    The result encodes to UTF-8 and changes nothing when shown. It is for reading: a backslash that was
    already there stays as it is, so the escape cannot be undone.
    """
    return _INVISIBLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
