"""Wrapping and indenting, as in `textwrap`."""

# ruff: noqa
# mypy: ignore-errors

import re

_CHUNKS = re.compile(r"\s+|[^\s-]*[A-Za-z]-(?=[A-Za-z])|[^\s]+?(?=[A-Za-z]-[A-Za-z])[A-Za-z]-|\S+")


def _pieces(text, width, hyphens, long_words):
    """Words, cut after hyphens and where they are longer than a line."""
    pieces = []
    for word in re.findall(r"\s+|\S+", text):
        parts = (
            re.findall(r"\w*[A-Za-z]-(?=[A-Za-z]{2})|.+?(?=\b[A-Za-z]{2}\w*-)|.+", word)
            if hyphens and "-" in word
            else [word]
        )
        for part in parts:
            while long_words and len(part) > width and not part.isspace():
                pieces.append(part[:width])
                part = part[width:]
            pieces.append(part)
    return pieces


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
    if expand_tabs:
        text = text.expandtabs()
    if replace_whitespace:
        text = re.sub(r"[\t\n\v\f\r ]", " ", text)
    room = width - max(len(initial_indent), len(subsequent_indent))
    lines, line = [], []
    for piece in _pieces(text, room, break_on_hyphens, break_long_words):
        indent = subsequent_indent if lines else initial_indent
        if drop_whitespace and piece.isspace() and not line and (lines or True):
            if lines or not drop_whitespace:
                continue
            continue
        if sum([len(p) for p in line]) + len(piece) > width - len(indent) and line:
            lines.append(_line(indent, line, drop_whitespace))
            line = []
            if drop_whitespace and piece.isspace():
                continue
        line.append(piece)
    if line and (not drop_whitespace or "".join(line).strip()):
        lines.append(_line(subsequent_indent if lines else initial_indent, line, drop_whitespace))
    if max_lines is not None and len(lines) > max_lines:
        lines = _cut(lines[:max_lines], width, placeholder)
    return lines


def _line(indent, pieces, drop):
    text = "".join(pieces)
    return indent + (text.rstrip() if drop else text)


def _cut(lines, width, placeholder):
    """The lines, the last one ending in the placeholder."""
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
