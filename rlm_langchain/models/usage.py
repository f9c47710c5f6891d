"""Computes the usage of a call from the figures that its provider reports. Every figure is checked first.

Impossible figures are ignored: values that are not numbers, negative, absurdly large, smaller than their own parts,
or far too small for the text. The tokens are then counted here, and the usage is marked as estimated. It is also
marked if a provider reports a cost of 0 for tokens that have a price; then the price is booked.
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

MAX_TOKENS = 2**53
"""Most tokens of one call. A larger count is treated as invalid."""
MAX_DOLLARS = 1e6
"""Most dollars of one call. A larger cost is treated as invalid."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_PARTS = ("prompt_tokens_details", "completion_tokens_details")
LONGEST_TOKEN = 128
"""Bytes of the longest token of any tokenizer: long runs of spaces."""


class StreamedUsage(NamedTuple):
    """Usage that a provider reported in a chunk of a stream."""

    reported: Any
    """The figures, in the form of `usage_metadata`."""
    tokens: int
    """Approximate number of tokens sent since the last report."""


@dataclass(slots=True)
class _Figures:
    """Token counts that passed the checks."""

    input: int | None = None
    output: int | None = None
    cached: int = 0
    written: int | None = 0
    """Tokens written to the provider's prompt cache; None: not known."""
    doubtful: bool = False
    """Whether a reported figure was invalid or had to be interpreted."""


class OwnCounts(NamedTuple):
    """Token counts of a call made here, and the usage reported in its stream."""

    read: int
    """Approximate number of tokens of the messages."""
    wrote: int
    """Approximate number of tokens of the replies."""
    streamed: Sequence[StreamedUsage] = ()
    """Usage reported in the chunks of a stream."""
    images: int = 0
    """Most tokens of the pictures in the messages. Models differ too much to tell from it what is plausible."""


def usage_from_report(model: Model, reported: Any, metadata: Any, own: OwnCounts) -> Usage:
    """Return the usage of a call from `usage_metadata` (`reported`) and `response_metadata` of its reply, where
    these are plausible, else from our own counts."""
    series = [chunk for chunk in own.streamed if chunk.reported]
    figures = _combine_stream(series) if len(series) > 1 else _figures(reported)
    cost, cost_is_invalid = reported_cost(metadata)
    figures.cached = min(figures.cached, figures.input or 0)
    figures.doubtful = figures.doubtful or not (
        _is_plausible(figures.input, own.read)
        and _is_plausible(figures.output, own.wrote)
        and all(map(is_valid_usage, _usages(metadata)))
    )
    if figures.doubtful:
        figures.input = max(figures.input or 0, own.read + own.images)
        figures.output = max(figures.output or 0, own.wrote)
    return _priced(model, figures, cost, figures.doubtful or cost_is_invalid)


def _is_plausible(reported: int | None, own: int) -> bool:
    """Return whether a reported count is possible for a text of which we counted `own` tokens."""
    return reported is not None and (reported > 0 or not own) and reported * LONGEST_TOKEN >= own * BYTES_PER_TOKEN


def _priced(model: Model, figures: _Figures, cost: float | None, estimated: bool) -> Usage:
    read, wrote = figures.input or 0, figures.output or 0
    usage = Usage(1, read, figures.cached, wrote, cost, estimated)
    if cost:
        return usage
    # Contradictory figures about a cache are priced as if nothing had been cached.
    charged = usage._replace(cached=0) if figures.doubtful else usage
    written = (read if model.needs_cache_control else 0) if figures.written is None else min(figures.written, read)
    priced = pricing.cost(model, charged, written)
    if cost is None:
        return usage._replace(cost=priced)
    # Believed, a cost of 0 would turn off a limit in dollars. Only a price says that a model is free.
    return usage._replace(cost=priced, estimated=True) if priced else usage


def worst_case_usage(reserved: Usage) -> Usage:
    """Return the usage of a reply that could not be parsed: all that was reserved for it."""
    return reserved._replace(calls=1, estimated=True)


def usage_in_error(model: Model, reported: Any) -> Usage | None:
    """Return the usage that the body of an error reports, or None if it reports no valid figure."""
    figures, (cost, _) = _figures(_as_metadata(reported)), reported_cost({"token_usage": reported})
    if not (figures.input or figures.output or cost):
        return None
    return _priced(model, figures, cost, estimated=True)


def _as_metadata(reported: Any) -> Any:
    """Return the usage of a response body in the form of `usage_metadata`."""
    if not isinstance(reported, Mapping):
        return None
    return {
        "input_tokens": reported.get("prompt_tokens", reported.get("input_tokens")),
        "output_tokens": reported.get("completion_tokens", reported.get("output_tokens")),
    }


def valid_usage(usage: Any) -> dict[str, Any] | None:
    """Return the valid parts of a reply's `usage` in OpenAI's format, or None if there are none."""
    if not isinstance(usage, Mapping):
        return None
    found: dict[str, Any] = {name: usage[name] for name in _COUNTS if valid_count(usage.get(name)) is not None}
    for name in _PARTS:
        if isinstance(parts := usage.get(name), Mapping):
            found[name] = {part: value for part, value in parts.items() if valid_count(value) is not None}
    return found or None


def is_valid_usage(usage: Mapping[str, Any]) -> bool:
    """Return whether every figure in a `usage` of OpenAI's format is valid."""
    values = [usage.get(name) for name in _COUNTS]
    for parts in (usage.get(name) or {} for name in _PARTS):
        values += parts.values() if isinstance(parts, Mapping) else [parts]
    return all(value is None or valid_count(value) is not None for value in values)


