"""The budget of a run and of all runs below it."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_langchain.budget.limits import NUMBER_RULES
from rlm_langchain.validation import check_keywords, check_numbers


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a whole tree of runs. `None` means no limit, except for `iterations`.

    A call is sent only if the most that it may use fits next to everything that was spent or is in flight, over all
    processes that have worked on the run. A request whose reply never came, because the connection was lost or the
    process was killed, counts as spent with that amount. Only a provider that bills more than it was asked for can
    exceed a limit, and then by no more than the calls that are in flight at that moment.
    """

    usd: float | None = None
    """Dollars, as reported by the provider, else by price lists."""
    calls: int | None = 1000
    """Model calls of all kinds, including root turns."""
    tokens: int | None = None
    """Input and output tokens, including cached ones."""
    seconds: float | None = None
    """Seconds of working time on the run, over all resumes. Time during which no process works on it does not
    count."""
    iterations: int | None = None
    """Root turns of each run. None: 30, or 4 for a small model, which gets the compact prompts."""
    depth: int = 1
    """Levels of calls below the top run. With 1, `rlm_query` is a plain sub-call."""
    concurrency: int = 32
    """Model calls in flight at once, for the whole tree. On each level, twice as many child runs work at once."""
    output_tokens: int | None = None
    """Maximum output tokens of each call."""
    tool_calls: int = 1000
    """Calls of custom tools, for the whole tree, over all resumes."""
    requests_per_minute: int | None = None
    """Model calls that may start in any minute, including retries, for the whole tree."""
    approve_above_calls: int | None = None
    """Ask a person before a fan-out that would take the tree past this many model calls."""
    approve_above_usd: float | None = None
    """Ask a person before a fan-out that would take the tree past this many dollars."""

    @property
    def asks_person(self) -> bool:
        """Return whether a person may be asked before a fan-out."""
        return self.approve_above_calls is not None or self.approve_above_usd is not None

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a limit of the wrong type or out of range."""
        check_numbers(self, NUMBER_RULES)


check_keywords(
    Budget, {"approve_above": "give approve_above_calls=20 for calls, approve_above_usd=0.50 for dollars"}
)
