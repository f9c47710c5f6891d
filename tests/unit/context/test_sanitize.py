from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_langchain.context.sanitize import visible

HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of which nothing may show through, newline and tab apart."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\n\twith a tab", "plain text\n\twith a tab"),
        ("naïve 漢字 🙂 ❤\ufe0f", "naïve 漢字 🙂 ❤\ufe0f"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J", "\\x9b2J"),
        ("over\rwritten\r\n", "over\\rwritten\\r\n"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half \ud800 pair", "half \\ud800 pair"),
        ("\U000e0048\U000e0069", "\\U000e0048\\U000e0069"),
        ("v\U000e0101\ufe03", "v\\U000e0101\\ufe03"),
        ("\x00\x08\x7f", "\\x00\\x08\\x7f"),
        ("next\x85line\u2028\u2029", "next\\x85line\\u2028\\u2029"),
    ],
)
def test_what_cannot_be_seen_is_written_as_its_escape(text, shown):
    assert visible(text) == shown


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_nothing_hidden_is_left_and_the_result_is_utf8(text):
    shown = visible(text)
    shown.encode()
    assert not [c for c in shown if unicodedata.category(c) in HIDDEN and c not in "\n\t"]
    assert visible(shown) == shown


def test_every_character_that_sets_a_direction_is_escaped():
    marks = [chr(c) for c in range(0x110000) if unicodedata.bidirectional(chr(c)) in BIDI_CONTROLS]
    assert len(marks) >= 9
    assert not set(visible("".join(marks))) & set(marks)


BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
