"""Built-in functions that Monty lacks or supports partly, and functions that rewritten cells call."""

# ruff: noqa
# mypy: ignore-errors


class _Missing:
    """Marks an argument that was not given, because `object()` cannot be created here."""


_MISSING = _Missing()
UnicodeError = ValueError
IOError = OSError
EnvironmentError = OSError
ConnectionError = OSError


def map(function, *iterables):
    """Apply the function in a loop of its own, so that it may call a model."""
    if len(iterables) == 1:
        return [function(item) for item in iterables[0]]
    return [function(*items) for items in zip(*iterables)]


def filter(function, iterable):
    """Filter in a loop of its own, so that the function may call a model."""
    if function is None:
        return [item for item in iterable if item]
    return [item for item in iterable if function(item)]


def _rlm_sorted(iterable, *, key=None, reverse=False):
    """Sort with a key that may call a model."""
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


def round(number, ndigits=None):
    """Round floats exactly, as in Python. Monty multiplies first, so that 2.675 would become 2.68."""
    if ndigits is None:
        return _native_round(number)
    if isinstance(number, float) and ndigits >= 0 and number - number == 0.0:
        return float(f"{number:.{ndigits}f}") if ndigits < 324 else number
    return _native_round(number, ndigits)


def callable(value):
    """Return whether it can be called."""
    kind = type(value).__name__
    return kind in _CALLABLE or _native_hasattr(value, "__call__")


_CALLABLE = ("function", "builtin_function_or_method", "method", "type", "partial", "bound_method")


def issubclass(kind, bases):
    """Check classes of this Python, which have no bases but themselves."""
    bases = bases if isinstance(bases, tuple) else (bases,)
    return kind in bases or object in bases or kind is bool and int in bases


def ascii(value):
    """Return `repr` with escapes for all non-ASCII characters."""
    return "".join([c if ord(c) < 128 else _escaped(ord(c)) for c in repr(value)])


def _escaped(code):
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def exit(code=None):
    """End the cell."""
    raise SystemExit("the cell ended itself; the REPL goes on")


def quit(code=None):
    """End the cell."""
    raise SystemExit("the cell ended itself; the REPL goes on")


def _rlm_fields(fields, decorator):
    """Record the fields of a dataclass, for `asdict` and similar functions."""

    def decorate(kind):
        made = decorator(kind)
        made.__rlm_fields__ = fields
        return made

    return decorate


def _rlm_import(module, path):
    """Implement `from module import path`, and `module.path` for a module that is imported by its full name."""
    for name in path.split("."):
        if not _native_hasattr(module, name):
            raise ImportError(f"cannot import name {name!r} from {module.__name__!r}")
        module = _native_getattr(module, name)
    return module


class _rlm_Function:
    """A function that gets no instance: a static method or a class method."""

    def __init__(self, function, given):
        self._function = function
        self._given = given

    def __call__(self, *args, **kwargs):
        return self._function(*self._given, *args, **kwargs)


def _rlm_staticmethod(kind, function):
    return _rlm_Function(function, ())


def _rlm_classmethod(kind, function):
    return _rlm_Function(function, (kind,))
