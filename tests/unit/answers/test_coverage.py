"""Coverage: which share of a context models have read, and where: by its words in what they were shown."""

from __future__ import annotations

import random
import re
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import Budget, Limits, Price, create_rlm
from rlm_langchain.answers.coverage import CoverageTracker, IndexCache
from rlm_langchain.answers.fan_out import parts_left_out
from rlm_langchain.answers.substring_index import (
    ANCHOR_BYTES,
    MIN_DISTINCT_BYTES,
    SearchBudget,
    SubstringIndex,
)
from rlm_langchain.context.store import ContextStore
from rlm_langchain.testing.models import FunctionModel, script

words = random.Random(7)
LINES = [
    f"{n:05} {' '.join(words.sample(('heron', 'quince', 'mast', 'Köln', 'reed', 'keel'), 5))}" for n in range(900)
]
TEXT = "\n".join(LINES)


def run(code, context=TEXT, **options):
    return create_rlm(script(*([code] if isinstance(code, str) else code)), **options).completion("q", context)


def covered(output, text=TEXT):
    """The pieces of the text that the output names."""
    return [text[span["start"] : span["end"]] for span in output["coverage"]["where"]]


def test_what_was_never_shown_is_not_read():
    output = run("FINAL(sum(line.count('heron') for line in context.split('\\n')))")
    assert output["coverage"]["share"] < 0.02
    assert covered(output) == [TEXT[:300]]  # the preview
    assert output["trajectory"][-1]["coverage"] == output["coverage"]


@pytest.mark.parametrize("budget", [Budget(tokens=1), Budget(usd=0)])
def test_a_model_that_was_never_asked_has_read_nothing(budget):
    output = run("FINAL(1)", prices={"function": Price(1, 1)}, budget=budget)
    assert (output["iterations"], output["coverage"]["share"], output["coverage"]["where"]) == (0, 0, [])


def test_what_the_last_cell_printed_nobody_has_read():
    output = run("print(context[20000:20600])\nFINAL(1)")
    assert covered(output) == [TEXT[:300]]


def test_a_piece_that_was_asked_about_is_read_and_the_call_says_where():
    output = run("FINAL(llm_query('What is this?\\n' + context[9000:12000]))")
    assert covered(output)[1:] == [TEXT[9000:12000]]
    [call] = [record for record in output["trajectory"] if record["type"] == "call"]
    encoded = TEXT.encode()
    assert [encoded[start:end].decode() for _, start, end in call["read"]] == [TEXT[9000:12000]]
    share = len(TEXT[:300].encode()) + len(TEXT[9000:12000].encode())
    assert output["coverage"]["share"] == pytest.approx(share / len(encoded), abs=1e-5)


def test_what_was_read_twice_counts_once():
    code = "llm_query(context[:9000])\nllm_query('again: ' + context[3000:9000])\nprint(context[:4000])\nFINAL(1)"
    assert covered(run(code)) == [TEXT[:9000]]


def test_partitions_cover_everything():
    code = "FINAL(len(partition_map('Count.', size=4000)))"
    output = run(code, strategies=["partition_map"])
    assert output["coverage"] == {
        "share": 1.0,
        "where": [{"source": "context", "start": 0, "end": len(TEXT)}],
        "left_out": 0,
    }


def test_numbered_lines_are_read_although_they_stand_in_other_words():
    code = "FINAL(len(classify([x for x in context.split('\\n')][300:700], ['a', 'b'])))"
    output = run(code, strategies=["classify_count"])
    read = sum(len(piece) for piece in covered(output)[1:])
    assert output["coverage"]["left_out"] > 0 or read > 0.9 * sum(map(len, LINES[300:700]))
    assert 0.4 < output["coverage"]["share"] < 0.47


def test_what_a_cell_printed_is_read_as_far_as_it_was_shown():
    output = run(["print(context[:30000])", "FINAL(1)"])
    head, tail = covered(output)
    assert TEXT.startswith(head)
    assert 3_900 <= len(head) <= 4_000
    assert TEXT[:30000].endswith(tail)


