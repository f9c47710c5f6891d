"""Makes all characters of a text visible, for previews, outputs and terminals, and defuses text for prompts.

Covered: control characters (ANSI escapes, backspaces, carriage returns), direction marks and overrides,
zero-width and other invisible characters, tag characters and variation selectors that can carry a hidden
message, line separators other than a newline, lone surrogates. For prompts also the marks of chat templates
that separate speakers, because a server that renders a prompt to one text would interpret them.

Not covered: letters that look alike, the meaning of the text, and marks of templates that are not listed here.
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

_TEMPLATE_MARKS = re.compile(
    r"<(?=\|[^<>\n]{1,60}\|>)"  # ChatML, Llama 3, Phi, Harmony, Command R
    "|<(?=\uff5c[^<>\n]{1,60}\uff5c>)"  # DeepSeek
    r"|<(?=<?/?(?:s|bos|eos|pad|unk|SYS|(?:start|end)_of_(?:turn|image)|tool_(?:call|response)|think)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|ARGS|THINK|gMASK|sop)\])"
)


def visible(text: str) -> str:
    r"""Replace every invisible character by its escape; `\n` and `\t` stay.

    The result can be encoded as UTF-8 and has no effect when displayed. It cannot be converted back, because
    existing backslashes stay as they are.
    """
    return _INVISIBLE.sub(_escape, text)


def quotable(text: str) -> str:
    r"""Prepare a text for a prompt: visible, and with marks of chat templates broken up (`\x3c|im_start|>`)."""
    return _TEMPLATE_MARKS.sub(_escape_first, visible(text))


def one_line(name: object) -> str:
    r"""Prepare a file name for a message: visible, on one line (`\n` and `\t` become escapes, too)."""
    return visible(str(name)).replace("\n", "\\n").replace("\t", "\\t")


def _escape_first(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):x}"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def fence(text: str, most: int) -> str:
    """Put a text into a fenced block for a prompt, with a fence that the text cannot close. The text is cut in the
    middle to `most` characters, visible, and has the marks of chat templates broken up."""
    cut = quotable(clip(text.rstrip("\n"), most))
    longest = max((len(run) for run in re.findall(r"`+", cut)), default=0)
    backquotes = "`" * max(3, longest + 1)
    return f"{backquotes}\n{cut}\n{backquotes}"


def unfence(text: str) -> str:
    """Return the text inside the fenced block that `fence` made, or the text itself if there is none."""
    found = re.search(r"^(`{3,})\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    return found[2] if found else text


def clip(text: str, most: int) -> str:
    """Cut a text longer than `most` characters to its head and tail, with its true length between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} of {len(text):,} characters left out ...]\n{text[-half:]}"


def shows_nothing(text: str) -> bool:
    """Return whether a text has only characters that nobody sees: blanks, control characters, zero-width ones."""
    return not any(char.isprintable() and not char.isspace() for char in text)
