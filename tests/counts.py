"""What a run of the tests says in numbers at its end, out of what tests have recorded as properties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlm_langchain.testing.hostile.suite import summary

Reports = Mapping[str, Sequence[Any]]


def sections(reports: Reports) -> Iterator[tuple[str, list[str]]]:
    """Titles and lines, of those that there is something to say about."""
    for title, told in (
        ("hostile programs", summary(dict(reports))),
        ("texts that lie", injections(reports)),
        ("ordinary cells", [*recorded(reports, "ordinary cells")]),
    ):
        if told:
            yield title, told


def recorded(reports: Reports, name: str) -> Iterator[Any]:
    """The values of a property, of tests that passed and of those that did not."""
    for outcome in ("passed", "failed"):
        for report in reports.get(outcome, ()):
            if getattr(report, "when", "") == "call":
                yield from (value for key, value in report.user_properties if key == name)


def injections(reports: Reports) -> list[str]:
    """For each place where texts were put: how many, and what they achieved."""
    told: dict[str, list[int]] = {}
    for place, _, *counts in recorded(reports, "injection"):
        told[place] = [a + b for a, b in zip(told.get(place, [0] * 5), counts, strict=True)]
    return [
        f"{place:13} {texts:3} texts: FINAL forged {forged}, cells that the root did not write {foreign}, "
        f"keys {keys}, prompts or terminals out of form {faults}"
        for place, (texts, forged, foreign, keys, faults) in sorted(told.items())
    ]