def test_a_call_that_was_not_answered_has_read_nothing():
    def leaf(prompt):
        raise ConnectionRefusedError

    code = "try:\n    llm_query(context[3000:9000])\nexcept Exception:\n    FINAL('no')"
    output = create_rlm(script(code, leaf=leaf), budget=Budget(calls=2)).completion("q", TEXT)
    assert covered(output) == [TEXT[:300]]


def test_child_runs_read_too_whatever_their_context_is():
    model = script(
        "FINAL(rlm_query('KID', context[20000:30000]))",
        children={"KID": ["print(context[1000:1500])\nllm_query(context[5000:7000])", "FINAL('done')"]},
    )
    output = create_rlm(model, budget=Budget(depth=2)).completion("q", TEXT)
    assert covered(output) == [TEXT[:300], TEXT[20000:20300], TEXT[21000:21500], TEXT[25000:27000]]


def test_a_context_that_is_given_whole_is_read_whole():
    output = create_rlm(script("prose:done"), strategies="auto").completion("q", {"a": "short", "b": "texts"})
    assert output["coverage"]["share"] == 1.0
    assert output["coverage"]["where"] == [
        {"source": "a", "start": 0, "end": 5},
        {"source": "b", "start": 0, "end": 5},
    ]


CONTEXTS = {
    "list": (LINES, "{n}", "x"),
    "dict": ({f"k{n}": line for n, line in enumerate(LINES)}, "k{n}", "context['k' + str(n)]"),
    "documents": ([Document(line) for line in LINES], "{n}", "x['page_content']"),
    "records": ([{"id": n, "body": line} for n, line in enumerate(LINES)], "{n}.body", "x['body']"),
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_places_are_those_of_the_items(name, sandbox):
    context, label, item = CONTEXTS[name]
    code = (
        f"for n in (500, 700):\n    x = context[n] if {isinstance(context, list)} else None\n    llm_query({item})"
    )
    where = run([code, "FINAL(1)"], context, sandbox=sandbox)["coverage"]["where"]
    for n in (500, 700):
        assert {"source": label.format(n=n), "start": 0, "end": len(LINES[n])} in where


def test_a_file_that_is_used_in_place_is_measured(tmp_path: Path):
    (tmp_path / "t.txt").write_text(TEXT, encoding="utf-8", newline="")
    assert covered(run("FINAL(llm_query(context[9000:9500]))", tmp_path / "t.txt"))[-1] == TEXT[9000:9500]


def test_without_a_context_and_for_a_very_long_one_there_is_no_figure(monkeypatch):
    assert "coverage" not in create_rlm(script("FINAL(1)")).invoke("q")
    monkeypatch.setattr("rlm_langchain.answers.coverage.MAX_MAPPED_BYTES", 1000)
    assert "coverage" not in run("FINAL(llm_query(context[9000:9500]))")
    assert "coverage" in run("FINAL(1)", LINES)
    monkeypatch.setattr("rlm_langchain.answers.coverage.MAX_LOADED_BYTES", 1000)
    assert "coverage" not in run("FINAL(1)", LINES)


def test_a_thread_that_goes_on_measures_each_question_of_its_own_contexts():
    other = TEXT[::-1]
    rlm = create_rlm(script("FINAL(1)", "llm_query(context_1[5000:6000])\nFINAL(2)"), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    rlm.invoke({"query": "q", "context": TEXT}, config)
    where = rlm.invoke({"query": "q", "context": other}, config)["coverage"]["where"]
    assert {"source": "context_1", "start": 5000, "end": 6000} in where
    assert {"source": "context", "start": 0, "end": 300} in where


def test_a_resumed_run_knows_what_was_read_before():
    turns = iter(
        [
            "```repl\nllm_query(context[9000:9900])\n```",
            RuntimeError("down"),
            "```repl\nFINAL(llm_query(context[15000:15500]))\n```",
        ]
    )

    def play(messages):
        if messages[0].type != "system":
            return "a reply"
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    def fresh():
        return create_rlm(FunctionModel(function=play), checkpointer=saver)

    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        fresh().invoke({"query": "q", "context": TEXT}, config)
    assert covered(fresh().invoke(None, config)) == [TEXT[:300], TEXT[9000:9900], TEXT[15000:15500]]


letters = some.text("abé漢😀 \n", min_size=0, max_size=30)


@settings(deadline=None, max_examples=60)
@given(data=some.data())
def test_every_stretch_that_is_long_enough_is_found_and_nothing_else(data):
    text = data.draw(some.text("ab é漢", min_size=200, max_size=600))
    start = data.draw(some.integers(0, len(text) - 60))
    end = data.draw(some.integers(start + 50, len(text)))
    said = data.draw(letters) + "§" + text[start:end] + "§" + data.draw(letters)
    index = SubstringIndex(text.encode())
    found = index.find(said, SearchBudget(1_000))
    first, last = len(text[:start].encode()), len(text[:end].encode())
    marks = [
        index.data[i : i + ANCHOR_BYTES]
        for i in range(-(-first // ANCHOR_BYTES) * ANCHOR_BYTES, last - ANCHOR_BYTES + 1, ANCHOR_BYTES)
    ]
    is_plain = all(len(set(mark)) < MIN_DISTINCT_BYTES for mark in marks)
    assert sum(e - s for s, e in found) >= last - first or text.count(text[start:end]) > 1 or is_plain
    for s, e in found:
        assert index.data[s:e].decode() in said


def test_a_long_context_has_marks_further_apart_and_long_pieces_are_still_found(home, monkeypatch):
    monkeypatch.setattr("rlm_langchain.answers.substring_index.MAX_ANCHORS", 4_000)
    text = "".join(f"{n:05} is the number of a line that is like all the others.\n" for n in range(4_000))
    store, tracker = ContextStore(), CoverageTracker(ContextStore(), IndexCache())
    tracker.set_contexts([ref := store.reference(text)])
    index = tracker.index_cache.index(store, ref)
    assert round(len(index) / len(index._anchors)) == 4 * ANCHOR_BYTES
    got = [tracker.ranges_in(f"So?\n{text[i : i + 10_000]}") for i in range(0, len(text), 10_000)]
    assert tracker.coverage(chain.from_iterable(got))["share"] == 1.0
    assert tracker.coverage(chain.from_iterable(got[:3]))["share"] == pytest.approx(30_000 / len(text), abs=0.005)


def test_an_answer_names_the_longest_pieces_and_says_how_many_more_there_are(home, monkeypatch):
    monkeypatch.setattr("rlm_langchain.answers.coverage.MAX_SPANS", 3)
    code = "for n in range(10):\n    llm_query(context[2000 * n + 1000:2000 * n + 1100 + 20 * n])\nFINAL(1)"
    coverage = run(code)["coverage"]
    assert [span["end"] - span["start"] for span in coverage["where"]] == [300, 260, 280]
    assert coverage["left_out"] == 8


RULES = ["|" + "-" * 20, "-" * 31 + "|", "-|" * 15 + "+"]


@pytest.mark.parametrize("rule", RULES)
def test_rules_that_stand_everywhere_are_compared_with_nothing(rule):
    index, budget = SubstringIndex(f"{'-' * 80}\n{'-|' * 40}\n".encode() * 160), SearchBudget(1_000)
    assert index.find(rule * 700, budget) == []
    assert budget.left == 1_000


def test_one_prompt_is_compared_with_so_many_places_and_no_more(home):
    """Each stretch of 16 bytes stands in the context, and none of 32: as bad as it gets."""
    some_words = [f"{n:04}abcdefghijkl" for n in range(1_000)]
    text = "".join(word + "#" * 16 for word in some_words)
    said = "".join(word + "?" for word in some_words)
    budget = SearchBudget(50)
    assert SubstringIndex(text.encode()).find(said + text, budget) == []
    assert budget.left == 0
    assert SubstringIndex(text.encode()).find(said + text, SearchBudget(2_000)) == [(0, len(text))]


def test_all_contexts_together_get_the_compares_of_one_prompt(home, monkeypatch):
    given = []
    monkeypatch.setattr(SubstringIndex, "find", lambda _, text, budget: given.append(budget) or [])
    tracker = CoverageTracker(store := ContextStore(), IndexCache())
    tracker.set_contexts([store.reference(TEXT), store.reference(TEXT[::-1])])
    tracker.ranges_in(TEXT)
    assert given[0] is given[1]
    assert SearchBudget.for_text("x" * 16_384).left < 4_200
    assert SearchBudget.for_text("x" * 10_000_000).left == 65_536


def test_each_of_many_contexts_is_indexed_once_in_a_run(home, monkeypatch):
    built, of = [], SubstringIndex.of
    monkeypatch.setattr(SubstringIndex, "of", lambda file, *, ours: built.append(file) or of(file, ours=ours))
    texts = [TEXT, TEXT[::-1], TEXT.upper(), TEXT.swapcase()]
    tracker = CoverageTracker(store := ContextStore(), IndexCache())
    tracker.set_contexts([store.reference(text) for text in texts])
    read = [byte_range for text in texts for byte_range in tracker.ranges_in(text)]
    assert tracker.coverage(read)["share"] == 1.0
    assert len(built) == len(texts)


# --- What a fan-out left out ---------------------------------------------------------------------
def told(*cells, context=TEXT, leaf=lambda prompt: "ok", **options):
    """What the root model was told after each cell, in one line, and what the record has of it."""
    rlm = create_rlm(script(*cells, "FINAL(1)", leaf=leaf), **options)
    outputs = [r for r in rlm.completion("q", context)["trajectory"] if r["type"] == "output"]
    assert not any(record["error"] for record in outputs), outputs
    lines = [[line for line in record["text"].split("\n") if "word for word" in line] for record in outputs]
    assert all(len(found) <= 1 for found in lines)
    assert all(("covered" in record) == bool(found) for record, found in zip(outputs, lines, strict=True))
    return ["".join(found) for found in lines][: len(cells)]


ASK = "_ = llm_query_batched(['Which birds are there? ' + one for one in {}])"
PAGES = ["\n".join(LINES[n : n + 30]) for n in range(0, 900, 30)]
FAN_OUTS = {
    "text": (TEXT, "[context[i:i + 2500] for i in range({}, len(context), 2500)]", "characters 0-10,000."),
    "list": (LINES, "['\\n'.join(context[i:i + 100]) for i in range({} // 33, 900, 100)]", "items 0 to 302."),
    "rows": (
        [{"id": n, "link": f"https://example.org/{n:020}", "body": page} for n, page in enumerate(PAGES)],
        "[row['body'] for row in context[{} // 1000:]]",
        "items 0.body to 9.body.",
    ),
    "json of rows": (
        [{"id": n, "body": line * 3} for n, line in enumerate(LINES)],
        "[str(context[i:i + 100]) for i in range({} // 33, 900, 100)]",
        "items 0.body to 302.body.",
    ),
    "documents": (
        [Document(page) for page in PAGES],
        "[x['page_content'] for x in context[{} // 1000:]]",
        "items 0 to 9.",
    ),
    "folder": (
        {f"src/{n}.txt": page for n, page in enumerate(PAGES)},
        "[*context.values()][{} // 1000:]",
        "items src/0.txt to src/9.txt.",
    ),
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", FAN_OUTS)
def test_the_model_is_told_in_one_line_what_its_fan_out_left_out(name, sandbox):
    context, pieces, where = FAN_OUTS[name]
    part, whole = (ASK.format(pieces.format(first)) for first in (10_000, 0))
    first, second = told(part, whole.replace("Which", "What"), context=context, sandbox=sandbox)
    assert re.match(r"66 % of .*`context` was found, word for word, in the answered prompts of this cell", first)
    assert f"not: {where}" in first
    assert second == ""


def test_a_file_that_is_read_lazily_is_measured_too(tmp_path: Path):
    (tmp_path / "t.txt").write_text(TEXT, encoding="utf-8", newline="")
    code = ASK.format(FAN_OUTS["text"][1].format(10_000))
    [line] = told(code, context=tmp_path / "t.txt", limits=Limits(loaded=1000), sandbox="cpython")
    assert "not: characters 0-10,000." in line


SILENT = {
    "no fan-out": "llm_query(context[9000:12000])",
    "a few look-ups": "for i in range(0, 28000, 4000):\n    llm_query(context[i:i + 2000])",
    "scattered places at once": ASK.format("[context[i:i + 300] for i in range(0, 30000, 3000)]"),
    "many questions about one passage": "_ = llm_query_batched([str(n) + context[:3000] for n in range(9)])",
    "all, in overlapping pieces": ASK.format("[context[i:i + 3000] for i in range(0, len(context), 2000)]"),
    "all, in several batches": "for j in range(0, len(context), 8000):\n    "
    + ASK.format("[context[i:i + 2000] for i in range(j, j + 8000, 2000)]"),
    "all, without blank lines and numbered": ASK.format(
        "['\\n'.join(str(i + n) + ': ' + x.strip() for n, x in enumerate(context.split('\\n')[i:i + 90])) "
        "for i in range(0, 900, 90)]"
    ),
    "all, but in other letters": ASK.format("[context[i:i + 2500].upper() for i in range(0, len(context), 2500)]"),
    "all, half of it in other letters": ASK.format(
        "[context[i:i + 2500].upper() if i % 5000 else context[i:i + 2500] for i in range(0, len(context), 2500)]"
    ),
}


@pytest.mark.parametrize("kind", ["list", "text"])
def test_items_that_stand_there_several_times_are_not_left_out_when_all_are_asked_about(kind):
    twice = [*PAGES, *LINES[:90], *PAGES[:20], *LINES[30:200]]
    pieces = {
        "list": "['\\n'.join(context[i:i + 20]) for i in range(0, len(context), 20)]",
        "text": "[context[i:i + 3500] for i in range(0, len(context), 3500)]",
    }
    context = twice if kind == "list" else "\n".join(twice)
    assert told(ASK.format(pieces[kind]), context=context) == [""]


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_without_a_fan_out_or_when_all_was_asked_about(name):
    assert told(SILENT[name]) == [""]


def test_pieces_one_by_one_in_several_batches_and_only_the_first_of_them_are_a_fan_out():
    one_by_one = "for i in range(0, 24000, 3000):\n    llm_query('Birds? ' + context[i:i + 2500])"
    [line] = told(one_by_one)
    assert line.startswith(
        "66 % of `context` was found, word for word, in the answered prompts of this cell; not: "
    )
    assert re.search(rf"characters ([\d,]+-[\d,]+, )+23,500-{len(TEXT):,} and 5 more places.", line)
    several = f"for j in (0, 20000):\n    {ASK.format('[context[i:i + 2000] for i in range(j, j + 8000, 2000)]')}"
    assert f"not: characters 8,000-20,000, 28,000-{len(TEXT):,}." in told(several)[0]
    first = ASK.format("[context[i:i + 500] for i in range(0, 2500, 500)]")
    assert told(first)[0].startswith("8 % of `context`")
    assert f"not: characters 2,500-{len(TEXT):,}." in told(first)[0]


def test_what_earlier_cells_asked_alike_counts_and_memo_replies_do():
    half = ASK.format("[context[i:i + 2000] for i in range({}, {}, 2000)]")
    first, second, third, again = told(
        half.format(0, 16000), half.format(16000, 24000), half.format(24000, 40000), half.format(0, 16000)
    )
    assert f"this cell; not: characters 16,000-{len(TEXT):,}." in first
    assert f"this cell and earlier ones; not: characters 24,000-{len(TEXT):,}." in second
    assert (third, again) == ("", "")
    other = half.format(0, 16000).replace("Which birds", "How many trees")
    assert f"this cell; not: characters 16,000-{len(TEXT):,}." in told(half.format(16000, 40000), other)[1]
    assert told(
        "a = llm_query(context[:3000])\n" + ASK.format("[context[i:i + 3000] for i in range(0, 40000, 3000)]")
    ) == [""]


def test_a_piece_whose_call_failed_is_left_out():
    def leaf(prompt):
        if LINES[300] in prompt:
            raise ConnectionRefusedError
        return "ok"

    code = ASK.format("[context[i:i + 3000] for i in range(0, len(context), 3000)]")
    [line] = told(code, leaf=leaf, budget=Budget(calls=40))
    assert "not: characters 9,000-12,000." in line


def test_names_of_items_cannot_pass_for_a_message():
    context = {f"{'x' * 90}\n<|im_end|>\u202e{n}": line for n, line in enumerate(LINES[:40])}
    [line] = told(ASK.format("[*context.values()][:30]"), context=context)
    assert f"not: items {'x' * 60} to {'x' * 60}." in line
    context = {f"a\nb<|im_end|>\u202e{n}": line for n, line in enumerate(LINES[:40])}
    assert (
        "items a\\nb\\x3c|im_end|>\\u202e30 to" in told(ASK.format("[*context.values()][:30]"), context=context)[0]
    )


def test_pieces_for_child_runs_and_the_contexts_of_those_are_not_measured():
    kid = ASK.format("[context[i:i + 500] for i in range(0, 3000, 500)]")
    model = script(
        "_ = rlm_query_batched(['KID'] * 4, [context[i:i + 5000] for i in range(0, 20000, 5000)])",
        "FINAL(1)",
        children={"KID": [kid, "FINAL(2)"]},
    )
    output = create_rlm(model, budget=Budget(depth=2)).completion("q", TEXT)
    assert "word for word" not in str(output["trajectory"])


def test_a_run_that_was_paused_and_went_on_in_another_process_says_the_same():
    batch = "_ = llm_query_batched([q + context[i:i + 2500] for i in range(0, 20000, 2500)])"
    cell = f"for q in ('One? ', 'Two? '):\n    {batch}"
    config = {"configurable": {"thread_id": "t"}}

    def fresh():
        budget = Budget(approve_above_calls=8)
        return create_rlm(script(cell, "FINAL(1)", leaf=lambda prompt: "ok"), budget=budget, checkpointer=saver)

    saver = InMemorySaver()
    assert "__interrupt__" in fresh().invoke({"query": "q", "context": TEXT}, config)
    output = fresh().invoke(Command(resume=True), config)
    [said, _] = [record for record in output["trajectory"] if record["type"] == "output"]
    assert told(cell)[0] in said["text"]
    assert said["covered"] == pytest.approx(20_000 / len(TEXT), abs=0.01)


WORDY = " ".join(f"{words.getrandbits(40):x}é" for _ in range(2_000))


@settings(deadline=None, max_examples=40)
@given(size=some.integers(100, 2_000), data=some.data())
def test_what_is_said_is_what_the_prompts_lack(tracker, size, data):
    pieces = [(start, WORDY[start : start + size]) for start in range(0, len(WORDY), size)]
    gone = data.draw(some.sets(some.sampled_from(range(len(pieces) - 1)), max_size=len(pieces) // 2))
    calls = [
        {
            "kind": "llm", "call": n, "cell": 0, "model": "m", "error": None, "prompt_sha256": str(n),
            "preview": f"A question, is it? {piece}"[:200], "prompt_chars": 19 + len(piece),
            "read": tracker.ranges_in(f"A question, is it? {piece}"),
        }
        for n, (_, piece) in enumerate(pieces)
        if n not in gone
    ]  # fmt: skip
    found = parts_left_out(tracker, calls, 0, len(calls))
    if not gone:
        assert found == []
        return
    [part] = found
    missing = sum(len(pieces[n][1].encode()) for n in gone)
    assert part.share == pytest.approx(1 - missing / len(WORDY.encode()), abs=0.005)
    for place in re.findall(r"([\d,]+)-([\d,]+)", part.places):
        start, end = (int(number.replace(",", "")) for number in place)
        assert {n for n, (at, _) in enumerate(pieces) if start - 9 <= at < end - size // 2} <= gone


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLM_HOME", str(tmp_path_factory.mktemp("home")))
        tracker = CoverageTracker(store := ContextStore(), IndexCache())
        tracker.set_contexts([store.reference(WORDY)])
        yield tracker
