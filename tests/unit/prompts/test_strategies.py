"""The built-in strategies: their helpers on a real text, in every sandbox, with a model that reads for real."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import pytest
import rlm_strategies

from rlm_langchain import (
    ConfigurationError,
    Strategy,
    create_rlm,
    read_skill,
)
from rlm_langchain.prompts.strategies import installed, strategies_of
from rlm_langchain.testing.models import script

STDLIB = Path(sysconfig.get_path("stdlib"))
FILES = {name: (STDLIB / name).read_text() for name in ("textwrap.py", "heapq.py", "this.py", "bisect.py")}
TEXT = "\n\n".join(FILES.values())


def leaf(prompt: str) -> str:
    """A model that does what the helpers ask, by code: so what comes back can be checked."""
    if "Labels: " in prompt:
        items = re.findall(r"^(\d+): (.*)$", prompt.split("Items:\n")[1], re.MULTILINE)
        return "\n".join(f"{n}: {'code' if 'def ' in text or 'return' in text else 'prose'}" for n, text in items)
    if "'number: yes'" in prompt:
        pairs = re.findall(r"^(\d+): (.*?)  <->  (.*)$", prompt, re.MULTILINE)
        return "\n".join(f"{n}: {'yes' if a[0] == b[0] else 'no'}" for n, a, b in pairs)
    if "'|', and the result" in prompt:
        return "\n".join(f"{n}|{text.upper()}" for n, text in re.findall(r"^(\d+)\|(.*)$", prompt, re.MULTILINE))
    if "Write only the section" in prompt:
        return f"About {re.search(r'only the section .(.*?).,', prompt)[1]}."
    if prompt.startswith("Check a claim"):
        claim = re.search(r"Claim: (.*)", prompt)[1]
        return f"{'SUPPORTED' if claim in prompt.split('Evidence:')[1] else 'UNCLEAR'}. See [1]."
    if "NEXT: " in prompt:
        following = "heappush" if "search for 'heapify'" in prompt else "DONE"
        return f"FACT: found {len(prompt) > 500}\nNEXT: {following}"
    if prompt.startswith("Summarise"):
        return f"S{len(prompt.split('Text:')[1])}"
    return f"{prompt.count('def ')} defs"


PROGRAMS = {
    "peek": ("peek()\nFINAL('seen')", lambda got: got == "seen"),
    "grep": (
        "FINAL([count(r'^def \\w+'), len(grep(r'def wrap', window=20)), grep('def wrap', window=5)[0]['match']])",
        lambda got: got[1:] == [2, "def wrap"],
    ),
    "partition_map": (
        "p = partition(size=3000)\nr = partition_map('Count.', size=3000)\n"
        "FINAL([len(p), len(r), max([len(x) for x in p]), sum([int(x.split(' ')[0]) for x in r])])",
        lambda got: got[0] == got[1] > 10 and got[2] <= 3000 and got[3] == TEXT.count("def "),
    ),
    "summarise": (
        "FINAL(summarise('names', size=5000, target=500))",
        lambda got: re.fullmatch(r"S\d+", got) and int(got[1:]) < 5000,
    ),
    "classify_count": (
        "items = [x for x in TEXTLIST if x.strip()][100:190]\nlabels = classify(items, ['code', 'prose'])\n"
        "FINAL([len(labels), tally_of(labels)])",
        lambda got: got[0] == 90 and sum(got[1].values()) == 90 and set(got[1]) == {"code", "prose"},
    ),
    "pairs": (
        "words = ['apple', 'avocado', 'bean', 'beet', 'corn', 'axe']\n"
        "c = block_pairs(words, key=lambda w: len(w))\nFINAL([len(c), judge_pairs(c, 'Same first letter?')])",
        lambda got: got == [3, [["bean", "beet"]]],
    ),
    "verify": (
        "a = verify('Beautiful is better', ['x', 'Beautiful is better than ugly'])\nb = verify('No', ['x'])\n"
        "FINAL([a['verdict'], b['verdict']])",
        lambda got: got == ["supported", "unclear"],
    ),
    "long_output": (
        "rows = ['row ' + str(i) for i in range(45)]\nd = transform(rows, 'Upper case.')\n"
        "FINAL([d == [r.upper() for r in rows], write_sections(['One', 'Two'], 'Write.')])",
        lambda got: got[0] is True and got[1] == "## One\n\nAbout One.\n\n## Two\n\nAbout Two.",
    ),
    "multi_hop": (
        "FINAL(follow('How does it push?', 'heapify'))",
        lambda got: got == ["found True", "found True"],
    ),
    "hybrid": (
        "g = gather(['wrap a paragraph', 'heap queue'], k=5)\nr = read('How many?', g, size=3000)\n"
        "FINAL([len(g), len(r), all([p['text'] in context for p in g])])",
        lambda got: 5 <= got[0] <= 10 and got[1] >= 2 and got[2],
    ),
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_helpers_do_their_work_on_a_real_text(name, sandbox):
    code, right = PROGRAMS[name]
    code = code.replace("TEXTLIST", "context.split('\\n')")
    rlm = create_rlm(script(code, leaf=leaf), strategies=[name], sandbox=sandbox)
    output = rlm.completion("q", TEXT)
    assert output["status"] == "complete", [r for r in output["trajectory"] if r["type"] == "output"]
    assert right(output["answer"]), output["answer"]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("context", [TEXT, FILES, list(FILES.values())], ids=["str", "dict", "list"])
def test_all_helpers_load_together_over_every_kind_of_context(context, sandbox):
    code = "peek()\nFINAL([count('heap'), sum([len(p) for p in partition(size=4000)]) >= 100])"
    rlm = create_rlm(script(code), strategies=tuple(PROGRAMS), sandbox=sandbox)
    assert rlm.completion("q", context)["answer"] == [len(re.findall("heap", TEXT, re.IGNORECASE)), True]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_long_items_go_out_in_smaller_batches(sandbox):
    asked = []
    items = "items = ['def ' + 'x' * 9000] * 7\n"
    code = f"{items}FINAL([classify(items, ['code', 'prose']), len(transform(items, 'Up.'))])"
    rlm = create_rlm(
        script(code, leaf=lambda prompt: asked.append(prompt) or leaf(prompt)),
        strategies=["classify_count", "long_output"],
        sandbox=sandbox,
        memo=False,
    )
    assert rlm.completion("q", TEXT)["answer"] == [["code"] * 7, 7]
    assert len(asked) == 6
    assert max(map(len, asked)) < 31_000


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_model_that_does_not_shorten_cannot_make_a_summary_endless(sandbox):
    rlm = create_rlm(
        script("FINAL(summarise(size=2000, target=1000))", leaf=lambda prompt: prompt * 2),
        strategies=["summarise"],
        sandbox=sandbox,
    )
    output = rlm.completion("q", TEXT[:20_000])
    assert output["status"] == "complete"
    assert 10 <= output["sub_calls"] < 40


def test_following_goes_on_by_meaning_where_the_words_are_not_there():
    seen = []
    code = "FINAL(follow('Who paints?', 'the painter of herons'))"
    rlm = create_rlm(
        script(code, leaf=lambda prompt: seen.append(prompt) or "FACT: NONE\nNEXT: DONE"),
        strategies=["multi_hop"],
        retriever="bm25",
    )
    assert rlm.completion("q", ["Ada is a painter.", "Bob sails."])["status"] == "complete"
    assert "0: Ada is a painter." in seen[0]


def test_every_strategy_is_installed_described_and_small():
    found = {strategy.name: strategy for strategy in installed()}
    assert set(PROGRAMS) <= set(found)
    for name in PROGRAMS:
        helpers = Path(rlm_strategies.__file__).parent / name / "helpers.py"
        assert found[name].description
        assert len(found[name].guidance) < 900
        assert len(helpers.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no such model')", "no such model"),
        ("broken = 'not a strategy'", "not a Strategy"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("", "broken"),
    ],
)
def test_a_broken_plug_in_is_named_and_left_out(tmp_path, monkeypatch, code, said):
    folder = tmp_path / "broken_strategy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-strategy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[rlm_langchain.strategies]\nbroken = broken_strategy:broken\n")
    (tmp_path / "broken_strategy.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_strategy", raising=False)
    with pytest.warns(UserWarning, match="the strategy 'broken' is broken and is left out") as warned:
        found = [strategy.name for strategy in installed()]
    assert said in str(warned[0].message)
    assert "broken" not in found
    assert set(PROGRAMS) <= set(found)
    assert create_rlm(script("FINAL(1)"), strategies="auto").invoke("q")["answer"] == 1


def test_guidance_reaches_the_root_model_and_the_system_prompt_stays_as_it_is():
    prompts = []

    def tell(*strategies):
        model = script("FINAL(1)")
        play = model.function
        model.function = lambda messages: prompts.append(messages) or play(messages)
        create_rlm(model, strategies=strategies).invoke("q")
        return prompts[-1]

    plain, guided = tell(), tell("grep")
    assert plain[0].content == guided[0].content
    assert "grep(pattern" in guided[1].content
    assert "grep(pattern" not in plain[1].content


def test_auto_chooses_by_the_shape_and_size_of_the_context_and_says_so():
    def told(context, strategies="auto"):
        [question, *_] = create_rlm(script("FINAL(1)"), strategies=strategies).completion("q", context)[
            "trajectory"
        ]
        return question

    records, text = told(["record"] * 5_000), told("a text " * 5_000)
    assert "classify(items" in records["text"]
    assert "summarise(focus)" in text["text"]
    assert "summarise(focus)" not in records["text"]
    assert (text["strategies"], text["chosen"]) == (["peek", "grep", "partition_map", "summarise"], True)
    assert told("a text")["strategies"] == ["direct"]
    assert told(None)["strategies"] == ["long_output", "verify"]
    assert "chosen" not in told("a text", "grep")


def test_auto_goes_together_with_strategies_of_ones_own():
    own = Strategy("grep", "d", "Use `mine()`.", "def mine():\n    return 'mine'\n")
    rlm = create_rlm(script("FINAL([mine(), len(partition(size=1000))])"), strategies=["auto", own])
    output = rlm.completion("q", "word " * 10_000)
    assert output["answer"] == ["mine", 50]
    assert output["trajectory"][0]["strategies"] == ["grep", "peek", "partition_map", "summarise"]
    with pytest.raises(ConfigurationError, match="two different strategies are called 'grep'"):
        _ = create_rlm(script("FINAL(1)"), strategies=["grep", own]).graph


def test_a_folder_of_skills_is_passed_by_path(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: d\n---\nUse `{name}()`.\n")
        (tmp_path / name / "helpers.py").write_text(f"def {name}():\n    return '{name}'\n")
    assert [s.name for s in strategies_of(tmp_path)] == ["one", "two"]
    rlm = create_rlm(
        script("FINAL(one() + two() + three())"),
        strategies=[tmp_path, Strategy("three", "d", "Use three().", "def three():\n    return '3'\n")],
    )
    assert rlm.invoke("q")["answer"] == "onetwo3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no front matter", "front matter"),
        ("---\nname: x\n---\nbody", "description"),
        ("---\nname: [\n---\nbody", "not valid YAML"),
        ("---\nname: x\ndescription: d\nwhole: all\n---\nbody", "whole"),
        ("---\nname: x\ndescription: d\nwhole: 2\n---\nbody", "share"),
    ],
)
def test_a_skill_that_is_none_says_why(tmp_path, text, said):
    (tmp_path / "SKILL.md").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_skill(tmp_path)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigurationError, match="partition_map"):
        strategies_of("partition-map")
