"""The part of `dataclasses` that Monty lacks: asdict, astuple, replace, fields."""

# ruff: noqa
# mypy: ignore-errors

from dataclasses import FrozenInstanceError, dataclass, field, is_dataclass


class Field:
    """The name of a field."""

    def __init__(self, name):
        self.name = name


def _names(value):
    names = getattr(value, "__rlm_fields__", None)
    if names is None:
        raise TypeError("this takes a dataclass that was defined with @dataclass")
    return names


def fields(value):
    return tuple([Field(name) for name in _names(value)])


def asdict(value, *, dict_factory=dict):
    return dict_factory([(name, _plain(getattr(value, name))) for name in _names(value)])


def astuple(value, *, tuple_factory=tuple):
    return tuple_factory([_tuple(getattr(value, name)) for name in _names(value)])


def _plain(value):
    if hasattr(value, "__rlm_fields__") and type(value).__name__ != "type":
        return asdict(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(item) for item in value])
    return value


def _tuple(value):
    if hasattr(value, "__rlm_fields__") and type(value).__name__ != "type":
        return astuple(value)
    return type(value)([_tuple(item) for item in value]) if isinstance(value, (list, tuple)) else value


def replace(value, **changes):
    return type(value)(**({name: getattr(value, name) for name in _names(value)} | changes))
