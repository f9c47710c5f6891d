"""Summarises the properties that tests have recorded, for the end of pytest's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlm_langchain.testing.hostile.suite import summary

Reports = Mapping[str, Sequence[Any]]


def sections(reports: Reports) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the lines of each section that is not empty."""
    for title, told in (
        ("hostile programs", summary(dict(reports))),
        ("texts that lie", injection_lines(reports)),
        ("ordinary cells", [*property_values(reports, "ordinary cells")]),
    ):
        if told:
            yield title, told


def property_values(reports: Reports, name: str) -> Iterator[Any]:
    """Yield the values of a property, from tests that passed and from those that failed."""
    for outcome in ("passed", "failed"):
        for report in reports.get(outcome, ()):
            if getattr(report, "when", "") == "call":
                yield from (value for key, value in report.user_properties if key == name)


def injection_lines(reports: Reports) -> list[str]:
    """Return a line for each place of injected texts: their number, and what they achieved."""
    told: dict[str, list[int]] = {}
    for place, _, *counts in property_values(reports, "injection"):
        told[place] = [a + b for a, b in zip(told.get(place, [0] * 5), counts, strict=True)]
    return [
        f"{place:13} {texts:3} texts: FINAL forged {forged}, cells that the root did not write {foreign}, "
        f"keys {keys}, prompts or terminals out of form {faults}"
        for place, (texts, forged, foreign, keys, faults) in sorted(told.items())
    ]
