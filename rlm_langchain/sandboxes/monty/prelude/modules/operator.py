"""Functions for operators, as in `operator`."""

# ruff: noqa
# mypy: ignore-errors


def itemgetter(*keys):
    if len(keys) == 1:
        return lambda value: value[keys[0]]
    return lambda value: tuple([value[key] for key in keys])


def attrgetter(*names):
    if len(names) == 1:
        return lambda value: _attribute(value, names[0])
    return lambda value: tuple([_attribute(value, name) for name in names])


def _attribute(value, name):
    for part in name.split("."):
        value = getattr(value, part)
    return value


def methodcaller(name, *args, **kwargs):
    return lambda value: getattr(value, name)(*args, **kwargs)


def add(a, b):
    return a + b


def sub(a, b):
    return a - b


def mul(a, b):
    return a * b


def truediv(a, b):
    return a / b


def floordiv(a, b):
    return a // b


def mod(a, b):
    return a % b


def neg(a):
    return -a


def and_(a, b):
    return a & b


def or_(a, b):
    return a | b


def xor(a, b):
    return a ^ b


def eq(a, b):
    return a == b


def ne(a, b):
    return a != b


def lt(a, b):
    return a < b


def le(a, b):
    return a <= b


def gt(a, b):
    return a > b


def ge(a, b):
    return a >= b


def contains(a, b):
    return b in a


def getitem(a, b):
    return a[b]


def concat(a, b):
    return a + b


def not_(a):
    return not a
