"""Frames of a worker: what it may say is read exactly, and everything else is one kind of error."""

from __future__ import annotations

import json
import marshal
import os
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.sandboxes.wire import (
    MAX_CALLS,
    MAX_VALUES,
    BrokenProtocol,
    CallsRequested,
    Ended,
    EndedWithAnswer,
    Message,
    Printed,
    Ready,
    parsed,
    replies_frame,
    run_frame,
)
from rlm_langchain.types import Call, Reply

MESSAGES: list[tuple[object, Message]] = [
    (["ready"], Ready()),
    (["out", "żółć 😀\x00"], Printed("żółć 😀\x00")),
    (["done", 1, None], Ended(1, None)),
    (["done", 7, "Traceback"], Ended(7, "Traceback")),
    (["answer", 1, {"a": [1, 2.5, None, True]}, None], EndedWithAnswer(1, {"a": [1, 2.5, None, True]}, None)),
    (["answer", 1, "42", "Traceback"], EndedWithAnswer(1, "42", "Traceback")),
    (["calls", 1, [["llm", "p", None]]], CallsRequested(1, (Call("llm", "p"),))),
    (
        ["calls", 2, [["rlm", "q", "c"], ["search", "s", [1, {"k": "v"}]]]],
        CallsRequested(2, (Call("rlm", "q", "c"), Call("search", "s", [1, {"k": "v"}]))),
    ),
]


def encoded(message: object) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


@pytest.mark.parametrize(("message", "read"), MESSAGES)
def test_a_message_is_read_as_what_it_is(message, read):
    assert parsed(encoded(message)) == read


def deep(levels: int) -> bytes:
    return b'["answer",1,' + b"[" * levels + b"]" * levels + b",null]"


FORGED = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut": b'["out","a',
    "two messages": b'["ready"]["ready"]',
    "no list": b'{"ready": 1}',
    "no message": b'["open"]',
    "empty": b"[]",
    "too many parts": b'["out","a","b"]',
    "an output that is no text": b'["out",1]',
    "an error that is no text": b'["done",1,{"a":1}]',
    "an answer without an error": b'["answer",1,1]',
    "a turn that is no number": b'["done",null,null]',
    "no calls": b'["calls",1,[]]',
    "calls that are no list": b'["calls",1,"llm"]',
    "a call that is no list": b'["calls",1,["llm"]]',
    "a call with too few parts": b'["calls",1,[["llm","p"]]]',
    "a call with too many parts": b'["calls",1,[["llm","p",null,1]]]',
    "a prompt that is no text": b'["calls",1,[["llm",["p"],null]]]',
    "a context that is a number": b'["calls",1,[["llm","p",1]]]',
    "a kind that is no name": b'["calls",1,[["../x","p",null]]]',
    "a kind in capitals": b'["calls",1,[["LLM","p",null]]]',
    "a kind that is long": encoded(["calls", 1, [["x" * 33, "p", None]]]),
    "too many calls": encoded(["calls", 1, [["llm", "", None]] * (MAX_CALLS + 1)]),
    "nan": b'["answer",1,NaN,null]',
    "infinity": b'["answer",1,[-Infinity],null]',
    "a number over all bounds": b'["answer",1,1e999,null]',
    "an integer over 64 bits": b'["answer",1,9223372036854775808,null]',
    "an integer of a million digits": b'["answer",1,' + b"9" * 10**6 + b",null]",
    "half a surrogate pair": b'["answer",1,"\\ud800",null]',
    "half a surrogate pair in a key": b'["answer",1,[{"\\uDFFF":1}],null]',
    "no UTF-8": b'["out","\xff"]',
    "a surrogate in UTF-8": b'["out","\xed\xa0\x80"]',
    "too deep": deep(40),
    "far too deep": deep(100_000),
    "deep and open": b'["answer",1,' + b"[" * 1_000_000,
    "deep objects": b'["answer",1,' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b",null]",
    "a crowd of lists": b'["answer",1,[' + b"[]," * 500_000 + b"[]],null]",
    "a crowd of numbers": encoded(["answer", 1, [0] * (MAX_VALUES + 1), None]),
    "control characters": b'["out","\x01"]',
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_frame_is_a_broken_protocol(forgery):
    with pytest.raises(BrokenProtocol):
        parsed(FORGED[forgery])


