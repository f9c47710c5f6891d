"""The strategies of the RLM literature. Each is a folder with `SKILL.md` for the root model and `helpers.py` for
the REPL.

They are plug-ins, found by entry point. `common.py` is put before the helpers of each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rlm_langchain import Strategy, read_skill

HERE = Path(__file__).parent
NAMES = tuple(sorted(folder.parent.name for folder in HERE.glob("*/SKILL.md")))


def __getattr__(name: str) -> Strategy:
    """Return the strategy of this name. Its folder is read on each access."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    skill = read_skill(HERE / name)
    common = (HERE / "common.py").read_text(encoding="utf-8")
    return replace(skill, prelude=f"{common}\n\n{skill.prelude}")
