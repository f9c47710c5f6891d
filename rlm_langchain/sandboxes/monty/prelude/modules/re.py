"""Python's `re`, built on Monty's: VERBOSE, `$` before a final newline, empty matches, classes, replacements."""

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


def _tokens(pattern):
    """Yield the pieces of a pattern, with whether each is in a set of characters. Escapes and the beginnings of sets
    are one piece."""
    out, at, inside = [], 0, False
    while at < len(pattern):
        c = pattern[at]
        token = pattern[at : at + 2] if c == "\\" else c
        if c == "[" and not inside:
            inside = True
            token += "^" * (pattern[at + 1 : at + 2] == "^")
            token += "]" * (
                pattern[at + len(token) : at + len(token) + 1] == "]"
            )  # the first one does not end the set
            out.append((token, False))
        else:
            inside = inside and c != "]"
            out.append((token, inside))
        at += len(token)
    return out


def _native_text(pattern, flags, wide):
    """The pattern as Monty must be given it.

    Its `$` and \\Z mean something else, in sets it has operators, and it ignores ASCII. With `wide` the classes of
    characters are those of Python: Monty's leave out some digits and blanks, and have marks among the letters.
    """
    multiline = flags & 8
    sets, classes = (_ASCII_SETS, _ASCII_CLASSES) if flags & 256 else (_SETS, _CLASSES) if wide else ({}, {})
    out, before = [], ""
    for token, inside in _tokens(pattern):
        if inside:
            if token in "[&~" or token == "-" == before:
                token = "\\" + token
            else:
                token = sets.get(token, token)
        elif token[:1] == "[" and token != "[":
            pass
        elif token == "\\Z":
            token = _END
        elif token == "$" and not multiline:
            token = f"(?=\\n?{_END})"
        else:
            token = classes.get(token, token)
        out.append(token)
        before = token
    return "".join(out)


_END = r"(?![\s\S])"


def _classes(word, digit, blank, negated):
    """How the classes of characters are written, in sets and outside of them."""
    inside = {"\\w": word, "\\W": f"[^{word}]", "\\s": blank, "\\S": f"[^{blank}]", "\\d": digit, "\\D": negated}
    outside = {name: f"[{inside[name]}]" for name in inside}
    outside["\\b"] = f"(?:(?<=[{word}])(?![{word}])|(?<![{word}])(?=[{word}]))"
    outside["\\B"] = f"(?:(?<=[{word}])(?=[{word}])|(?<![{word}])(?![{word}]))"
    return inside, outside


_SETS, _CLASSES = _classes(r"\p{L}\p{N}_", r"\d", r"\s\x1c-\x1f", r"\D")
_ASCII_SETS, _ASCII_CLASSES = _classes("A-Za-z0-9_", "0-9", r" \t\n\r\f\v", "[^0-9]")


def _bare(pattern):
    """The pattern without what looks around and takes nothing."""
    out, depth, tokens = [], 0, _tokens(pattern)
    for n in range(len(tokens)):
        token, inside = tokens[n]
        if depth:
            depth += 0 if inside else (token == "(") - (token == ")")
            continue
        ahead = "".join([tokens[k][0] for k in range(n, min(n + 4, len(tokens)))])
        if not inside and (ahead[:3] in ("(?=", "(?!") or ahead in ("(?<=", "(?<!")):
            depth = 1
            out.append("(?:)")
        elif inside or token not in ("^", "$", "\\b", "\\B", "\\A", "\\Z"):
            out.append(token)
        else:
            out.append("(?:)")
    return "".join(out)


def _made(pattern, flags):
    return _re.compile(pattern, flags) if flags else _re.compile(pattern)


class _Match:
    """A match of a pattern that has a mark of ours as its last group."""

    def __init__(self, found):
        self._found = found

    def __repr__(self):
        return f"<re.Match object; span={self.span()!r}, match={self.group()!r}>"

    def __getitem__(self, group):
        return self._found.group(group)

    def group(self, *groups):
        return self._found.group(*groups)

    def groups(self, default=None):
        return tuple([default if group is None else group for group in self._found.groups()[:-1]])

    def groupdict(self, default=None):
        found = self._found.groupdict()
        return {k: default if found[k] is None else found[k] for k in found}

    def start(self, group=0):
        return self._found.start(group)

    def end(self, group=0):
        return self._found.end(group)

    def span(self, group=0):
        return self._found.span(group)


