"""A lazy text answers as the same text held in memory does, at every window and block."""
# ruff: noqa: B034 - positions are what is tested

from __future__ import annotations

import os
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlm_langchain.sandboxes.worker.lazy import file, matches, regex
from rlm_langchain.sandboxes.worker.lazy import lines as lazy_lines
from rlm_langchain.sandboxes.worker.lazy import text as lazy_text
from rlm_langchain.sandboxes.worker.lazy.file import Source
from rlm_langchain.sandboxes.worker.lazy.text import LazyText

ALPHABET = "ab\n\r ,ż日😀\u2028\x85"
texts = st.text(ALPHABET, max_size=80)
needles = st.text(ALPHABET, max_size=3)
places = st.none() | st.integers(-90, 90)
patterns = st.sampled_from(
    [
        "a",
        "a*",
        "a+b?",
        "(a)|(b)",
        r"\w+",
        r"\s*",
        "^",
        "$",
        r"\b",
        "(?m)^.",
        "(?m).$",
        "(?s)a.b",
        "[^a]+",
        "(?<=a)b",
        "a(?=b)",
        "(?!a)",
        "",
        "😀|ż",
        r"(?P<first>a)(?P<second>b)?",
    ]
)
small = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(file, "BLOCK", 5)
    monkeypatch.setattr(file, "WINDOW", 6)
    monkeypatch.setattr(lazy_text, "WINDOW", 7)
    monkeypatch.setattr(matches, "WINDOW", 60)
    monkeypatch.setattr(matches, "AHEAD", 40)
    monkeypatch.setattr(matches, "BEHIND", 4)
    monkeypatch.setattr(lazy_lines, "WINDOW", 6)


def lazy(text: str) -> LazyText:
    """The text in a file that has no name any more."""
    fd = os.memfd_create("text")
    os.write(fd, text.encode())
    return LazyText(Source(fd, len(text), len(text.encode())), 0, len(text))


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    for fd in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{fd}"):
            os.close(int(fd))


def outcome(work):
    """What it gives back, or the kind of error it raises."""
    try:
        return work()
    except (IndexError, ValueError) as error:
        return type(error)


@small
@given(texts, places, places, st.none() | st.integers(-3, 3))
def test_slices_are_those_of_the_text(text, start, stop, step):
    assert outcome(lambda: lazy(text)[start:stop:step]) == outcome(lambda: text[start:stop:step])


@small
@given(texts, st.integers(-90, 90))
def test_characters_are_those_of_the_text(text, place):
    assert outcome(lambda: lazy(text)[place]) == outcome(lambda: text[place])


@small
@given(texts)
def test_it_has_the_length_and_the_characters_of_the_text(text):
    assert len(lazy(text)) == len(text)
    assert "".join(lazy(text)) == text
    assert bool(lazy(text)) == bool(text)
    assert lazy(text) == text
    assert lazy(text) != text + "x"


@small
@given(texts, needles, places, places)
@example("aXa", "a", 1, None)
@pytest.mark.parametrize("method", ["find", "rfind", "index", "rindex", "count"])
def test_searches_find_what_a_search_in_the_text_finds(method, text, needle, start, end):
    args = (needle, start, end)
    assert outcome(lambda: getattr(lazy(text), method)(*args)) == outcome(lambda: getattr(text, method)(*args))


@small
@given(texts, needles, st.integers(-90, 90), places)
@pytest.mark.parametrize("method", ["startswith", "endswith"])
def test_its_beginning_and_end_are_those_of_the_text(method, text, needle, start, end):
    assert getattr(lazy(text), method)(needle) == getattr(text, method)(needle)
    inside = range(*slice(start, end).indices(len(text)))
    if inside:  # an empty range that lies beyond the text is no prefix of anything
        assert getattr(lazy(text), method)(needle, start, end) == getattr(text, method)(needle, start, end)
    assert getattr(lazy(text), method)((needle, "zz")) == getattr(text, method)((needle, "zz"))


@small
@given(texts, needles)
def test_it_contains_what_the_text_contains(text, needle):
    assert (needle in lazy(text)) == (needle in text)


@small
@given(texts, st.booleans())
def test_lines_are_those_of_the_text(text, keepends):
    lines = lazy(text).splitlines(keepends)
    assert list(lines) == text.splitlines(keepends)
    assert len(lines) == len(text.splitlines(keepends))


@small
@given(texts, needles.filter(bool), st.integers(-20, 20), places, places)
def test_pieces_are_those_of_the_text(text, sep, number, start, stop):
    parts, real = lazy(text).split(sep), text.split(sep)
    assert outcome(lambda: parts[number]) == outcome(lambda: real[number])
    assert parts[start:stop] == real[start:stop]
    assert list(parts) == real
    assert len(parts) == len(real)


