"""The table of limits: one row for each field of `Budget`, and everything else that is said or done about it.

The checks of a budget, the stop reasons, what models and people are told, the flags of the command and the tables
of the manual are all made from these rows. To add a limit, add its field to `Budget` and a row here; one that ends
a run needs its word in `StopReason` too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from rlm_langchain.types import StopReason, Usage
from rlm_langchain.validation import NumberRule


@dataclass(frozen=True, slots=True)
class Option:
    """A flag of the command that sets a limit."""

    flag: str
    help: str
    metavar: str = "N"
    text: bool = False
    """Whether it takes more than a number: the command reads it itself."""

    @property
    def name(self) -> str:
        """The name of the parameter: `--approve-above-usd` is `approve_above_usd`."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Stop:
    """How a limit ends a run."""

    reason: StopReason
    for_model: str
    """Completes "This is your last turn: ..."."""
    for_people: str
    """Completes "partial: ..."."""
    whole_tree: bool = True
    """Whether all runs of a tree draw on it together. False: each run has its own."""
    measure: Callable[[Usage], float | None] | None = None
    """How much of it calls use. None: it is measured by a clock, or counted by the run itself."""
    held_back: bool = True
    """Whether a share of it is held back for the last call."""
    parts: float = 1
    """What is left of it is told in so many parts of one, rounded down."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a budget."""

    field: str
    """Of `Budget`."""
    outcome: str
    """What happens when it is reached, for the manual."""
    least: float = 0
    whole: bool = False
    """Whether it counts things."""
    option: Option | None = None
    stop: Stop | None = None

    @property
    def rule(self) -> NumberRule:
        """What its number must be."""
        return NumberRule(self.field, self.least, self.whole)


_LAST_CALL: Final = (
    'the run makes one last call, for which a share was held back, and ends with `status="partial"` and the limit '
    "as `stop_reason`; complete, if code in that call gives a whole answer"
)
_WAIT: Final = "calls wait for their turn"
_ASK: Final = "the run pauses and asks a person"

LIMITS: tuple[Limit, ...] = (
    Limit(
        "calls",
        _LAST_CALL,
        least=1,
        whole=True,
        option=Option("--calls", "Limit: model calls of all kinds."),
        stop=Stop(
            "calls", "there are no model calls left", "no model calls were left", measure=attrgetter("calls")
        ),
    ),
    Limit(
        "tokens",
        _LAST_CALL,
        least=1,
        whole=True,
        option=Option("--tokens", "Limit: tokens read and written."),
        stop=Stop("tokens", "there are no tokens left", "no tokens were left", measure=attrgetter("tokens")),
    ),
    Limit(
        "usd",
        _LAST_CALL,
        option=Option("--usd", "Limit: dollars."),
        stop=Stop("usd", "there is no money left", "no money was left", measure=attrgetter("cost"), parts=1e6),
    ),
    Limit(
        "seconds",
        _LAST_CALL,
        option=Option("--seconds", "Limit: seconds of work, over all resumes."),
        stop=Stop("seconds", "there is no time left", "no time was left", parts=10),
    ),
    Limit(
        "iterations",
        _LAST_CALL,
        least=1,
        whole=True,
        option=Option("--iterations", "Limit: turns of each run (30, small models 4)."),
        stop=Stop("iterations", "there are no turns left", "no turns were left", whole_tree=False, held_back=False),
    ),
    Limit(
        "depth",
        "`rlm_query` is a plain `llm_query`",
        least=1,
        whole=True,
        option=Option("--depth", "Levels of runs below each other."),
    ),
    Limit("concurrency", _WAIT, least=1, whole=True, option=Option("--concurrency", "Model calls at once.")),
    Limit("output_tokens", "the reply is cut by the provider", least=1, whole=True),
    Limit("tool_calls", "one call more is an `LLMError` in the cell", whole=True),
    Limit("requests_per_minute", _WAIT, least=1, whole=True),
    Limit(
        "approve_above_calls",
        _ASK,
        whole=True,
        option=Option(
            "--approve-above-calls", "Ask you before sub-calls take the run past so many calls; or off.", text=True
        ),
    ),
    Limit(
        "approve_above_usd",
        _ASK,
        option=Option(
            "--approve-above-usd", "Ask you before sub-calls take the run past so many dollars; or off.", text=True
        ),
    ),
)
"""In the order in which what is left of them is shown, and in which they are checked."""

STOPS: Final[dict[StopReason, Stop]] = {limit.stop.reason: limit.stop for limit in LIMITS if limit.stop}
"""The stop reasons that are limits."""

TREE_LIMITS: Final = tuple((limit, limit.stop) for limit in LIMITS if limit.stop and limit.stop.whole_tree)
"""The limits on which all runs of a tree draw together, and how each of them ends a run."""
