"""The table of limits: one row for each field of `Budget`, with everything else that depends on it.

Validation, stop reasons, messages to models and people, command-line flags, the limits of a batch's rows and the
tables of the manual are all made from these rows. To add a limit, add its field to `Budget` and a row here. A limit
that ends a run also needs a value of `StopReason`. The ledger enforces every limit that its `Stop` can measure in a
`Usage`; others are enforced where they are used: `CONTRIBUTING.md` says where.
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
    """A command-line flag that sets a limit."""

    flag: str
    help: str
    metavar: str = "N"
    text: bool = False
    """Whether its value may be more than a number. The command parses it itself."""

    @property
    def name(self) -> str:
        """Return the name of the parameter: `approve_above_usd` for `--approve-above-usd`."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Stop:
    """The way in which a limit ends a run."""

    reason: StopReason
    for_model: str
    """Completes "This is your last turn: ..."."""
    for_people: str
    """Completes "partial: ..."."""
    whole_tree: bool = True
    """Whether all runs of a tree share it. False: each run has its own."""
    measure: Callable[[Usage], float | None] | None = None
    """Returns how much of it a usage consumes. None: it is measured by a clock, or counted by the run itself."""
    in_ledger: bool = True
    """Whether the ledger enforces it, if all runs of a tree share it. False: it is counted where its calls are
    made."""
    held_back: bool = True
    """Whether a part of it is held back for the last call."""
    parts: float = 1
    """The rest is rounded down to a multiple of 1/`parts`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a budget."""

    field: str
    """Name of the field of `Budget`."""
    outcome: str
    """Effect of reaching the limit, for the manual."""
    least: float = 0
    whole: bool = False
    """Whether it is a whole number."""
    of_row: bool = False
    """Whether a row of a batch may set it for itself. The others belong to the whole batch."""
    option: Option | None = None
    stop: Stop | None = None


_LAST_CALL: Final = (
    'the run makes one last call, for which budget was reserved, and ends with `status="partial"` and the limit '
    "as `stop_reason`; with `complete`, if code in that call gives a whole answer, and with `failed`, if none "
    "comes"
)
_WAIT: Final = "calls wait for their turn"
_ASK: Final = "the run pauses and asks a person"

LIMITS: tuple[Limit, ...] = (
    Limit(
        "calls",
        _LAST_CALL,
        least=1,
        whole=True,
        of_row=True,
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
        of_row=True,
        option=Option("--tokens", "Limit: tokens read and written."),
        stop=Stop("tokens", "there are no tokens left", "no tokens were left", measure=attrgetter("tokens")),
    ),
    Limit(
        "usd",
        _LAST_CALL,
        of_row=True,
        option=Option("--usd", "Limit: dollars."),
        stop=Stop("usd", "there is no money left", "no money was left", measure=attrgetter("cost"), parts=1e6),
    ),
    Limit(
        "seconds",
        _LAST_CALL,
        of_row=True,
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
        option=Option("--depth", "Levels of calls below the top run."),
    ),
    Limit("concurrency", _WAIT, least=1, whole=True, option=Option("--concurrency", "Model calls at once.")),
    Limit("output_tokens", "the provider cuts off the reply", least=1, whole=True, of_row=True),
    Limit(
        "tool_calls",
        'further calls raise `LLMError` in the cell; the answer is then `partial`, with `stop_reason="tool_calls"`',
        whole=True,
        of_row=True,
        stop=Stop("tool_calls", "there are no tool calls left", "no tool calls were left", in_ledger=False),
    ),
    Limit("requests_per_minute", _WAIT, least=1, whole=True),
    Limit(
        "approve_above_calls",
        _ASK,
        whole=True,
        option=Option(
            "--approve-above-calls",
            "Ask you before sub-calls take the run past this many calls; or off.",
            text=True,
        ),
    ),
    Limit(
        "approve_above_usd",
        _ASK,
        option=Option(
            "--approve-above-usd",
            "Ask you before sub-calls take the run past this many dollars; or off.",
            text=True,
        ),
    ),
)
"""All limits, in the order in which they are checked and displayed."""

NUMBER_RULES: Final = tuple(NumberRule(limit.field, limit.least, limit.whole) for limit in LIMITS)
"""The validation rules of all limits."""

STOPS: Final[dict[StopReason, Stop]] = {limit.stop.reason: limit.stop for limit in LIMITS if limit.stop}
"""The limits that end a run, by stop reason."""

TREE_LIMITS: Final = tuple((limit, limit.stop) for limit in LIMITS if limit.stop and limit.stop.whole_tree)
"""The limits that all runs of a tree share, and how each of them ends a run."""

LEDGER_LIMITS: Final = tuple((limit, stop) for limit, stop in TREE_LIMITS if stop.in_ledger)
"""Those of them that the ledger enforces."""