@small
@given(texts, patterns)
@example("a" * 200, "a*")
@example("", "")
def test_patterns_match_where_they_match_in_the_text(text, pattern):
    found = [(m.span(), m.group(), m.groups(), m.groupdict()) for m in re.finditer(pattern, text)]
    there = regex.compiled(pattern)
    assert [(m.span(), m.group(), m.groups(), m.groupdict()) for m in there.finditer(lazy(text))] == found
    assert there.findall(lazy(text)) == re.findall(pattern, text)
    assert there.split(lazy(text)) == re.split(pattern, text)
    assert there.sub("<\\g<0>>", lazy(text)) == re.sub(pattern, "<\\g<0>>", text)


@small
@given(texts, patterns, st.integers(0, 90), st.integers(0, 90))
def test_single_matches_are_those_of_the_text(text, pattern, pos, endpos):
    real, there = re.compile(pattern), regex.compiled(pattern)
    for way in ("search", "match"):
        ours, theirs = getattr(there, way)(lazy(text)), getattr(real, way)(text)
        assert (ours and ours.span()) == (theirs and theirs.span())
    assert bool(there.fullmatch(lazy(text))) == bool(real.fullmatch(text))


def test_a_match_longer_than_the_window_is_whole():
    text = "x" * 50 + "<" + "y" * 5000 + ">" + "z" * 50
    match = regex.compiled("<(y*)").search(lazy(text))
    assert match.span() == (50, 5051)
    assert match.string[match.start()] == "<"
    assert (match.start(1), match.end(1), match.re.groups) == (51, 5051, 1)


def test_a_match_sees_some_way_ahead():
    text = "x" * 50 + "<" + "y" * 30 + ">" + "z" * 500
    assert regex.compiled("(?s)<.*?>").search(lazy(text)).span() == (50, 82)


def test_a_part_that_is_too_long_to_copy_is_lazy_too(monkeypatch):
    monkeypatch.setattr(lazy_text, "LARGEST", 40)
    text = "abcdefghij" * 10
    half = lazy(text)[50:]
    assert type(half) is LazyText
    assert len(half) == 50
    assert half[:10] == text[50:60]
    assert half.find("j") == 9
    assert half.rfind("a") == 40
    assert half.count("a") == 5
    assert half[-3:] == "hij"
    assert list(half.split("j")) == text[50:].split("j")
    monkeypatch.setattr(matches, "WINDOW", 30)
    monkeypatch.setattr(matches, "AHEAD", 10)
    assert [m.start() for m in regex.compiled("a").finditer(half)] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    "copying",
    [
        str,
        lambda text: f"{text}",
        lambda text: text + "x",
        lambda text: "x" + text,
        lambda text: text * 2,
        lambda text: text.lower(),
        lambda text: text.replace("a", "b"),
        lambda text: text.split(),
        lambda text: text[::2],
    ],
)
def test_what_would_copy_all_of_it_says_what_to_do_instead(monkeypatch, copying):
    monkeypatch.setattr(lazy_text, "LARGEST", 10)
    with pytest.raises(ValueError, match="work on slices"):
        copying(lazy("abc" * 10))


def test_it_passes_for_a_str_but_has_no_attributes_of_its_own():
    text = lazy("abc")
    assert isinstance(text, str)
    assert "lazy text of 3 characters" in repr(text)
    assert "lazy list" in repr(text.splitlines())
    with pytest.raises(AttributeError):
        text.nothing  # noqa: B018


def test_it_has_the_methods_of_re_itself():
    assert lazy("xaay").search("a+").span() == (1, 3)
    assert lazy("xaay").findall("a") == ["a", "a"]


@pytest.fixture
def patched_re():
    before = dict(vars(re))
    regex.install()
    yield
    vars(re).update(before)


def test_the_functions_of_re_take_lazy_and_other_texts(patched_re):
    text = lazy("one two")
    for subject in (text, "one two"):
        assert re.findall(r"\w+", subject) == ["one", "two"]
        assert re.search("T", subject, re.I).span() == (4, 5)
        assert re.search("T", subject, flags=re.I).start() == 4
        assert re.split(" ", subject) == ["one", "two"]
        assert re.split(" ", subject, 1) == ["one", "two"]
        assert re.split("O", subject, 1, re.I) == ["", "ne two"]
        assert re.sub("o", "0", subject, 1) == "0ne two"
        assert re.sub("O", lambda m: "0", subject, 0, re.I) == "0ne tw0"
        assert re.subn("o", "0", subject) == ("0ne tw0", 2)
        assert re.match("one", string=subject).end() == 3
        assert re.compile("two").search(subject).start() == 4
        assert re.fullmatch("one two", subject)
        assert re.split("O", subject, maxsplit=1, flags=re.I) == ["", "ne two"]
        assert re.sub("o", "0", subject, count=1) == "0ne two"
        assert re.compile(re.compile("o")).findall(subject) == ["o", "o"]
    assert isinstance(re.compile("a"), re.Pattern)
    assert re.compile("a") == re.compile("a")
    assert len({re.compile("a"), re.compile("a")}) == 1
    assert repr(re.compile("a")) == "re.compile('a')"
    assert repr(re.search("two", text)) == "<re.Match object; span=(4, 7), match='two'>"
