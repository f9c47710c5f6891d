"""Quotes are compared as they look, and places are those of the text as it is."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rlm_langchain.context.folding import FoldedText, fold_quote, plain_words

ALIKE = [
    ["\u00f6", "o\u0308"],
    ["\u00e9\u0331", "e\u0331\u0301", "e\u0301\u0331"],
    ["\u212b", "\u00c5", "A\u030a"],
    ["\uff21", "A", "\U0001d400"],
    ["\ufb01", "fi", "f\u200di"],
    ["\ufb03", "ffi", "f\ufb01"],
    ["co\u00adop", "coop", "co\u200bop", "co\ufeffop\u200e"],
    ["\u2019", "'", "\u2018"],
    ["\u201c", '"', "\u201e", "\u00ab"],
    ["\u2014", "-", "\u2013", "\u2011", "\u2212"],
    ["\u2026", "..."],
    [" ", "\n", "  ", "\u00a0", "\u3000", " \u200b\t", "\r\n"],
    ["\ud55c", "\u1112\u1161\u11ab"],
    ["\u30d0", "\u30cf\u3099", "\uff8a\uff9e"],
    ["x\u0302"],
    ["\u00b2"],
    ["\u00bd"],
    ["\u0915\u093f"],
    ["\U00011107\U00011131\U00011127", "\U00011107\U0001112e"],
    ["\u2764\ufe0f", "\u2764"],
    ["\U0001f600"],
    ["\u6f22"],
    *map(list, "abfiocp.,"),
]
MARKED = some.sampled_from("aoe \u0308\u0301\u0331\u00f6\u00e9\u212b\ufb01\uff21\uac01\u1100\u1161\u2019\u6f22")
pieces = some.lists(some.integers(0, len(ALIKE) - 1), max_size=12)


@settings(max_examples=150, deadline=None)
@given(pieces, pieces.filter(bool), pieces, some.data())
def test_what_looks_the_same_is_found_at_its_place(before, quoted, after, data):
    def written(numbers: list[int]) -> str:
        return "".join(data.draw(some.sampled_from(ALIKE[number])) for number in numbers)

    quote = written(quoted)
    text = written(before) + written(quoted) + written(after)
    looked_for = fold_quote(quote)
    if not looked_for:
        return
    place = FoldedText(text).find(looked_for)
    assert place is not None
    found = FoldedText(text[slice(*place)]).text
    assert looked_for in found
    # At most the rest of a ligature at either end, and what is not seen.
    assert len(found) - len(looked_for) <= 4
    assert found == looked_for or any(one in text[slice(*place)] for one in "\ufb01\ufb03")


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@settings(deadline=None)
@given(text=some.text(MARKED, max_size=30))
def test_every_form_of_a_text_folds_alike(form: Any, text):
    assert FoldedText(unicodedata.normalize(form, text)).text == FoldedText(text).text
    assert plain_words(unicodedata.normalize(form, text)) == plain_words(text)


@settings(deadline=None)
@given(some.text())
def test_any_text_is_found_in_itself(text):
    folded = FoldedText(text)
    if looked_for := fold_quote(text):
        place = folded.find(looked_for)
        assert place is not None
        assert FoldedText(text[slice(*place)]).text.strip() == looked_for


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("10\u00b2 cm", "102"),
        ("1\u00bd cups", "2 cups"),
        ("1\u00bd cups", "11/2 cups"),
        ("x\u0302 y", "x y"),
        ("o\u0308", "o\u0301"),
        ("K\u00f6ln", "Koln"),
        ("K\u00f6ln", "k\u00f6ln"),
        ("a b", "ab"),
    ],
)
def test_what_does_not_look_the_same_is_not_found(text, quote):
    assert FoldedText(text).find(fold_quote(quote)) is None
