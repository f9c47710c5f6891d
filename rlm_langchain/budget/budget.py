"""The budget of a run: what its whole tree may spend."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.validation import check_keywords, check_numbers


@dataclass(frozen=True, slots=True)
class Budget:
    """What a whole tree of runs may spend. `None` means no limit of that kind, but for `iterations`.

    A call is sent only if the most that it may use fits beside everything that was spent or is in flight, over all
    processes that have worked on the run. A request whose reply never came, because the connection was lost or the
    process was killed, counts as spent at that most. A limit can be passed only by a provider that bills more than
    it was asked for, and then by no more than the calls that are in flight at that moment.
    """

    usd: float | None = None
    """Dollars, by the provider's own figures or by price lists."""
    calls: int | None = 1000
    """Model calls of all kinds, root turns included."""
    tokens: int | None = None
    """Input and output tokens, cached ones included."""
    seconds: float | None = None
    """Seconds of work on the run, over all resumes: time in which no process works on it does not count."""
    iterations: int | None = None
    """Root turns of each run. None: 30, or 4 for a small model, one that is given the compact prompts."""
    depth: int = 1
    """How many levels of runs may lie below the root's sub-calls: 1 makes `rlm_query` a leaf call."""
    concurrency: int = 32
    """Model calls in flight at once, for the whole tree; twice as many child runs are at work, on each level."""
    output_tokens: int | None = None
    """A cap on the output of each call."""
    tool_calls: int = 1000
    """Calls of custom tools, of the whole tree, over all resumes."""
    requests_per_minute: int | None = None
    """Model calls that may begin in any minute, retries included, for the whole tree."""
    approve_above_calls: int | None = None
    """Ask a person before a fan-out that would take the tree past so many model calls."""
    approve_above_usd: float | None = None
    """Ask a person before a fan-out that would take the tree past so many dollars."""

    @property
    def asks_person(self) -> bool:
        """Whether a person may be asked before a fan-out."""
        return self.approve_above_calls is not None or self.approve_above_usd is not None

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for a limit that no run could keep."""
        check_numbers(self, (limit.rule for limit in LIMITS))


check_keywords(
    Budget, {"approve_above": "give approve_above_calls=20 for calls, approve_above_usd=0.50 for dollars"}
)
