from __future__ import annotations

from collections import OrderedDict, namedtuple
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
CONTAINERS = st.lists(VALUES, min_size=1) | st.dictionaries(st.text(), VALUES, min_size=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ContextStore(tmp_path_factory.mktemp("home"))


@given(value=CONTAINERS)
def test_any_json_value_comes_back_equal_and_in_its_order(store, value):
    ref = store.reference(value)
    back = store.load(ref)
    assert back == value
    assert ref["length"] == len(value)
    if isinstance(value, dict):
        assert list(back) == list(value)


def test_equal_contexts_share_a_blob_whatever_sequence_they_came_in(store):
    pair = namedtuple("pair", "a b")
    refs = [store.reference(value) for value in (["x", "y"], ("x", "y"), pair("x", "y"))]
    assert refs[0] == refs[1] == refs[2]
    assert store.reference(OrderedDict(a=1)) == store.reference({"a": 1})


def test_lone_surrogates_in_values_and_keys_are_replaced_and_counted(store):
    ref = store.reference({"k\ud800": ["\udfff", "ok"]})
    assert store.load(ref) == {"k\ufffd": ["\ufffd", "ok"]}
    assert ref["about"].endswith("; 2 lone surrogates replaced by U+FFFD")
    with pytest.raises(InputError, match="lone surrogate"):
        store.reference({"k\ud800": 1}, strict=True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rows": [1, {"x": {2}}]}, r'context\["rows"\]\[1\]\["x"\] is of type set: use text, numbers'),
        ([b"bytes"], r"context\[0\] is of type bytes"),
        ([Path()], r"context\[0\] is of type pathlib\.[\w.]+: use"),
        ([0.5, float("nan")], r"context\[1\] is nan, which JSON cannot represent: use None"),
        ({"a": float("-inf")}, r'context\["a"\] is -inf'),
        ({"a": {1: "x"}}, r'context\["a"\] has the key "1" of type int: make its keys str'),
        ({("a", "b"): 1}, r"context has the key .* of type tuple"),
        ([10**5000], "cannot be written as JSON"),
        (["text", Document("a")], r"context\[1\] is of type langchain_core\.documents\.base\.Document"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(store, value, message):
    with pytest.raises(InputError, match=message):
        store.reference(value)


def test_a_value_that_holds_itself_or_is_too_deep_is_refused(store):
    loop: list[object] = [1]
    loop.append({"again": loop})
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(InputError, match="nested more than 100 levels deep, or contains itself"):
            store.reference(value)


@pytest.mark.parametrize("value", [42, 1.5, True, object(), iter(["a"]), {"a"}, len])
def test_values_that_nobody_knows_are_refused_by_the_name_of_their_type(store, value):
    with pytest.raises(InputError, match=f"{type(value).__name__} cannot be a context: give text, a pathlib"):
        store.reference(value)


@pytest.mark.parametrize(
    ("value", "about"),
    [
        (["ab", "cdef"], "list of 2 str, 2 to 4 characters, 6 in all (about 3 tokens)"),
        ([{"id": 1, "text": "x"}] * 3, 'list of 3 dict (about 15 tokens as JSON); keys of the first: "id", "text"'),
        (
            [1, "a", None, 2.5, [1]],
            "list of 5 items (about 5 tokens as JSON); 1 int, 1 str, 1 None, 1 float, 1 list",
        ),
        (
            {"a": "xyz", "b": ""},
            'dict of 2 items: 2 str, 3 characters in all (about 4 tokens as JSON); keys: "a", "b"',
        ),
        ({"a": 1, "b": (2, 3)}, 'dict of 2 items: 1 int, 1 list (about 4 tokens as JSON); keys: "a", "b"'),
        (
            {str(n): n for n in range(10)},
            'dict of 10 items: 10 int (about 15 tokens as JSON); first keys: "0", "1", "2", "3", "4", "5"',
        ),
    ],
)
def test_a_value_is_described_in_one_line(store, value, about):
    assert store.reference(value)["about"] == about


def test_a_description_stays_one_safe_line_whatever_the_keys_are(store):
    about = store.reference({"x\n\u202e\x1b[0m" + "y" * 10_000: 1})["about"]
    assert "\n" not in about
    assert "\\n\\u202e\\u001b[0m" in about
    assert len(about) < 200


def test_the_preview_of_a_list_of_texts_is_the_first_text_and_of_others_the_json(store):
    assert store.reference(["first\ntext", "second"])["preview"] == "first\ntext"
    assert store.reference([{"a": "b\nc"}])["preview"] == '[{"a":"b\\nc"}]'
    assert len(store.reference({"a": "漢" * 1000})["preview"]) == 300


def test_documents_become_dicts_with_metadata_that_json_can_hold(store):
    when = datetime(2026, 11, 22, 9, 30)
    metadata = {"page": 1, "at": when, "path": Path("a/b"), "tags": {"y", "x"}, 7: [float("inf"), (1, None)]}
    ref = store.reference([Document("one", metadata=metadata), Document("two")])
    assert store.load(ref) == [
        {
            "page_content": "one",
            "metadata": {
                "page": 1,
                "at": "2026-11-22T09:30:00",
                "path": str(Path("a/b")),
                "tags": ["x", "y"],
                "7": ["inf", [1, None]],
            },
        },
        {"page_content": "two", "metadata": {}},
    ]
    assert ref["about"].startswith("list of 2 documents, dicts with 'page_content' and 'metadata'; 6 characters")
    assert 'metadata of the first: "page", "at", "path", "tags", "7"' in ref["about"]


def test_metadata_that_holds_itself_is_cut_not_followed(store):
    loop: dict[str, object] = {}
    loop["again"] = loop
    (item,) = store.load(store.reference([Document("x", metadata=loop)]))
    assert item["metadata"]["again"]["again"]


def test_a_single_document_or_message_is_a_list_of_one(store):
    assert store.load(store.reference(Document("x"))) == [{"page_content": "x", "metadata": {}}]
    assert store.load(store.reference(HumanMessage("hi"))) == [{"role": "user", "content": "hi"}]


def test_messages_become_roles_and_texts_and_keep_their_tool_calls(store):
    call = {"name": "grep", "args": {"pattern": "x"}, "id": "1", "type": "tool_call"}
    parts = [
        {"type": "text", "text": "see "},
        {"type": "image", "url": "data:..."},
        {"type": "text", "text": "this"},
    ]
    messages = [
        SystemMessage("be brief"),
        HumanMessage(parts),
        AIMessage("", tool_calls=[call]),
        ToolMessage("found", tool_call_id="1"),
        ChatMessage("aye", role="pirate"),
    ]
    ref = store.reference(messages)
    assert store.load(ref) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "see this"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "grep", "args": {"pattern": "x"}}]},
        {"role": "tool", "content": "found"},
        {"role": "pirate", "content": "aye"},
    ]
    assert "list of 5 messages" in ref["about"]
    assert (
        "1 system, 1 user, 1 assistant, 1 tool, 1 pirate; parts that are no text are left out: 1 image"
        in ref["about"]
    )


def test_a_dict_that_looks_like_a_serialized_object_stays_data(store):
    value = {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"], "kwargs": {}}
    assert store.load(store.reference(value)) == value
