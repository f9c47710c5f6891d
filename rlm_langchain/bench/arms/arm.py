"""The plug-in interface of arms. Their entry point group is `rlm_langchain.arms`."""

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
"""Names of the fixed policies in the records of arms. Their usage is not counted."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A question, and the models and limits that all arms share."""

    root: Model
    """The model under test. RLMs use it for their turns, baselines for all calls."""
    sub: Model
    """The model that answers sub-calls of an RLM."""
    question: str
    budget: Budget
    """Limits per question and arm."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `create_rlm` that make the run durable: `checkpointer` and `home`."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A method of answering a question about a long text.

    Every arm is an RLM. In a baseline, a fixed program replaces the code that a model writes. So all arms have the
    same limits, retries, prices and records, and all can be killed and resumed.
    """

    name: str
    about: str
    """One line that describes the method."""
    build: Callable[[Setting], RLMRunnable] = field(repr=False)
    expected: Callable[[int, int], Usage] = field(repr=False)
    """Estimates the usage for `--dry-run`, from the length of the context and the model's window, both in tokens.
    Actual usage depends on the model."""


def arm(name: str) -> Arm:
    """Return an installed arm. Raises an `UnknownPlugin` that lists all arms."""
    found: Arm = plugins.load("arms", name)
    return found


def names() -> tuple[str, ...]:
    """Return the names of all installed arms."""
    return plugins.names("arms")
