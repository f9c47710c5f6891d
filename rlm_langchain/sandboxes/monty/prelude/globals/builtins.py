"""Built-in functions that Monty lacks or has in part, and what changed cells call instead of what it lacks."""

# ruff: noqa
# mypy: ignore-errors

import re

_PATTERN = type(re.compile(""))


class _Missing:
    """Stands for an argument that was not given: `object()` cannot be made here."""


_MISSING = _Missing()

UnicodeError = ValueError
IOError = OSError
EnvironmentError = OSError
ConnectionError = OSError


def _is_type(value):
    return type(value).__name__ == "type"


def _owns(value, name):
    """Whether a value of a built-in type has a method of this name."""
    kind = type(value).__name__
    if kind in _rlm_owned:
        return name in _rlm_owned[kind]
    for base in (dict, list, set, str, tuple):
        if isinstance(value, base):
            return name in _rlm_owned[base.__name__]
    return False


def hasattr(value, name):
    """Knows the methods of built-in types."""
    return _native_hasattr(value, name) or _owns(value, name)


def getattr(value, name, default=_MISSING):
    """Knows the methods of built-in types."""
    found = _native_getattr(value, name, _MISSING)
    if found is not _MISSING:
        return found
    if default is not _MISSING and not hasattr(value, name):
        return default
    return _rlm_method(value, name)


def _rlm_method(value, name):
    """`value.name`, also where it is a method of a built-in type."""
    if name in _LACKING and not _native_hasattr(value, name) or name in _HELPED and _owns(value, name):
        return _helped(value, name)
    found = _native_getattr(value, name, _MISSING)
    if found is not _MISSING:
        return found
    if _is_type(value) and name in _rlm_owned.get(value.__name__, ()):
        return lambda self, *a, **k: _rlm_method(self, name)(*a, **k)
    if name in _rlm_makers and _owns(value, name):
        return _rlm_makers[name](value)
    return _native_getattr(value, name)


def _helped(value, name):
    if _is_type(value) and value.__name__ in _rlm_owned:
        if name == "maketrans":
            return _maketrans
        return lambda self, *a, **k: _helped(self, name)(*a, **k)
    if _owns(value, name):
        helper = _HELPED.get(name) or _LACKING[name]
        return lambda *a, **k: helper(value, *a, **k)
    return _native_getattr(value, name)


def _maketrans(x, y=None, z=None):
    if y is None:
        return {ord(k) if isinstance(k, str) else k: v for k, v in x.items()}
    if len(x) != len(y):
        raise ValueError("the first two maketrans arguments must have equal length")
    table = {ord(a): ord(b) for a, b in zip(x, y)}
    for c in z or "":
        table[ord(c)] = None
    return table


def _translate(text, table):
    out = []
    for c in text:
        new = table.get(ord(c), c)
        if new is not None:
            out.append(chr(new) if isinstance(new, int) else new)
    return "".join(out)


def _sub(pattern, repl, string, count=0):
    return _subn(pattern, repl, string, count)[0]


def _subn(pattern, repl, string, count=0):
    """What `re.subn` does, with a function too."""
    if isinstance(repl, str):
        made = len([m for m in pattern.finditer(string)])
        return pattern.sub(repl, string, count), min(made, count) if count else made
    out, at, made = [], 0, 0
    for m in pattern.finditer(string):
        if count and made >= count:
            break
        out.append(string[at : m.start()])
        out.append(repl(m))
        at, made = m.end(), made + 1
    out.append(string[at:])
    return "".join(out), made


def _union(first, *others):
    for other in others:
        first = first.union(other)
    return first.copy() if not others else first


def _intersection(first, *others):
    for other in others:
        first = first.intersection(other)
    return first.copy() if not others else first


def _difference(first, *others):
    for other in others:
        first = first.difference(other)
    return first.copy() if not others else first


def _keep(target, kept):
    for item in list(target):
        if item not in kept:
            target.discard(item)


def _symmetric(target, other):
    for item in set(other):
        if item in target:
            target.discard(item)
        else:
            target.add(item)


