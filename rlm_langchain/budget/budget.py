"""The budget of a run: what its whole tree may spend."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_langchain.validation import NumberRule, check_numbers


# --- What a run may spend, and what it has spent -------------------------------------------------
@dataclass(frozen=True, slots=True)
class Budget:
    """What a whole tree of runs may spend. `None` means no limit of that kind, but for `iterations`."""

    usd: float | None = None
    calls: int | None = 1000
    """Model calls of all kinds, root turns included."""
    tokens: int | None = None
    """Input and output tokens, cached ones included."""
    seconds: float | None = None
    """Of work on the run, over all resumes: not while no process works on it, whatever the time of day does."""
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
    approve_above: float | int | None = None
    """Ask a person before a fan-out that would take the run past this: a float is dollars, an int is calls."""

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for a limit that no run could keep."""
        check_numbers(self, BUDGETED)


BUDGETED = (
    NumberRule("usd"),
    NumberRule("calls", 1, whole=True),
    NumberRule("tokens", 1, whole=True),
    NumberRule("seconds"),
    NumberRule("iterations", 1, whole=True),
    NumberRule("depth", 1, whole=True),
    NumberRule("concurrency", 1, whole=True),
    NumberRule("output_tokens", 1, whole=True),
    NumberRule("tool_calls", whole=True),
    NumberRule("requests_per_minute", 1, whole=True),
    NumberRule("approve_above"),
)
"""What the limits of a budget must be."""
