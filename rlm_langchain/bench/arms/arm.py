"""What an arm is. Arms are plug-ins of the entry point group `rlm_langchain.arms`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlm_langchain import plugins
from rlm_langchain.budget.budget import Budget
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from rlm_langchain.models.model import Model
    from rlm_langchain.runnable.runnable import RLMRunnable

FREE_MODELS = frozenset({"fixed program", "no sub-calls"})
"""Names of the models in the records of arms that are none, and whose usage is not counted."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all arms of a benchmark have in common, and a question."""

    root: Model
    """The model that is compared, as a root model. Baselines ask it too."""
    sub: Model
    """The model that answers sub-calls of an RLM."""
    question: str
    budget: Budget
    """The limits of each arm for each question."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `create_rlm` that make the run durable: `checkpointer` and `home`."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to answer a question about a long text.

    Every arm is an RLM. In a baseline, a fixed program takes the place of the code that a model writes. So all arms
    have the same limits, retries, prices and records, and all of them can be killed and resumed.
    """

    name: str
    about: str
    """What it does, in one line."""
    build: Callable[[Setting], RLMRunnable] = field(repr=False)
    expected: Callable[[int, int], Usage] = field(repr=False)
    """Estimates, for `--dry-run`, the usage for a context of so many tokens, with a model that reads so many at
    once. The truth depends on the model."""


def arm(name: str) -> Arm:
    """Return an installed arm. Raises `UnknownPlugin`, which lists all."""
    found: Arm = plugins.load("arms", name)
    return found


def names() -> tuple[str, ...]:
    """Return the names of all installed arms."""
    return plugins.names("arms")
