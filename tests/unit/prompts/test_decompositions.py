"""Contracts of the helpers that cut a context into pieces: nothing lost, nothing out of order, nothing too long.

The helpers are programs for a REPL. Here their functions run as they are, on many contexts; then, on a few, in both
sandboxes, with the same results.
"""

from __future__ import annotations

import json
import os
import re
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
import rlm_strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage

from rlm_langchain import create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.sandboxes.worker.lazy.contexts import lazy
from rlm_langchain.testing.models import script
from rlm_langchain.types import Limits

HERE = Path(rlm_strategies.__file__).parent
FILES = [HERE / "common.py", *sorted(HERE.glob("*/helpers.py"))]
CODE = [compile(file.read_text(encoding="utf-8"), str(file), "exec") for file in FILES]
quick = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Repl:
    """The helpers of all strategies, over a context, with a model that replies by `leaf`."""

    def __init__(self, context=None, leaf=lambda prompt: "a reply"):
        self.asked, self.module = [], ModuleType("helpers")
        for code in CODE:
            exec(code, vars(self.module))
        self.module.context = context
        self.module.llm_query = lambda prompt: self.asked.append(prompt) or leaf(prompt)
        self.module.llm_query_batched = lambda prompts: [self.module.llm_query(prompt) for prompt in prompts]

    def __getattr__(self, name):
        return getattr(self.module, name)


KINDS = {
    "str": "\n\n".join,
    "list": lambda parts: parts,
    "rows": lambda parts: [{"id": n, "body": part} for n, part in enumerate(parts)],
    "documents": lambda parts: [Document(part, metadata={"source": "s"}) for part in parts],
    "messages": lambda parts: [kind(part) for part in parts for kind in (HumanMessage, AIMessage)],
    "folder": lambda parts: {f"src/{n}.txt": part for n, part in enumerate(parts)},
    "json": lambda parts: {"meta": {"n": len(parts)}, "data": [{"deep": [part]} for part in parts]},
    "mixed": lambda parts: [None, 7, True, 1.5, *parts, {}, []],
}
prose = some.text("ab .\né漢😀", max_size=90)
parts = some.lists(prose, max_size=6)
sizes = some.integers(1, 120) | some.just(10_000)


