"""What Monty's `re` lacks: VERBOSE, subn, and functions as replacements."""

# ruff: noqa
# mypy: ignore-errors

import re as _re

VERBOSE = X = 64
UNICODE = U = 32
IGNORECASE = I = _re.IGNORECASE
MULTILINE = M = _re.MULTILINE
DOTALL = S = _re.DOTALL
ASCII = A = _re.ASCII
NOFLAG = 0
Pattern = _re.Pattern
Match = _re.Match
escape = _re.escape
error = PatternError = _re.error


def _split(pattern, flags):
    """The pattern without the blanks and comments of VERBOSE, and the flags without it."""
    flags = int(flags)
    if not flags & 64:
        return pattern, flags & ~32
    out, at, inside = [], 0, False
    while at < len(pattern):
        c = pattern[at]
        if c == "\\":
            out.append(pattern[at : at + 2])
            at += 2
            continue
        if c == "[" and not inside:
            inside = True
            if pattern[at + 1 : at + 2] == "]" or pattern[at + 1 : at + 3] == "^]":
                end = at + 2 + (pattern[at + 1] == "^")
                out.append(pattern[at:end])
                at = end
                continue
        elif c == "]":
            inside = False
        elif not inside and c in " \t\n\r\f\v":
            at += 1
            continue
        elif not inside and c == "#":
            end = pattern.find("\n", at)
            at = len(pattern) if end < 0 else end
            continue
        out.append(c)
        at += 1
    return "".join(out), flags & ~(64 | 32)


def compile(pattern, flags=0):
    if not isinstance(pattern, str):
        return pattern
    pattern, flags = _split(pattern, flags)
    return _re.compile(pattern, flags) if flags else _re.compile(pattern)


def search(pattern, string, flags=0):
    return compile(pattern, flags).search(string)


def match(pattern, string, flags=0):
    return compile(pattern, flags).match(string)


def fullmatch(pattern, string, flags=0):
    return compile(pattern, flags).fullmatch(string)


def findall(pattern, string, flags=0):
    return compile(pattern, flags).findall(string)


def finditer(pattern, string, flags=0):
    return compile(pattern, flags).finditer(string)


def split(pattern, string, maxsplit=0, flags=0):
    return compile(pattern, flags).split(string, maxsplit)


def sub(pattern, repl, string, count=0, flags=0):
    return _rlm_method(compile(pattern, flags), "sub")(repl, string, count)


def subn(pattern, repl, string, count=0, flags=0):
    return _rlm_method(compile(pattern, flags), "subn")(repl, string, count)


def purge():
    pass
