"""Wrapping and indenting, as in `textwrap`."""

# ruff: noqa
# mypy: ignore-errors

import re


def _pieces(text, hyphens):
    """Return words and the blanks between them. Words are split after hyphens."""
    pieces = []
    for word in re.findall(r"\s+|\S+", text):
        if hyphens and "-" in word:
            pieces.extend(re.findall(r"(?:[^-]*[A-Za-z]-(?=[A-Za-z]{2})|--+(?=\w)|[^-]+(?=--)|[^-]*-*)", word))
        else:
            pieces.append(word)
    return [piece for piece in pieces if piece]


def wrap(
    text,
    width=70,
    initial_indent="",
    subsequent_indent="",
    expand_tabs=True,
    replace_whitespace=True,
    drop_whitespace=True,
    break_long_words=True,
    break_on_hyphens=True,
    max_lines=None,
    placeholder=" [...]",
    **other,
):
    if width <= 0:
        raise ValueError(f"invalid width {width} (must be > 0)")
    if expand_tabs:
        text = text.expandtabs()
    if replace_whitespace:
        text = re.sub(r"[\t\n\v\f\r ]", " ", text)
    waiting, lines = _pieces(text, break_on_hyphens)[::-1], []
    while waiting:
        indent = subsequent_indent if lines else initial_indent
        if drop_whitespace and lines and waiting[-1].isspace():
            waiting.pop()
        line = _taken(waiting, width - len(indent), break_long_words, break_on_hyphens)
        if drop_whitespace and line and line[-1].isspace():
            line.pop()
        if line:
            lines.append(indent + "".join(line))
    if max_lines is not None and len(lines) > max_lines:
        lines = _cut(lines[:max_lines], width, placeholder)
    return lines


def _taken(waiting, room, long_words, hyphens):
    """Return the pieces of the next line. One that fits no line is split, or stands alone."""
    line, size = [], 0
    while waiting and size + len(waiting[-1]) <= room:
        size += len(waiting[-1])
        line.append(waiting.pop())
    if waiting and len(waiting[-1]) > room:
        left = 1 if room < 1 else room - size
        if long_words:
            piece = waiting.pop()
            hyphen = piece.rfind("-", 0, left) if hyphens and len(piece) > left else -1
            end = hyphen + 1 if hyphen > 0 and piece[:hyphen].strip("-") else left
            line.append(piece[:end])
            waiting.append(piece[end:])
        elif not line:
            line.append(waiting.pop())
    return line


def _cut(lines, width, placeholder):
    """Return the lines, the last of which ends in the placeholder."""
    last = lines[-1]
    while last and len(last) + len(placeholder) > width:
        last = last.rpartition(" ")[0].rstrip()
    return lines[:-1] + [(last + placeholder) if last else placeholder.lstrip()]


def fill(text, width=70, **kwargs):
    return "\n".join(wrap(text, width, **kwargs))


def shorten(text, width, placeholder=" [...]", **kwargs):
    text = " ".join(text.strip().split())
    if len(text) <= width:
        return text
    out = ""
    for word in text.split(" "):
        longer = f"{out} {word}" if out else word
        if len(longer) + len(placeholder) > width:
            break
        out = longer
    return out + placeholder if out else placeholder.strip()


def dedent(text):
    lines = [line if line.strip() else "" for line in text.split("\n")]
    margin = None
    for line in lines:
        if line:
            indent = line[: len(line) - len(line.lstrip(" \t"))]
            if margin is None or margin.startswith(indent):
                margin = indent
            elif not indent.startswith(margin):
                same = 0
                while same < min(len(margin), len(indent)) and margin[same] == indent[same]:
                    same += 1
                margin = margin[:same]
    return "\n".join([line[len(margin or "") :] if line else line for line in lines])


def indent(text, prefix, predicate=None):
    lines = text.splitlines(True)
    return "".join([prefix + line if (predicate(line) if predicate else line.strip()) else line for line in lines])
