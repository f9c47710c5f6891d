"""Long values on several lines, as in `pprint`."""

# ruff: noqa
# mypy: ignore-errors


def pformat(object, indent=1, width=80, depth=None, *, compact=False, sort_dicts=True, underscore_numbers=False):
    return _format(object, indent, width, 0, 0, sort_dicts)


def pprint(object, stream=None, indent=1, width=80, depth=None, *, compact=False, sort_dicts=True, **other):
    print(_format(object, indent, width, 0, 0, sort_dicts))


def pp(object, *args, **kwargs):
    print(_format(object, 1, 80, 0, 0, False))


def _format(value, indent, width, at, after, sort):
    """`at`: the column of the value; `after`: characters that follow it on its last line."""
    shown = _sorted_repr(value, sort)
    if len(shown) <= width - at - after or not isinstance(value, (list, tuple, dict, set)) or not value:
        return shown
    begin, end = {"dict": "{}", "list": "[]", "tuple": "()", "set": "{}"}.get(type(value).__name__, "[]")
    lines, items = [], _items(value, sort)
    for number, (label, item) in enumerate(items):
        last = number == len(items) - 1
        tail = 1 + after if last else 1
        lines.append(label + _format(item, indent, width, at + indent + len(label), tail, sort))
    inside = (",\n" + " " * (at + indent)).join(lines)
    return begin + " " * (indent - 1) + inside + ("," if isinstance(value, tuple) and len(value) == 1 else "") + end


def _items(value, sort):
    if isinstance(value, dict):
        keys = _in_order(value) if sort else list(value)
        return [(f"{key!r}: ", value[key]) for key in keys]
    return [("", item) for item in (_in_order(value) if isinstance(value, set) else value)]


def _in_order(keys):
    try:
        return sorted(keys)
    except TypeError:
        return sorted(keys, key=lambda key: (type(key).__name__, repr(key)))


def _sorted_repr(value, sort):
    if sort and isinstance(value, dict):
        return "{" + ", ".join([f"{key!r}: {_sorted_repr(value[key], sort)}" for key in _in_order(value)]) + "}"
    if type(value) is list:
        return "[" + ", ".join([_sorted_repr(item, sort) for item in value]) + "]"
    return repr(value)