@pytest.mark.parametrize(
    "text",
    ["[" * 1000, "{" * 1000, "," * 1_000_000, '"],[' * 1000, "\\" * 999, '\\"[{,' * 1000, "\\ud800", "NaN"],
)
def test_what_a_text_looks_like_does_not_matter(text):
    assert parsed(encoded(["out", text])) == Printed(text)
    assert parsed(encoded(["answer", 1, [text, {text: text}], None])) == EndedWithAnswer(
        1, [text, {text: text}], None
    )


@pytest.mark.parametrize("forgery", ["a crowd of lists", "deep and open", "far too deep"])
def test_a_forged_frame_takes_no_more_memory_than_a_few_times_its_size(forgery):
    frame = FORGED[forgery]
    tracemalloc.start()
    with pytest.raises(BrokenProtocol):
        parsed(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(frame) + (1 << 20)


def test_the_greatest_crowd_fits_into_the_memory_that_a_step_may_take():
    frame = b'["answer",1,[' + b'{"":{}},' * (MAX_VALUES // 3 - 10) + b"0],null]"
    tracemalloc.start()
    parsed(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=15,
)
tags = st.sampled_from(["ready", "out", "calls", "done", "answer", "open", ""])
FUZZ = int(os.environ.get("RLM_FUZZ", "4000"))
"""Mutated frames."""

PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"',
    b"\\",
    b"\\ud800",
    b"null",
    b"1e999",
    b"NaN",
    b"9" * 30,
    b"\xff",
    b"[" * 50,
]


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """The frame after a few accidents."""
    for _ in range(chance.randint(1, 5)):
        at, length = chance.randrange(len(frame) + 1), chance.choice([0, 0, 1, 2, 8])
        junk = chance.choice([*PIECES, chance.randbytes(2), b"", frame[at : at + 20]])
        frame = frame[:at] + junk + frame[at + length :]
    return frame


@settings(max_examples=FUZZ // 100, deadline=None)
@given(st.integers(0, 2**32))
def test_mutated_frames_are_read_or_refused(seed):
    chance = random.Random(seed)
    for _ in range(100):
        read_or_refused(mutated(encoded(chance.choice(MESSAGES)[0]), chance))


@settings(max_examples=200, deadline=None)
@given(tags, st.lists(json_values, max_size=3))
def test_frames_with_other_values_are_read_or_refused(tag, rest):
    read_or_refused(json.dumps([tag, *rest]).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused(frame):
    read_or_refused(frame)


def read_or_refused(frame: bytes) -> None:
    try:
        message = parsed(frame)
    except BrokenProtocol:
        return
    assert isinstance(message, Message)
    again = parsed(encoded(told(message)))
    assert again == message


def told(message: Message) -> object:
    """The message as a worker would send it."""
    match message:
        case Ready():
            return ["ready"]
        case Printed(text):
            return ["out", text]
        case Ended(turn, error):
            return ["done", turn, error]
        case EndedWithAnswer(turn, value, error):
            return ["answer", turn, value, error]
        case CallsRequested(turn, calls):
            return ["calls", turn, [[call.kind, call.prompt, call.context] for call in calls]]


@pytest.mark.parametrize(
    ("value", "crosses_as"),
    [
        ("żółć 😀\x00", "żółć 😀\x00"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ({"\udfff": [1]}, {"\ufffd": [1]}),
    ],
)
def test_replies_cross_whole(value, crosses_as):
    frame = replies_frame(3, [Reply(value), Reply(error="no")])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert marshal.loads(frame[4:]) == ["replies", 3, [[crosses_as, None], [None, "no"]]]


def test_a_cell_crosses_whole():
    assert marshal.loads(run_frame(2, "print('ż\ud800')")[4:]) == ["run", 2, "print('ż\ufffd')"]
