"""`urllib.parse`: addresses in their parts."""

# ruff: noqa
# mypy: ignore-errors

_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"


def _quote(string, safe="/", encoding=None, errors=None):
    out = []
    for byte in string.encode() if isinstance(string, str) else string:
        out.append(chr(byte) if chr(byte) in _SAFE or byte < 128 and chr(byte) in safe else f"%{byte:02X}")
    return "".join(out)


def _unquote(string, encoding="utf-8", errors="replace"):
    if "%" not in string:
        return string
    parts = string.split("%")
    out = parts[0].encode()
    for part in parts[1:]:
        try:
            out += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            out += ("%" + part).encode()
    return out.decode("utf-8", "replace")


class ParseResult:
    """The parts of an address."""

    def __init__(self, scheme, netloc, path, params, query, fragment):
        self.scheme, self.netloc, self.path = scheme, netloc, path
        self.params, self.query, self.fragment = params, query, fragment
        host = netloc.rpartition("@")[2]
        name, _, port = host.partition(":")
        self.hostname, self.port = name.lower() or None, int(port) if port.isdigit() else None

    def _parts(self):
        return (self.scheme, self.netloc, self.path, self.params, self.query, self.fragment)

    def __iter__(self):
        return iter(self._parts())

    def __getitem__(self, n):
        return self._parts()[n]

    def __eq__(self, other):
        return tuple(self) == tuple(other)

    def __repr__(self):
        names = ("scheme", "netloc", "path", "params", "query", "fragment")
        return "ParseResult(" + ", ".join([f"{n}={p!r}" for n, p in zip(names, self._parts())]) + ")"

    def geturl(self):
        return _unparse(self._parts())


def _parse(url, scheme="", allow_fragments=True):
    rest, _, fragment = url.partition("#") if allow_fragments else (url, "", "")
    rest, _, query = rest.partition("?")
    head, colon, tail = rest.partition(":")
    if colon and head[:1].isalpha() and head.replace("+", "").replace("-", "").replace(".", "").isalnum():
        scheme, rest = head.lower(), tail
    netloc = ""
    if rest[:2] == "//":
        netloc, slash, path = rest[2:].partition("/")
        rest = slash + path
    return ParseResult(scheme, netloc, rest, "", query, fragment)


def _unparse(parts):
    scheme, netloc, path, params, query, fragment = parts
    url = (f"{scheme}:" if scheme else "") + (f"//{netloc}" if netloc else "") + path
    return url + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else "")


def _pairs(qs, keep_blank_values=False, **other):
    out = []
    for part in qs.split("&"):
        key, _, value = part.partition("=")
        if part and (value or keep_blank_values):
            out.append((_unquote(key.replace("+", " ")), _unquote(value.replace("+", " "))))
    return out


def _query(qs, keep_blank_values=False, **other):
    out = {}
    for key, value in _pairs(qs, keep_blank_values):
        out.setdefault(key, []).append(value)
    return out


def _encode(query, doseq=False, **other):
    pairs = query.items() if isinstance(query, dict) else query
    out = []
    for key, value in pairs:
        for one in value if doseq and isinstance(value, (list, tuple)) else [value]:
            out.append(f"{_quote(str(key), '').replace('%20', '+')}={_quote(str(one), '').replace('%20', '+')}")
    return "&".join(out)


def _join(base, url, allow_fragments=True):
    b, u = _parse(base), _parse(url)
    if u.scheme:
        return url
    if u.netloc:
        return f"{b.scheme}:{url}"
    if not u.path:
        return _unparse((b.scheme, b.netloc, b.path, "", u.query or b.query, u.fragment))
    path = u.path if u.path[0] == "/" else b.path.rpartition("/")[0] + "/" + u.path
    parts = []
    for part in path.split("/"):
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part not in (".", ".."):
            parts.append(part)
    if path.endswith(("/.", "/..")):
        parts.append("")
    return _unparse((b.scheme, b.netloc, "/".join(parts), "", u.query, u.fragment))


class _Parse:
    """The module."""


parse = _Parse()
parse.quote, parse.unquote, parse.urlparse, parse.urlsplit = _quote, _unquote, _parse, _parse
parse.quote_plus = lambda s, safe="", **k: _quote(s, safe + " ").replace(" ", "+")
parse.unquote_plus = lambda s, **k: _unquote(s.replace("+", " "))
parse.urlunparse, parse.urljoin, parse.urlencode = _unparse, _join, _encode
parse.parse_qs, parse.parse_qsl, parse.ParseResult = _query, _pairs, ParseResult