@pytest.fixture(scope="module")
def in_repl(tmp_path_factory):
    """What the REPL makes of a context."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("RLM_HOME", str(home))
        store, file = ContextStore(), (home / "lazy.txt").open("w+b", buffering=0)

        def made(kind, pieces):
            if kind == "lazy":
                file.truncate(0)
                os.pwrite(file.fileno(), (text := "\n".join(pieces)).encode(), 0)
                return lazy(file.fileno(), len(text), len(text.encode())) if text else ""
            ref = store.reference(KINDS[kind](pieces))
            return None if ref is None else store.load(ref)

        with file:
            yield made


def covers(pieces, named, size, overlap):
    """Assert that pieces are the texts in order, each whole or cut, with the overlap."""
    heads = [f"### {name}\n" if len(named) > 1 else "" for name, _ in named]
    left = [(head, text[:]) for head, (_, text) in zip(heads, named, strict=True) if head or len(text)]
    done = 0
    for piece in pieces:
        assert 0 < len(piece) <= size
        rest, is_first = piece, True
        while is_first or rest:
            if not is_first:
                assert rest.startswith("\n\n")
                rest = rest[2:]
            is_first, (head, text) = False, left[0]
            assert rest.startswith(head)
            rest = rest[len(head) :]
            begin = max(0, done - overlap) if done else 0
            if len(head) + len(text) <= size:
                assert rest.startswith(text)
                done, rest = len(text), rest[len(text) :]
            else:
                assert text[begin:].startswith(rest)
                assert begin + len(rest) > done
                done, rest = begin + len(rest), ""
            if done == len(text):
                left, done = left[1:], 0
    assert not left


@quick
@given(kind=some.sampled_from([*KINDS, "lazy"]), pieces=parts, size=sizes, data=some.data())
def test_a_partition_covers_every_kind_of_context_in_order_with_its_overlap(in_repl, kind, pieces, size, data):
    overlap = data.draw(some.integers(0, size - 1))
    repl = Repl(in_repl(kind, pieces))
    named = [(name, text[:]) for name, text in repl.texts()]
    heads = [len(f"### {name}\n") if len(named) > 1 else 0 for name, _ in named]
    if any(
        head + len(text) > size and size - head <= overlap for head, (_, text) in zip(heads, named, strict=True)
    ):
        with pytest.raises(ValueError, match="give a size well above"):
            repl.partition(size=size, overlap=overlap)
        return
    covers(repl.partition(size=size, overlap=overlap), named, size, overlap)
    assert repl.partition(repl.context, size=size, overlap=overlap) == repl.partition(size=size, overlap=overlap)


@quick
@given(text=some.text("a b.\n", min_size=1, max_size=400), size=some.integers(1, 60), data=some.data())
def test_a_large_overlap_does_not_make_a_piece_of_every_character(text, size, data):
    overlap = data.draw(some.integers(0, size - 1))
    separators = data.draw(some.sampled_from([("\n\n", "\n", ". ", " "), (), "a", [""], ("a", "b")]))
    pieces = Repl().partition(text, size=size, overlap=overlap, separators=separators)
    assert len(pieces) <= 1 + 2 * len(text) / (size - overlap)
    assert pieces[0] + "".join(piece[overlap:] for piece in pieces[1:]) == text


@quick
@given(items=some.lists(prose, max_size=30), most=some.integers(1, 40), size=some.integers(1, 200))
def test_batches_have_every_item_once_in_order_and_a_giant_is_alone(items, most, size):
    groups = Repl().in_batches(range(len(items)), items, most, size)
    assert [number for group in groups for number in group] == [*range(len(items))]
    for group in groups:
        assert 1 <= len(group) <= most
        assert len(group) == 1 or sum(len(items[number]) for number in group) <= size


@quick
@given(items=some.lists(some.text("ab é.:|", max_size=20), max_size=30), batch=some.integers(1, 40))
def test_every_item_is_labelled_and_rewritten(items, batch):
    lines = re.compile(r"^(\d+)[:|] ?(.*)$", re.MULTILINE)

    def leaf(prompt):
        found = lines.findall(prompt.split("Items:\n")[1])
        assert len(found) <= batch
        if "Labels: " in prompt:
            return "\n".join(f"{n}: {'Etc.' if 'a' in text else 'no'}" for n, text in found)
        return "\n".join(f"{n}|<{text}>" for n, text in found)

    repl = Repl(leaf=leaf)
    assert repl.classify(items, ["etc.", "no"], batch=batch) == ["etc." if "a" in one else "no" for one in items]
    done = repl.transform(items, "Do it.", batch=batch)
    assert [one.strip("<>").strip() for one in done] == [one.strip() for one in items]


def test_what_got_no_reply_is_kept_and_a_line_says_so(capsys):
    repl = Repl()
    assert repl.transform(["x", "y"], "Do it.") == ["x", "y"]
    assert "2 of 2 items are as they were" in capsys.readouterr().out
    assert repl.judge_pairs([("x", "y")], "Same?") == []
    assert "1 of 1 pairs got neither yes nor no" in capsys.readouterr().out


@quick
@given(pieces=some.lists(some.text("ab .é😀", max_size=90), max_size=5), size=some.integers(20, 120))
def test_a_summary_reads_all_of_every_text_and_ends_whatever_a_model_replies(pieces, size):
    for leaf in (lambda prompt: "S", lambda prompt: prompt * 2):
        repl = Repl(pieces, leaf=leaf)
        repl.summarise(size=size, target=10)
        read = [prompt.split("\n\nText:\n", 1)[1] for prompt in repl.asked]
        assert all(len(text) <= size for text in read)
        assert len(read) <= 4 + sum(map(len, pieces)) // 2
        if leaf("") == "S":
            parts = [part for text in read if "S" not in text for part in text.split("\n\n") if part]
            own = [part if len(pieces) == 1 else part.split("] ", 1) for part in parts]
            whole = "".join(own) if len(pieces) == 1 else [*map("".join, _grouped(own, len(pieces)))]
            assert whole == (pieces[0] if len(pieces) == 1 else pieces)


def _grouped(parts, count):
    return [[text for name, text in parts if name == f"[{number}"] for number in range(count)]


@quick
@given(found=some.lists(some.tuples(some.integers(0, 10**6), prose), max_size=8), size=some.integers(40, 120))
def test_all_of_every_passage_is_read(found, size):
    repl = Repl()
    passages = [{"source": f"s{n}", "start": start, "text": text} for n, (start, text) in enumerate(found)]
    repl.read("Q?", passages, size=size)
    prompts = [prompt.removeprefix("Q?\n\nPassages:\n") for prompt in repl.asked]
    assert all(len(prompt) <= size for prompt in prompts)
    pieces = re.findall(r"\[s(\d+) @(\d+)\]\n(.*?)\n\n(?=\[s\d|\Z)", "".join(prompts), re.DOTALL)
    for number, (start, text) in enumerate(found):
        own = [(int(at), piece) for n, at, piece in pieces if int(n) == number]
        assert "".join(piece for _, piece in own) == text
        assert all(text[at - start :].startswith(piece) for at, piece in own)


@quick
@given(
    keys=some.lists(some.lists(some.sampled_from("abc"), max_size=3) | some.sampled_from(["a", None]), max_size=9)
)
def test_block_pairs_are_those_that_share_a_key_each_once(keys):
    share = lambda one, two: {*(one or [])} & {*(two or [])}  # noqa: E731
    items = [*enumerate(keys)]
    right = [(a, b) for a, b in combinations(items, 2) if share(a[1], b[1])]
    assert Repl().block_pairs(items, key=lambda item: item[1]) == right
    repl = Repl(leaf=lambda prompt: re.sub(r": .*", ": yes", prompt.split("else.\n\n")[1]))
    assert repl.judge_pairs(right, "Same?", batch=2) == right


def test_too_many_pairs_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match="30000 items share the key 'k'"):
        Repl().block_pairs([*range(30_000)], key=lambda item: "k")


def test_evidence_that_is_not_read_whole_is_counted():
    repl = Repl(leaf=lambda prompt: "SUPPORTED")
    assert repl.verify("c", ["x" * 100, "y"], size=50)["left_out"] == 2
    assert repl.verify("c", ["y", "x" * 100, "z"], size=50)["left_out"] == 1
    assert repl.verify("c", "y")["left_out"] == 0
    assert repl.asked[1].endswith("[1] y\n\n[3] z\n\n")


def test_words_at_the_edge_of_two_pieces_are_found_and_passages_that_overlap_are_kept():
    repl = Repl("x " * 7 + "schooner " + "y " * 20)
    repl.module.search = None
    del repl.module.search
    assert "schooner" in repl.gather("schooner", width=18)[0]["text"]
    hits = [{"source": "context", "start": start, "text": f"at {start}"} for start in (0, 100, 0)]
    repl.module.search = lambda query, k: hits
    assert repl.gather(["a", "b"]) == hits[:2]


ODD = {
    "partition": ["size=0", "size=-1", "size=2.5", "size='9'", "size=None", "size=True", "tokens=0", "tokens=-2",
                  "overlap=-1", "size=10, overlap=10", "size=10, overlap=11", "overlap=0.5",
                  "['x' * 20, 'y'], size=6", "{'a long name': 'x' * 20, 'b': ''}, size=14", "size=5, overlap=5"],
    "partition_map": ["'q', size=0", "'q', overlap=-1", "'q', tokens=0", "'q', size=3, overlap=3"],
    "in_batches": ["[0], ['x'], 0", "[0], ['x'], -1", "[0], ['x'], 1, 0"],
    "summarise": ["size=0", "size=-5", "size=1", "target=0", "source={'n' * 60: 'x' * 90, 'm': ''}, size=50"],
    "classify": ["['x'], ['a'], batch=0", "['x'], ['a'], batch=-1", "['x'], []", "'xyz', ['a']", "{'x': 1}, ['a']",
                 "['x'], 'ab'", "['x'], ['a', 'A']", "['x'], ['a', 'a.']"],
    "transform": ["['x'], 'i', batch=0", "['x'], 'i', batch=-1", "'xyz', 'i'", "{'x': 1}, 'i'", "[], 'i', batch=0"],
    "write_sections": ["'One', 'i'"],
    "follow": ["'q', 's', hops=0", "'q', 's', hops=-1", "'q', 's', hits=0", "'q', 's', window=-1", "'q', ''"],
    "block_pairs": ["['x'], len, limit=0", "'xyz', len", "{'x': 1}, len", "['x'] * 5, len, limit=9"],
    "judge_pairs": ["[('x', 'y')], 'q', batch=0", "[('x', 'y')], 'q', batch=-3"],
    "read": ["'q', [{'source': 's', 'start': 0, 'text': 't'}], size=0",
             "'q', [{'source': 's' * 50, 'start': 0, 'text': 't'}], size=50"],
    "gather": ["'q', k=0", "'q', k=-1", "'q', width=0", "'q', width=-1"],
    "grep": ["'x', window=-1", "'x', limit=0", "'x', limit=-1"],
    "peek": ["items=0", "items=-1", "width=0"],
    "verify": ["'c', 'e', size=0", "'c', 'e', size=-1"],
}  # fmt: skip
CALLS = [f"{name}({given})" for name, cases in ODD.items() for given in cases]


def said_by(call):
    """The words of the ValueError that a call raises."""
    repl = Repl("some text")
    with pytest.raises(ValueError, match=r"give |choose ") as raised:
        eval(call, vars(repl.module))
    assert not repl.asked
    assert type(raised.value) is ValueError
    return str(raised.value)


@pytest.mark.parametrize("call", CALLS)
def test_odd_arguments_are_refused_with_the_way_out_before_anything_is_asked(call):
    assert re.search(r"\w+", said_by(call))


SOURCES = [
    "one\n\ntwo three. four\n" * 3,
    ["small", "", "giant " * 9, "after", "漢字😀 é" * 4],
    {"a.txt": "x " * 40, "b.txt": "y", "c.txt": ""},
    [{"id": 1, "body": "row"}, {"page_content": "a document", "metadata": {}}, None, 7],
    {"data": [{"deep": ["z" * 30]}]},
    "",
    [],
    {},
]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_both_sandboxes_cut_and_refuse_as_the_plain_functions_do(sandbox):
    tries = "\n".join(
        f"try:\n    {call}\n    said.append('nothing')\nexcept ValueError as error:\n    said.append(str(error))"
        for call in CALLS
    )
    cell = (
        f"import json\nsources = json.loads({json.dumps(json.dumps(SOURCES))})\nsaid = []\n{tries}\n"
        "cut = [partition(source, size=40, overlap=7) for source in sources]\n"
        "FINAL([cut, partition(size=25, overlap=20), said])"
    )
    names = [file.parent.name for file in FILES[1:]]
    output = create_rlm(script(cell), strategies=names, sandbox=sandbox).completion("q", SOURCES[0])
    assert output["status"] == "complete", [r["text"] for r in output["trajectory"] if r["type"] == "output"]
    cut, own, said = output["answer"]
    repl = Repl(SOURCES[0])
    assert cut == [repl.partition(source, size=40, overlap=7) for source in SOURCES]
    assert own == repl.partition(size=25, overlap=20)
    assert said == [said_by(call) for call in CALLS]
    assert output["sub_calls"] == 0


def test_a_text_beyond_memory_is_cut_like_one_in_memory(tmp_path):
    text = "line é of many\n" * 400
    (tmp_path / "t.txt").write_text(text, encoding="utf-8", newline="")
    cut = "partition(size=700, overlap=30), partition(context.splitlines(), size=700)"
    cell = f"FINAL([{cut}, type(context).__name__])"
    rlm = create_rlm(script(cell), strategies=["partition_map"], sandbox="cpython", limits=Limits(loaded=100))
    cut, lines, kind = rlm.completion("q", tmp_path / "t.txt")["answer"]
    assert kind == "LazyText"
    repl = Repl(text)
    assert cut == repl.partition(size=700, overlap=30)
    assert lines == repl.partition(text.splitlines(), size=700)
