"""The strategies of the RLM literature, one folder each: `SKILL.md` for the root model, `helpers.py` for its REPL.

They are found by entry point, like anybody else's. `common.py` comes before the helpers of each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rlm_langchain import Strategy, read_skill

HERE = Path(__file__).parent
NAMES = tuple(sorted(folder.parent.name for folder in HERE.glob("*/SKILL.md")))


def __getattr__(name: str) -> Strategy:
    """The strategy of this name, read when it is asked for."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    skill = read_skill(HERE / name)
    common = (HERE / "common.py").read_text(encoding="utf-8")
    return replace(skill, prelude=f"{common}\n\n{skill.prelude}")