class Pattern:
    """A pattern that matches what Python's would."""

    def __init__(self, pattern, flags, text, native_flags):
        self.pattern, self.flags = pattern, flags | 32
        self._text, self._how = text, native_flags
        narrow = native_flags & 256
        self._made = [None, None]
        self._differs = not narrow and any(c in text for c in ("\\w", "\\W", "\\b", "\\B", "\\s", "\\S"))
        self._plain = self._native(False)
        self._takes_nothing = _takes_nothing(text, native_flags)
        known = _made(f"(?:{_native_text(text, native_flags, False)})|", native_flags).search("")
        self.groups, self._names = len(known.groups()), list(known.groupdict())

    def __repr__(self):
        return f"re.compile({self.pattern!r})"

    def _native(self, wide, before="", after=""):
        return _made(before + _native_text(self._text, self._how, wide) + after, self._how)

    def _for(self, string):
        """What to search this text with: most texts hold nothing that Monty takes for something else."""
        if not self._is_wide(string):
            return self._plain
        if self._made[0] is None:
            self._made[0] = self._native(True)
        return self._made[0]

    def _is_wide(self, string):
        return self._differs and not (
            string.isascii()
            and "\x1c" not in string
            and "\x1d" not in string
            and "\x1e" not in string
            and "\x1f" not in string
        )

    def search(self, string):
        return self._for(string).search(string)

    def match(self, string):
        return self._for(string).match(string)

    def fullmatch(self, string):
        return self._for(string).fullmatch(string)

    def finditer(self, string):
        if not self._takes_nothing:
            return list(self._for(string).finditer(string))
        return self._each(string)

    def _each(self, string):
        """Matches that may be empty: at each place an empty one, if that is preferred, and then one that is not.

        Monty has no empty match right after another one, and after an empty one none at the same place.
        """
        wide = self._is_wide(string)
        if self._made[1] is None or self._made[1][0] is not wide:
            empty = self._native(wide, "(?=(?:", ")())")
            longer = self._native(wide, "\\G(?:(?:", ")(?!\\G)()|[\\s\\S])")
            self._made[1] = (wide, empty, longer)
        _, empty, longer = self._made[1]
        nothing = {m.start(): m for m in empty.finditer(string) if m.start(self.groups + 1) == m.start()}
        found, at = [], 0
        for m in longer.finditer(string):
            at = m.start()
            if at in nothing:
                found.append(_Match(nothing[at]))
            at = m.end()
            if m.group(self.groups + 1) is not None:
                found.append(_Match(m))
        if at in nothing:
            found.append(_Match(nothing[at]))
        return found

    def findall(self, string):
        if not self._takes_nothing:
            return self._for(string).findall(string)
        return [_found(m) for m in self._each(string)]

    def split(self, string, maxsplit=0):
        if not self._takes_nothing:
            return self._for(string).split(string, maxsplit)
        out, at = [], 0
        for m in self._each(string)[: maxsplit or None]:
            out.append(string[at : m.start()])
            out += list(m.groups())
            at = m.end()
        return out + [string[at:]]

    def sub(self, repl, string, count=0):
        if isinstance(repl, str) and "\\" not in repl and not self._takes_nothing:
            return self._for(string).sub(repl, string, count)
        return self.subn(repl, string, count)[0]

    def subn(self, repl, string, count=0):
        parts = None
        if isinstance(repl, str):
            parts = _template(repl, self) if "\\" in repl else [repl]
        out, at = [], 0
        found = self.finditer(string)[: count or None]
        for m in found:
            out.append(string[at : m.start()])
            if parts is None:
                out.append(repl(m))
            else:
                out += [part if isinstance(part, str) else m.group(part[0]) or "" for part in parts]
            at = m.end()
        out.append(string[at:])
        return "".join(out), len(found)


def _takes_nothing(text, flags):
    """Whether a pattern may match empty text somewhere."""
    try:
        return _made(_native_text(_bare(text), flags, False), flags).search("") is not None
    except Exception:
        return True


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}


def _template(repl, pattern):
    """A replacement as its texts, and its groups in lists of one."""
    out, at = [], 0
    while at < len(repl):
        c = repl[at]
        at += 1
        if c != "\\":
            out.append(c)
            continue
        if at >= len(repl):
            raise error("bad escape (end of pattern)")
        c = repl[at]
        at += 1
        if c == "g":
            end = repl.find(">", at)
            if repl[at : at + 1] != "<" or end < 0:
                raise error("missing <, or group name not ended, in the replacement")
            name, at = repl[at + 1 : end], end + 1
            out.append([_group(int(name) if name.isdecimal() else name, pattern)])
        elif c == "0" or c in "1234567" and _OCTAL.match(repl[at - 1 : at + 2]):
            more = _DIGITS.match(repl[at - 1 : at + 2]).group()
            at += len(more) - 1
            if int(more, 8) > 255:
                raise error("octal escape value outside of range 0-0o377")
            out.append(chr(int(more, 8)))
        elif c in "123456789":
            if repl[at : at + 1] in tuple("0123456789"):
                c += repl[at]
                at += 1
            out.append([_group(int(c), pattern)])
        elif c in _ESCAPES:
            out.append(_ESCAPES[c])
        elif c.isascii() and c.isalpha():
            raise error(f"bad escape \\{c}")
        else:
            out.append("\\" + c)
    return out


_OCTAL = _re.compile("[0-3][0-7][0-7]")
_DIGITS = _re.compile("[0-7]{1,3}")


def _group(name, pattern):
    if isinstance(name, int):
        if name > pattern.groups:
            raise error(f"invalid group reference {name}")
    elif name not in pattern._names:
        raise IndexError(f"unknown group name {name!r}")
    return name


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


_LEADING = _re.compile(r"\(\?([aimsux]+)\)")
_LETTERS = {"a": int(A), "i": int(I), "m": int(M), "s": int(S), "u": 32, "x": 64}


def _compile(pattern, flags):
    leading = _LEADING.match(pattern)
    if leading is not None:
        for letter in leading.group(1):
            flags = int(flags) | _LETTERS[letter]
    text, native_flags = _split(pattern[leading.end() :] if leading is not None else pattern, flags)
    return Pattern(pattern, int(flags), text, native_flags)


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
    return compile(pattern, flags).sub(repl, string, count)


def subn(pattern, repl, string, count=0, flags=0):
    return compile(pattern, flags).subn(repl, string, count)


def purge():
    pass
