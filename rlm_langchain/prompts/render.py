"""What models read. One `.md` per prompt, in a folder per profile; a hole in a prompt is an error.

A profile that lacks a prompt uses the default one. `system` is the same bytes in every run, so that providers
can cache it; what is particular to a run comes after it. Behind it may stand examples, as a conversation: lines
`=== user` and `=== assistant` begin its turns.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from string import Template

_SPEAKER = re.compile(r"^=== (user|assistant)\n", re.MULTILINE)


def render(profile: str, name: str, **values: object) -> str:
    """The prompt `name` of a profile, filled in. Raises `KeyError` for a missing value."""
    return _template(profile, name).substitute(values)


@cache
def few_shot_messages(profile: str, examples: str | None = None) -> tuple[tuple[str, str], ...]:
    """How a conversation of a profile begins: the system prompt and examples, as (role, text).

    The examples are those of the prompt of this name; None: those that stand in the system prompt.
    """
    system, *turns = _SPEAKER.split(render(profile, "system"))
    if examples is not None:
        _, *turns = _SPEAKER.split(render(profile, examples))
    spoken = zip(turns[::2], turns[1::2], strict=True)
    return (("system", system.strip()), *((role, text.strip()) for role, text in spoken))


def has(profile: str, name: str) -> bool:
    """Whether a profile has a prompt of this name of its own."""
    return files(__package__).joinpath(profile, f"{name}.md").is_file()


@cache
def _template(profile: str, name: str) -> Template:
    here = files(__package__)
    own = here.joinpath(profile, f"{name}.md")
    file = own if own.is_file() else here.joinpath("default", f"{name}.md")
    return Template(file.read_text(encoding="utf-8").strip())
