"""What models read. One `.md` per prompt, in a folder per profile; a hole in a prompt is an error.

A profile that lacks a prompt uses the default one. `system` is the same bytes in every run, so that providers
can cache it; what is particular to a run comes after it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


def render(profile: str, name: str, **values: object) -> str:
    """The prompt `name` of a profile, filled in. Raises `KeyError` for a missing value."""
    return _template(profile, name).substitute(values)


@cache
def _template(profile: str, name: str) -> Template:
    here = files(__package__)
    own = here.joinpath(profile, f"{name}.md")
    file = own if own.is_file() else here.joinpath("default", f"{name}.md")
    return Template(file.read_text(encoding="utf-8").strip())