def valid_count(value: object) -> int | None:
    """Return the value if it is a valid token count, else None."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _figures(reported: Any) -> _Figures:
    """Return the valid figures of a `usage_metadata`."""
    if not isinstance(reported, Mapping):
        return _Figures(doubtful=reported is not None)
    figures = _Figures(valid_count(reported.get("input_tokens")), valid_count(reported.get("output_tokens")))
    figures.cached, figures.written = _cache(reported.get("input_token_details"), figures)
    _raise_to_parts(figures, reported.get("output_token_details"))
    total = valid_count(reported.get("total_tokens"))
    if figures.input and figures.output is not None and total is not None:
        hidden = total - figures.input - figures.output  # reasoning tokens that only the total includes
        if hidden > 0:
            figures.output, figures.doubtful = figures.output + hidden, True
    return figures


def _cache(details: Any, figures: _Figures) -> tuple[int, int | None]:
    """Return the input tokens read from the prompt cache, and those written to it (None: not known)."""
    if not details:
        return 0, 0
    if not isinstance(details, Mapping):
        figures.doubtful = True
        return 0, None
    cached, written = (
        _sum_of_counts(details, "cache_read"),
        _sum_of_counts(details, "cache_creation", "_input_tokens"),
    )
    if cached is None or written is None:
        figures.doubtful = True
        return 0, written
    if figures.input is not None and cached + written > figures.input:
        figures.doubtful = True
    return cached, written


def _raise_to_parts(figures: _Figures, details: Any) -> None:
    """Raise the output count to its reasoning tokens, which are a part of it."""
    if not details:
        return
    thoughts = _sum_of_counts(details, "reasoning") if isinstance(details, Mapping) else None
    if thoughts is None or (figures.output is not None and thoughts > figures.output):
        figures.doubtful = True
    if thoughts is not None and figures.output is not None:
        figures.output = max(figures.output, thoughts)


def _sum_of_counts(details: Mapping[Any, Any], *endings: str) -> int | None:
    """Return the sum of the counts whose names have one of these endings, or None if one of them is invalid.

    Providers prefix the names with service tiers and cache lifetimes.
    """
    named = [value for name, value in details.items() if str(name).endswith(endings) and value is not None]
    counts = [counted for value in named if (counted := valid_count(value)) is not None]
    return sum(counts) if len(counts) == len(named) else None


def _combine_stream(series: Sequence[StreamedUsage]) -> _Figures:
    """Combine the reports of several chunks: some providers report the usage since the last chunk, some all so
    far."""
    each = [_figures(chunk.reported) for chunk in series]
    reads = [figures.input for figures in each if figures.input]
    wrote = [figures.output for figures in each if figures.output is not None]
    # The prompt is read once, so input counts that grow are totals so far.
    repeats = len(reads) > 1 and reads == sorted(reads)
    so_far = wrote == sorted(wrote) and (repeats or _grows_with_the_text(series, each))
    doubtful = any(figures.doubtful or figures.input is None or figures.output is None for figures in each)
    combine = max if repeats else sum
    return _Figures(
        min(combine(reads), MAX_TOKENS) if reads else None,
        min((max if so_far else sum)(wrote), MAX_TOKENS) if wrote else None,
        min(combine(figures.cached for figures in each), MAX_TOKENS),
        min(combine(figures.written or 0 for figures in each), MAX_TOKENS),
        doubtful or so_far is not repeats,
    )


def _grows_with_the_text(series: Sequence[StreamedUsage], each: Iterable[_Figures]) -> bool:
    """Return whether the counts fit all text so far better than the text of each chunk."""
    text, by_piece, by_all = 0, 0.0, 0.0
    for chunk, figures in zip(series, each, strict=True):
        text += chunk.tokens
        if figures.output:
            by_piece += abs(log(figures.output) - log(max(chunk.tokens, 1)))
            by_all += abs(log(figures.output) - log(max(text, 1)))
    return by_all < by_piece


def reported_cost(metadata: Any) -> tuple[float | None, bool]:
    """Return the dollars that the provider reports, or None, and whether it reported an invalid cost.

    OpenRouter reports costs. With a key of one's own, the upstream provider's bill is added.
    """
    usages = _usages(metadata)
    top_level = [metadata["cost"]] if isinstance(metadata, Mapping) and "cost" in metadata else []
    costs = [cost for cost in top_level or (usage.get("cost") for usage in usages) if cost is not None]
    dollars = [found for cost in costs if (found := _valid_dollars(cost)) is not None]
    upstream = [found for usage in usages if (found := _upstream_cost(usage)) is not None]
    invalid = len(dollars) < len(costs) or len(upstream) < len(usages)
    if not dollars or invalid:
        return None, invalid
    return _combined(dollars) + _combined(upstream), False


def _combined(dollars: list[float]) -> float:
    """Combine the costs reported by the chunks of a stream: growing ones are totals so far."""
    return max(dollars, default=0.0) if dollars == sorted(dollars) else min(sum(dollars), MAX_DOLLARS)


def _usages(metadata: Any) -> list[Mapping[str, Any]]:
    """Return the `usage` objects of a reply; a stream may have several."""
    if not isinstance(metadata, Mapping):
        return []
    several = metadata.get("token_usages")
    found = [metadata.get("token_usage"), *(several if isinstance(several, list) else [])]
    return [usage for usage in found if isinstance(usage, Mapping)]


def _upstream_cost(usage: Mapping[str, Any]) -> float | None:
    """Return what the upstream provider bills for a key of one's own; None if the figure is invalid."""
    if not usage.get("is_byok"):
        return 0.0
    details = usage.get("cost_details")
    if not isinstance(details, Mapping):
        return 0.0 if details is None else None
    upstream = details.get("upstream_inference_cost")
    return 0.0 if upstream is None else _valid_dollars(upstream)


def _valid_dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_DOLLARS and isfinite(value) else None