_LACKING = {
    "translate": _translate,
    "maketrans": lambda self, *a: _maketrans(*a),
    "format_map": lambda text, names: text.format(**names),
    "is_integer": lambda number: number == int(number),
    "bit_length": lambda number: len(bin(abs(number))) - 2 if number else 0,
    "bit_count": lambda number: bin(abs(number)).count("1"),
    "subn": _subn,
    "intersection_update": lambda target, *others: _keep(target, _intersection(target, *others)),
    "difference_update": lambda target, *others: _keep(target, _difference(target, *others)),
    "symmetric_difference_update": _symmetric,
}
_HELPED = {"sub": _sub, "union": _union, "intersection": _intersection, "difference": _difference}


def _rlm_delete(target, key):
    """`del target[key]`."""
    if isinstance(target, dict):
        if type(target).__name__ == "Counter":
            target.pop(key, None)
        else:
            target.pop(key)
    elif isinstance(target, list):
        if isinstance(key, int):
            target.pop(key)
        else:
            gone = set(range(len(target))[key])
            target[:] = [item for n, item in enumerate(target) if n not in gone]
    else:
        target.__delitem__(key)


def map(function, *iterables):
    """In a loop of its own, so that the function may ask a model."""
    if len(iterables) == 1:
        return [function(item) for item in iterables[0]]
    return [function(*items) for items in zip(*iterables)]


def filter(function, iterable):
    """In a loop of its own, so that the function may ask a model."""
    if function is None:
        return [item for item in iterable if item]
    return [item for item in iterable if function(item)]


def _rlm_sorted(iterable, *, key=None, reverse=False):
    """`sorted` with a key that may ask a model."""
    if key is None:
        return _native_sorted(iterable, reverse=reverse)
    items = list(iterable)
    keys = [key(item) for item in items]
    return [items[n] for n in _native_sorted(range(len(items)), key=lambda n: keys[n], reverse=reverse)]


def _rlm_max(*items, key=None, default=_MISSING):
    return _best(_native_max, items, key, default)


def _rlm_min(*items, key=None, default=_MISSING):
    return _best(_native_min, items, key, default)


def _best(pick, items, key, default):
    items = list(items[0]) if len(items) == 1 else items
    if not items and default is not _MISSING:
        return default
    if key is None:
        return pick(items)
    keys = [key(item) for item in items]
    return items[pick(range(len(items)), key=lambda n: keys[n])]


def callable(value):
    """Whether it can be called."""
    kind = type(value).__name__
    return kind in _CALLABLE or _is_type(value) or _native_hasattr(value, "__call__")


_CALLABLE = ("function", "builtin_function_or_method", "method", "type", "partial", "bound_method")


def issubclass(kind, bases):
    """For classes of this Python: they have no bases but themselves."""
    bases = bases if isinstance(bases, tuple) else (bases,)
    return kind in bases or object in bases or kind is bool and int in bases


def ascii(value):
    """`repr` with escapes for all that is not ASCII."""
    return "".join([c if ord(c) < 128 else _escaped(ord(c)) for c in repr(value)])


def _escaped(code):
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def exit(code=None):
    """Ends the cell."""
    raise SystemExit("the cell ended itself; the REPL goes on")


def quit(code=None):
    """Ends the cell."""
    raise SystemExit("the cell ended itself; the REPL goes on")


def _rlm_fields(fields, decorator):
    """A dataclass that knows its fields, for `asdict` and its kin."""

    def decorate(kind):
        made = decorator(kind)
        made.__rlm_fields__ = fields
        return made

    return decorate


def _rlm_import(module, path):
    """`from module import path`, and `module.path` of a module that is imported by its whole name."""
    for name in path.split("."):
        if not _native_hasattr(module, name):
            raise ImportError(f"cannot import name {name!r} from {module.__name__!r}")
        module = _native_getattr(module, name)
    return module


_rlm_iter = iter
_rlm_next = next
_rlm_end = _Missing()


class _rlm_Generator:
    """What a generator function returns: its blocks, each of which says what comes next."""

    def __init__(self, blocks):
        self._blocks = blocks
        self._at = 0

    def __iter__(self):
        return self

    def __next__(self):
        while self._at >= 0:
            block = self._blocks[self._at]
            self._at = -1
            step = block()
            if not isinstance(step, tuple):
                self._at = step
            else:
                self._at = step[0]
                return step[1]
        raise StopIteration

    def send(self, value):
        if value is not None:
            raise NotImplementedError("values cannot be sent into a generator here")
        return self.__next__()

    def close(self):
        self._at = -1
