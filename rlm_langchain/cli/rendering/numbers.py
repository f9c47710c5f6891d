"""Formats numbers for people: `1,234`, `3.4 MB`, `$0.0012`, `100 %`."""

from __future__ import annotations


def percent(part: float) -> str:
    """Return a share from 0 to 1 as a percentage. Only 1 is `100 %`, and only 0 is `0 %`."""
    share = 100 * part
    if 0 < share < 0.01:
        return "less than 0.01 %"
    if share < 10:
        return f"{share:.2g} %"
    return f"{share:.0f} %" if share < 99.5 or share == 100 else "over 99 %"


def size(number: float) -> str:
    """Return a number of bytes, in the unit that leaves one to three digits before the point."""
    if number < 1_000:
        return "1 byte" if number == 1 else f"{number:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        number /= 1_000
        if number < 999.95 or unit == "GB":
            break
    return f"{number:,.1f} {unit}"


def dollars(cost: float) -> str:
    """Return a cost, to a hundredth of a cent."""
    return "less than $0.0001" if 0 < cost < 0.0001 else f"${cost:,.4f}"
