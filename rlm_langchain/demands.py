"""What a number that a person gives must be: a limit that is none, NaN say, would never apply."""

from __future__ import annotations

from math import isfinite

from rlm_langchain.errors import ConfigurationError


def demand(of: str, name: str, given: object, least: float, *, whole: bool = False) -> None:
    """Raise `ConfigurationError` for what is not a finite number of at least `least`. True is no number."""
    asked = f"{of}({name}={given!r}): {name}"
    if isinstance(given, bool) or not isinstance(given, int if whole else (int, float)):
        raise ConfigurationError(f"{asked} is a {'whole ' * whole}number")
    if not isfinite(given):
        raise ConfigurationError(f"{asked} is a finite number; leave it out for the default")
    if given < least:
        raise ConfigurationError(f"{asked} cannot be less than {least:g}")
