"""What a call has used, by what its provider says of it: every figure is checked before it is believed.

A figure that cannot be is not used: no number, negative, beyond all reason, smaller than its own parts, next to
nothing for a long text. Then what we know is counted instead, and the usage is marked as estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import Any, NamedTuple

from rlm_langchain.context.describe import BYTES_PER_TOKEN
from rlm_langchain.models import pricing
from rlm_langchain.models.model import Model
from rlm_langchain.types import Usage

MOST_TOKENS = 2**53
"""Of one call. A larger count is no count."""
MOST_DOLLARS = 1e6
"""Of one call."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_PARTS = ("prompt_tokens_details", "completion_tokens_details")
LONGEST_TOKEN = 128
"""Bytes: the longest tokens that there are are runs of spaces."""


class StreamedUsage(NamedTuple):
    """What a provider said in the middle of a stream that it had used."""

    told: Any
    """As in `usage_metadata`."""
    tokens: int
    """About how many it had sent since the last time that it said so."""


@dataclass(slots=True)
class _Figures:
    """Counts that can be believed."""

    input: int | None = None
    output: int | None = None
    cached: int = 0
    written: int | None = 0
    """Put into the provider's cache; None: not known."""
    doubtful: bool = False
    """Whether anything that was told could not be believed, or had to be interpreted."""


class Known(NamedTuple):
    """What we know of a call ourselves."""

    read: int
    """About how many tokens its messages are."""
    wrote: int
    """About how many tokens all that was said is."""
    streamed: Sequence[StreamedUsage] = ()
    """What was told of the usage in the chunks of a stream."""


def usage_by(model: Model, told: Any, metadata: Any, known: Known) -> Usage:
    """What a call has used, by the `usage_metadata` and the `response_metadata` of its reply, where they can be."""
    series = [chunk for chunk in known.streamed if chunk.told]
    figures = _of_stream(series) if len(series) > 1 else _figures(told)
    cost, cost_is_wrong = told_cost(metadata)
    figures.cached = min(figures.cached, figures.input or 0)
    figures.doubtful = figures.doubtful or not (
        _is_plausible(figures.input, known.read)
        and _is_plausible(figures.output, known.wrote)
        and all(map(is_readable, _usages(metadata)))
    )
    if figures.doubtful:
        figures.input = max(figures.input or 0, known.read)
        figures.output = max(figures.output or 0, known.wrote)
    return _priced(model, figures, cost, figures.doubtful or cost_is_wrong)


def _is_plausible(told: int | None, counted: int) -> bool:
    """Whether a text may be so many tokens, which we have counted, too."""
    return told is not None and (told > 0 or not counted) and told * LONGEST_TOKEN >= counted * BYTES_PER_TOKEN


def _priced(model: Model, figures: _Figures, cost: float | None, estimated: bool) -> Usage:
    read, wrote = figures.input or 0, figures.output or 0
    usage = Usage(1, read, figures.cached, wrote, 0.0, estimated)
    if cost is None:
        # What is contradictory about a cache is priced as if nothing had been in it.
        believed = usage._replace(cached=0) if figures.doubtful else usage
        written = (
            (read if model.needs_cache_control else 0) if figures.written is None else min(figures.written, read)
        )
        cost = pricing.cost(model, believed, written)
    return usage._replace(cost=cost)


def unread(wanted: Usage) -> Usage:
    """What a reply has used that cannot be read: all that was reserved for it."""
    return wanted._replace(calls=1, estimated=True)


def usage_in_error(model: Model, told: Any) -> Usage | None:
    """What the body of an error says was used; None when it says nothing that can be."""
    figures, (cost, _) = _figures(_as_metadata(told)), told_cost({"token_usage": told})
    if not (figures.input or figures.output or cost):
        return None
    return _priced(model, figures, cost, estimated=True)


def _as_metadata(told: Any) -> Any:
    """The usage of a body in the words of `usage_metadata`."""
    if not isinstance(told, Mapping):
        return None
    return {
        "input_tokens": told.get("prompt_tokens", told.get("input_tokens")),
        "output_tokens": told.get("completion_tokens", told.get("output_tokens")),
    }


def readable(usage: Any) -> dict[str, Any] | None:
    """What of a reply's `usage`, in OpenAI's words, can be read; None when nothing can."""
    if not isinstance(usage, Mapping):
        return None
    found: dict[str, Any] = {name: usage[name] for name in _COUNTS if count(usage.get(name)) is not None}
    for name in _PARTS:
        if isinstance(parts := usage.get(name), Mapping):
            found[name] = {part: value for part, value in parts.items() if count(value) is not None}
    return found or None


def is_readable(usage: Mapping[str, Any]) -> bool:
    """Whether everything can be read in it that is there."""
    told = [usage.get(name) for name in _COUNTS]
    for parts in (usage.get(name) or {} for name in _PARTS):
        told += parts.values() if isinstance(parts, Mapping) else [parts]
    return all(value is None or count(value) is not None for value in told)


