"""Methods of built-in types as values, and methods that Monty lacks."""

# ruff: noqa
# mypy: ignore-errors


class _Missing:
    """Marks an argument that was not given, because `object()` cannot be created here."""


_MISSING = _Missing()


def _is_type(value):
    return type(value).__name__ == "type"


def _owns(value, name):
    """Return whether a value of a built-in type has a method of this name."""
    kind = type(value).__name__
    if kind in _rlm_owned:
        return name in _rlm_owned[kind]
    for base in (dict, list, set, str, tuple):
        if isinstance(value, base):
            return name in _rlm_owned[base.__name__]
    return False


def hasattr(value, name):
    """Support the methods of built-in types."""
    return _native_hasattr(value, name) or _owns(value, name)


def getattr(value, name, default=_MISSING):
    """Support the methods of built-in types."""
    found = _native_getattr(value, name, _MISSING)
    if found is not _MISSING:
        return found
    if default is not _MISSING and not hasattr(value, name):
        return default
    return _rlm_method(value, name)


def _rlm_method(value, name):
    """Return `value.name`, also if it is a method of a built-in type."""
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
    "intersection_update": lambda target, *others: _keep(target, _intersection(target, *others)),
    "difference_update": lambda target, *others: _keep(target, _difference(target, *others)),
    "symmetric_difference_update": _symmetric,
}
_HELPED = {"union": _union, "intersection": _intersection, "difference": _difference}


def _rlm_delete(target, key):
    """Do `del target[key]`."""
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
