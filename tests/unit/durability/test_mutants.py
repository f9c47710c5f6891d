"""The wrongs of `tests/durable/mutants.py` can still be planted, and the manual says what finds each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.durable.mutants import MUTANTS, PACKAGE, Mutant

VERIFIED = Path(__file__).parents[3] / "docs" / "explanation" / "verified.md"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_wrong_still_has_its_place_in_the_code(mutant: Mutant) -> None:
    text = mutant.planted((PACKAGE / mutant.file).read_text(encoding="utf-8"))
    compile(text, mutant.file, "exec")


def test_the_manual_lists_each_of_them_with_what_finds_it() -> None:
    rows = [
        line.split(" | ") for line in VERIFIED.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    listed = {cells[0].removeprefix("| "): cells[1].removesuffix(" |") for cells in rows}
    assert [mutant.name for mutant in MUTANTS if not listed.get(mutant.name)] == []
