"""Escapes of HTML, as in `html`."""

# ruff: noqa
# mypy: ignore-errors

import re

_NAMED = {
    "amp": "&",
    "lt": "<",
    "gt": ">",
    "quot": '"',
    "apos": "'",
    "nbsp": "\u00a0",
    "copy": "\u00a9",
    "reg": "\u00ae",
    "trade": "\u2122",
    "hellip": "\u2026",
    "mdash": "\u2014",
    "ndash": "\u2013",
    "lsquo": "\u2018",
    "rsquo": "\u2019",
    "ldquo": "\u201c",
    "rdquo": "\u201d",
    "laquo": "\u00ab",
    "raquo": "\u00bb",
    "bull": "\u2022",
    "middot": "\u00b7",
    "euro": "\u20ac",
    "pound": "\u00a3",
    "yen": "\u00a5",
    "cent": "\u00a2",
    "deg": "\u00b0",
    "plusmn": "\u00b1",
    "times": "\u00d7",
    "divide": "\u00f7",
    "frac12": "\u00bd",
    "sect": "\u00a7",
    "para": "\u00b6",
    "eacute": "\u00e9",
    "egrave": "\u00e8",
    "agrave": "\u00e0",
    "ccedil": "\u00e7",
    "ouml": "\u00f6",
    "auml": "\u00e4",
    "uuml": "\u00fc",
    "Ouml": "\u00d6",
    "Auml": "\u00c4",
    "Uuml": "\u00dc",
    "szlig": "\u00df",
    "ntilde": "\u00f1",
    "larr": "\u2190",
    "rarr": "\u2192",
    "uarr": "\u2191",
    "darr": "\u2193",
}


def escape(s, quote=True):
    s = s.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return s.replace('"', "&quot;").replace("'", "&#x27;") if quote else s


def unescape(s):
    out, at = [], 0
    for m in re.finditer(r"&(#[0-9]+|#[xX][0-9a-fA-F]+|\w+);", s):
        out.append(s[at : m.start()])
        out.append(_character(m.group(1), m.group(0)))
        at = m.end()
    return "".join(out) + s[at:]


def _character(name, whole):
    if name[0] != "#":
        return _NAMED.get(name, whole)
    code = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    return chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"
