"""Renders prompts: one `.md` file each, in a folder per profile. A missing value is an error.

A profile that lacks a prompt uses the default one. `system` is the same in every run, byte for byte, so that
providers can cache it; everything specific to a run comes after it. Examples may follow it as a conversation, in
which the lines `=== user` and `=== assistant` start the turns.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from string import Template

_SPEAKER = re.compile(r"^=== (user|assistant)\n", re.MULTILINE)


def render(profile: str, name: str, **values: object) -> str:
    """Return the prompt `name` of a profile, filled in. Raises `KeyError` for a missing value."""
    return _template(profile, name).substitute(values)


@cache
def few_shot_messages(profile: str, examples: str | None = None) -> tuple[tuple[str, str], ...]:
    """Return the first messages of a profile's conversations, the system prompt and examples, as (role, text).

    `examples` is the name of the prompt with the examples. None: the examples in the system prompt.
    """
    system, *turns = _SPEAKER.split(render(profile, "system"))
    if examples is not None:
        _, *turns = _SPEAKER.split(render(profile, examples))
    examples_by_role = zip(turns[::2], turns[1::2], strict=True)
    return (("system", system.strip()), *((role, text.strip()) for role, text in examples_by_role))


def has(profile: str, name: str) -> bool:
    """Return whether a profile has its own prompt of this name."""
    return files(__package__).joinpath(profile, f"{name}.md").is_file()


@cache
def _template(profile: str, name: str) -> Template:
    folder = files(__package__)
    own = folder.joinpath(profile, f"{name}.md")
    file = own if own.is_file() else folder.joinpath("default", f"{name}.md")
    return Template(file.read_text(encoding="utf-8").strip())