def count(value: object) -> int | None:
    """A count of tokens, if it can be one."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _figures(told: Any) -> _Figures:
    """What can be believed of a `usage_metadata`."""
    if not isinstance(told, Mapping):
        return _Figures(doubtful=told is not None)
    figures = _Figures(count(told.get("input_tokens")), count(told.get("output_tokens")))
    figures.cached, figures.written = _cache(told.get("input_token_details"), figures)
    _at_least_its_parts(figures, told.get("output_token_details"))
    total = count(told.get("total_tokens"))
    if figures.input and figures.output is not None and total is not None:
        hidden = total - figures.input - figures.output  # thoughts that only the total counts
        if hidden > 0:
            figures.output, figures.doubtful = figures.output + hidden, True
    return figures


def _cache(details: Any, figures: _Figures) -> tuple[int, int | None]:
    """Tokens from the cache, and into it."""
    if not details:
        return 0, 0
    if not isinstance(details, Mapping):
        figures.doubtful = True
        return 0, None
    cached, written = _sum(details, "cache_read"), _sum(details, "cache_creation", "_input_tokens")
    if cached is None or written is None:
        figures.doubtful = True
        return 0, written
    if figures.input is not None and cached + written > figures.input:
        figures.doubtful = True
    return cached, written


def _at_least_its_parts(figures: _Figures, details: Any) -> None:
    """Hold the output to its parts, of which thoughts are one."""
    if not details:
        return
    thoughts = _sum(details, "reasoning") if isinstance(details, Mapping) else None
    if thoughts is None or (figures.output is not None and thoughts > figures.output):
        figures.doubtful = True
    if thoughts is not None and figures.output is not None:
        figures.output = max(figures.output, thoughts)


def _sum(details: Mapping[Any, Any], *endings: str) -> int | None:
    """Of the counts whose names end so: service tiers and cache lifetimes are prefixes. None: one is no count."""
    named = [value for name, value in details.items() if str(name).endswith(endings) and value is not None]
    counts = [counted for value in named if (counted := count(value)) is not None]
    return sum(counts) if len(counts) == len(named) else None


def _of_stream(series: Sequence[StreamedUsage]) -> _Figures:
    """What several chunks of a stream say together: some say what came since the last one, some all so far."""
    each = [_figures(chunk.told) for chunk in series]
    reads = [figures.input for figures in each if figures.input]
    wrote = [figures.output for figures in each if figures.output is not None]
    repeats = len(reads) > 1 and reads == sorted(reads)
    """A prompt is read once."""
    so_far = wrote == sorted(wrote) and (repeats or _grows_with_the_text(series, each))
    doubtful = any(figures.doubtful or figures.input is None or figures.output is None for figures in each)
    together = max if repeats else sum
    return _Figures(
        min(together(reads), MOST_TOKENS) if reads else None,
        min((max if so_far else sum)(wrote), MOST_TOKENS) if wrote else None,
        min(together(figures.cached for figures in each), MOST_TOKENS),
        min(together(figures.written or 0 for figures in each), MOST_TOKENS),
        doubtful or so_far is not repeats,
    )


def _grows_with_the_text(series: Sequence[StreamedUsage], each: Iterable[_Figures]) -> bool:
    """Whether the counts are those of all the text so far, rather than of the text that came with each."""
    text, by_piece, by_all = 0, 0.0, 0.0
    for chunk, figures in zip(series, each, strict=True):
        text += chunk.tokens
        if figures.output:
            by_piece += abs(log(figures.output) - log(max(chunk.tokens, 1)))
            by_all += abs(log(figures.output) - log(max(text, 1)))
    return by_all < by_piece


def told_cost(told: Any) -> tuple[float | None, bool]:
    """Dollars, when the provider tells: OpenRouter does, and a provider's own key there is billed besides.

    And whether it told something that cannot be.
    """
    usages = _usages(told)
    outside = [told["cost"]] if isinstance(told, Mapping) and "cost" in told else []
    costs = [cost for cost in outside or (usage.get("cost") for usage in usages) if cost is not None]
    dollars = [found for cost in costs if (found := _dollars(cost)) is not None]
    upstream = [found for usage in usages if (found := _upstream(usage)) is not None]
    wrong = len(dollars) < len(costs) or len(upstream) < len(usages)
    if not dollars or wrong:
        return None, wrong
    return _all_of(dollars) + _all_of(upstream), False


def _all_of(dollars: list[float]) -> float:
    """What the chunks of a stream say together: mostly each tells of all so far."""
    return max(dollars, default=0.0) if dollars == sorted(dollars) else min(sum(dollars), MOST_DOLLARS)


def _usages(told: Any) -> list[Mapping[str, Any]]:
    """The `usage` objects of a reply; of a stream there may be several."""
    if not isinstance(told, Mapping):
        return []
    several = told.get("token_usages")
    found = [told.get("token_usage"), *(several if isinstance(several, list) else [])]
    return [usage for usage in found if isinstance(usage, Mapping)]


def _upstream(usage: Mapping[str, Any]) -> float | None:
    """What a provider bills a key of one's own besides; None: what is told cannot be."""
    if not usage.get("is_byok"):
        return 0.0
    details = usage.get("cost_details")
    if not isinstance(details, Mapping):
        return 0.0 if details is None else None
    upstream = details.get("upstream_inference_cost")
    return 0.0 if upstream is None else _dollars(upstream)


def _dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MOST_DOLLARS and isfinite(value) else None
