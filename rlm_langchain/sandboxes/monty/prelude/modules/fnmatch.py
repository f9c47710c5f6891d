"""Patterns of file names, as in `fnmatch`."""

# ruff: noqa
# mypy: ignore-errors

import re


def translate(pat):
    out, at = "", 0
    while at < len(pat):
        c = pat[at]
        at += 1
        end = pat.find("]", at + 1 if pat[at : at + 1] in ("!", "]") else at) if c == "[" else -1
        if c == "*":
            out += "(?s:.*)"
        elif c == "?":
            out += "(?s:.)"
        elif end > 0:
            inside = pat[at:end].replace("\\", "\\\\")
            out += "[" + ("^" + inside[1:] if inside[:1] == "!" else inside) + "]"
            at = end + 1
        else:
            out += re.escape(c)
    return out


def fnmatch(name, pat):
    return re.fullmatch(translate(pat), name) is not None


def fnmatchcase(name, pat):
    return fnmatch(name, pat)


def filter(names, pat):
    return [name for name in names if fnmatch(name, pat)]
