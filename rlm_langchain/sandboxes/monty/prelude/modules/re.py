"""The part of `re` that Monty lacks: VERBOSE, subn, functions as replacements, `$` before a final newline,
empty matches.
"""

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
    """Return the pattern without the blanks and comments of VERBOSE, and the flags without VERBOSE."""
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


def _ends(pattern, flags):
    """Return the pattern with explicit ends of text, because `$` and \\Z mean something else in Monty."""
    multiline = flags & 8 or _MULTILINE.search(pattern) is not None
    out, at, inside = [], 0, False
    while at < len(pattern):
        c = pattern[at]
        if c == "\\":
            pair = pattern[at : at + 2]
            out.append(_END if pair == "\\Z" and not inside else pair)
            at += 2
            continue
        if c == "[" and not inside:
            inside = True
            start = at + 1 + (pattern[at + 1 : at + 2] == "^")
            if pattern[start : start + 1] == "]":  # the first one does not end the set
                out.append(pattern[at : start + 1])
                at = start + 1
                continue
        elif c == "]":
            inside = False
        out.append(f"(?=\\n?{_END})" if c == "$" and not inside and not multiline else c)
        at += 1
    return "".join(out)


_END = r"(?![\s\S])"
_MULTILINE = _re.compile(r"\(\?[aiLsux]*m")


def _made(pattern, flags):
    return _re.compile(pattern, flags) if flags else _re.compile(pattern)


class _Pattern:
    """A pattern that Monty would match differently from Python."""

    def __init__(self, pattern, flags, native, text):
        self.pattern, self.flags = pattern, flags | 32
        self._native = native
        self._anywhere = _made(f"(?={text})", flags) if native.search("") is not None else None

    def __repr__(self):
        return f"re.compile({self.pattern!r})"

    def search(self, string):
        return self._native.search(string)

    def match(self, string):
        return self._native.match(string)

    def fullmatch(self, string):
        return self._native.fullmatch(string)

    def finditer(self, string):
        """Also yield an empty match right after another match, which Monty omits."""
        found = list(self._native.finditer(string))
        if self._anywhere is None:
            return found
        starts = {m.start() for m in found}
        ends = {m.end() for m in found if m.end() > m.start()} - starts
        if ends:
            found += [m for m in self._anywhere.finditer(string) if m.start() in ends]
            order = sorted(range(len(found)), key=lambda n: found[n].span())
            found = [found[n] for n in order]
        return found

    def findall(self, string):
        if self._anywhere is None:
            return self._native.findall(string)
        return [_found(m) for m in self.finditer(string)]

    def split(self, string, maxsplit=0):
        if self._anywhere is None:
            return self._native.split(string, maxsplit)
        out, at = [], 0
        for m in self.finditer(string)[: maxsplit or None]:
            out.append(string[at : m.start()])
            out += list(m.groups())
            at = m.end()
        return out + [string[at:]]

    def sub(self, repl, string, count=0):
        return self.subn(repl, string, count)[0]

    def subn(self, repl, string, count=0):
        if self._anywhere is None:
            return _rlm_method(self._native, "subn")(repl, string, count)
        if isinstance(repl, str) and "\\" in repl:
            raise ValueError(
                "this pattern matches empty text, for which a replacement with a backslash is not there: give a "
                "function, or a pattern that does not match empty text (+ in place of *)"
            )
        out, at = [], 0
        found = self.finditer(string)[: count or None]
        for m in found:
            out.append(string[at : m.start()])
            out.append(repl if isinstance(repl, str) else repl(m))
            at = m.end()
        out.append(string[at:])
        return "".join(out), len(found)


def _found(m):
    groups = ["" if group is None else group for group in m.groups()]
    return m.group() if not groups else groups[0] if len(groups) == 1 else tuple(groups)


_compiled = {}


def compile(pattern, flags=0):
    if not isinstance(pattern, str):
        return pattern
    key = (pattern, int(flags))
    if key not in _compiled:
        if len(_compiled) >= 500:
            _compiled.clear()
        _compiled[key] = _compile(pattern, flags)
    return _compiled[key]


def _compile(pattern, flags):
    text, flags = _split(pattern, flags)
    if "$" in text and not flags & 8 or "\\Z" in text:
        text = _ends(text, flags)
    native = _made(text, flags)
    return native if native.search("") is None and text == pattern else _Pattern(pattern, flags, native, text)


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
