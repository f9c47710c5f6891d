from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.context.describe import approximate_tokens, without_size
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError

ANY_TEXT = st.text(st.characters(exclude_categories=[]), min_size=1)
SURROGATES = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ContextStore(tmp_path_factory.mktemp("home"))


@given(text=ANY_TEXT)
def test_any_text_comes_back_with_lone_surrogates_replaced_one_for_one(store, text):
    ref = store.reference(text)
    assert store.load(ref) == text.translate(SURROGATES)
    assert ref["length"] == len(text)
    assert ref["size"] == store.open(ref).path.stat().st_size


@given(text=ANY_TEXT)
def test_strict_refuses_exactly_the_texts_that_no_utf8_can_hold(store, text):
    first = next((n for n, c in enumerate(text) if ord(c) in SURROGATES), None)
    if first is None:
        assert store.load(store.reference(text, strict=True)) == text
    else:
        with pytest.raises(InputError, match=f"lone surrogate at character {first:,}"):
            store.reference(text, strict=True)


@settings(deadline=None)  # a reader is imported when it is first needed
@given(data=st.binary(min_size=1, max_size=200))
def test_bytes_and_streams_of_any_block_size_are_read_alike(store, data):
    class Trickle(io.RawIOBase):
        left = io.BytesIO(data)

        def read(self, size=-1):
            return self.left.read(3)

    def outcome(value):
        try:
            return store.reference(value)
        except InputError as error:
            return str(error).rpartition(" is ")[2]

    whole = outcome(data)
    if isinstance(whole, dict):
        assert "guessed" in whole["about"] or store.load(whole) == data.decode("utf-8", "replace")
    else:
        assert whole
    assert outcome(io.BytesIO(data)) == outcome(Trickle()) == whole


def test_a_str_is_text_even_if_it_names_a_file(store):
    assert store.load(store.reference(__file__)) == __file__


def test_nothing_and_empty_values_are_no_context(store):
    assert [store.reference(value) for value in (None, "", b"", [], (), {})] == [None] * 6


def test_newlines_and_nul_are_kept(store):
    text = "a\r\nb\rc\nd\x00e\u2028f"
    assert store.load(store.reference(text)) == text


def test_a_text_is_described_by_its_length_and_tokens(store):
    assert store.reference("word " * 200_000)["about"] == "str, 1,000,000 characters (about 250,000 tokens)"


def test_replaced_characters_are_counted(store):
    assert store.reference("a\udc80b\ud800")["about"].endswith("; 2 lone surrogates replaced by U+FFFD")
    assert store.reference(b"a\x81b")["about"].endswith("; 1 undecodable byte sequence replaced by U+FFFD")


def test_a_preview_is_the_first_characters_made_visible(store):
    ref = store.reference("\x1b[31mred\u202e\n" + "x" * 1000)
    assert ref["preview"].startswith("\\x1b[31mred\\u202e\nxxx")
    assert len(ref["preview"]) == 300


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_obeyed_and_dropped(store, encoding):
    assert store.load(store.reference("naïve 漢字".encode(encoding), strict=True)) == "naïve 漢字"


def test_a_broken_byte_after_a_byte_order_mark_is_replaced_and_the_mark_still_dropped(store):
    ref = store.reference(b"\xef\xbb\xbfab\xffcd")
    assert store.load(ref) == "ab\ufffdcd"
    with pytest.raises(InputError, match="at byte 5 "):
        store.reference(b"\xef\xbb\xbfab\xffcd", strict=True)


def test_half_a_character_of_utf16_is_replaced_and_counted(store):
    ref = store.reference("ab".encode("utf-16") + b"\x41")
    assert store.load(ref) == "ab\ufffd"
    assert "1 undecodable byte sequence replaced" in ref["about"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"%PDF-1.7\n...", "is a damaged PDF: it is cut or changed"),
        (b"PK\x03\x04\x14\x00", "is a damaged ZIP archive"),
        (b"\x1f\x8b\x08\x00", "is a damaged gzip file"),
        (b"\x89PNG\r\n\x1a\n", "is a damaged PNG image: it is cut or changed"),
        (bytes(range(256)) * 4, "is not text in UTF-8"),
        ("ёжик".encode("cp1251") * 3, "if it is text in another encoding, convert it first"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_what_to_do(store, data, message):
    with pytest.raises(InputError, match=message):
        store.reference(data)


def test_a_quarter_of_the_bytes_is_near_what_a_tokenizer_counts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the import itself
        from bpe_openai import get_encoding
    encoding = get_encoding("o200k_base")
    samples = [Path(module.__file__).read_text()[:40_000] for module in (io, pytest)]
    samples += ["吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 50]
    samples += [(Path(__file__).parents[3] / "LICENSE").read_text()]
    for text in samples:
        assert 0.6 < approximate_tokens(text) / len(encoding.encode(text)) < 1.6
        assert approximate_tokens(len(text.encode())) == approximate_tokens(text)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("str, 1,900,000 characters (about 480,000 tokens)", "str"),
        (
            'dict of 2 files: path -> text, 12 characters in all (about 3 tokens); keys: "a", "b"',
            "dict of 2 files: path -> text",
        ),
        ('dict of 2 items: 1 str, 1 int (about 9 tokens as JSON); keys: "a, 5 characters", "b"', None),
    ],
)
def test_the_size_of_a_text_is_cut_off_and_a_key_that_looks_like_one_is_not(line, kind):
    assert without_size(line) == (kind or line)
