"""The generated questions: their answers are found again by other means, and equal seeds make equal manifests."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import pytest

from rlm_langchain.bench.items import Item, Manifest, item_record, length_name, make_item, manifest, parse_length
from rlm_langchain.bench.tasks import FAMILIES, family
from rlm_langchain.bench.tasks.chats import ENDINGS
from rlm_langchain.errors import ConfigurationError, UnknownPlugin

ROOT = Path(__file__).parents[3]
OUTCOME = {wording: ending for ending, wordings in ENDINGS.items() for wording in wordings}


def numbers_of_keys(item: Item) -> list[str]:
    """The numbers for the keys that the question names, read from the sentences with needles."""
    keys = re.search(r" for (.*) mentioned in", item.question.text)
    assert keys is not None
    asked = re.findall(r"[a-z]+-[a-z]+", keys[1])
    lines = [line for line in item.question.context.split("\n") if line.startswith("One of the special magic")]
    words = [line.rstrip(".").split(" ") for line in lines]
    return sorted(line[-1] for line in words if line[7] in asked)


def variables(item: Item) -> list[str]:
    """The variables with the value of the question, by running the assignments."""
    values: dict[str, str] = {}
    for line in item.question.context.split("\n"):
        if line.startswith("VAR "):
            name, _, value = line[4:].partition(" = ")
            values[name] = values[value[4:]] if value.startswith("VAR ") else value
    [wanted] = re.findall(r"\d{5}", item.question.text)
    return sorted(name for name, value in values.items() if value == wanted)


def lines_with_word(item: Item) -> int:
    """The lines that contain the word, by cutting them where there is no letter."""
    word = item.question.text.split("contain the word ")[1].split("?")[0]
    plain = "".join(c if c.isalnum() or c in "_\n" else " " for c in item.question.context)
    return sum(word in line.split() for line in plain.split("\n"))


def classes(item: Item) -> Iterator[tuple[str, str, list[str]]]:
    """File, name and direct bases of each class, from the tokens of the source."""
    for part in item.question.context.split("=== ")[1:]:
        if not re.match(r"\S+\.py ===\n", part):
            continue
        path, source = part.split(" ===\n", 1)
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(source + "\n").readline) if t.type != tokenize.NL]
        for at, token in enumerate(tokens[:-2]):
            if token.string == "class" and token.type == tokenize.NAME and tokens[at + 1].type == tokenize.NAME:
                yield path, tokens[at + 1].string, bases(tokens[at + 2 :])


def bases(tokens: list[tokenize.TokenInfo]) -> list[str]:
    """The arguments in the brackets that the tokens begin with, as text."""
    if tokens[0].string != "(":
        return []
    found, depth = [""], 0
    for token in tokens:
        depth += (token.string in "([{") - (token.string in ")]}")
        if depth == 0:
            return found
        if depth == 1 and token.string == ",":
            found.append("")
        elif (depth, token.string) != (1, "("):
            found[-1] += token.string
    raise AssertionError("the brackets are not closed")


def file_of_class(item: Item) -> str:
    name = item.question.text.split("is the class ")[1].split(" ")[0]
    [path] = [path for path, found, _ in classes(item) if found == name]
    return path


def subclasses(item: Item) -> int:
    base = item.question.text.split("at any level, name ")[1].split(" ")[0]
    return sum(base in found for _, _, found in classes(item))


def rows(item: Item) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(item.question.context)))


def counted_transactions(item: Item) -> int:
    found = re.search(r"category (\w+) and above (\d+) cents", item.question.text)
    assert found is not None
    return sum(row["category"] == found[1] and int(row["cents"]) > int(found[2]) for row in rows(item))


def top_account(item: Item) -> str:
    category = item.question.text.split("in the category ")[1].split("?")[0]
    totals: dict[str, int] = defaultdict(int)
    for row in rows(item):
        totals[row["account"]] += int(row["cents"]) * (row["category"] == category)
    best = [account for account, total in totals.items() if total == max(totals.values())]
    assert len(best) == 1
    return best[0]


def chats(item: Item) -> list[tuple[int, str]]:
    """Customer and outcome of each chat, from its first and its last line."""
    parts = [part.strip().split("\n") for part in item.question.context.split("\n\n")]
    return [(int(part[0].split("customer ")[1]), OUTCOME[part[-1].split(": ", 1)[1]]) for part in parts]


def counted_chats(item: Item) -> int:
    ending = item.question.text.split("is this the outcome: ")[1].split("?")[0]
    return sum(found == ending for _, found in chats(item))


def pairs(item: Item) -> list[str]:
    asked = re.search(r"exactly (\d+) chat\(s\) with this outcome: ([^.]*)\.", item.question.text)
    assert asked is not None
    times = Counter(customer for customer, ending in chats(item) if ending == asked[2])
    fitting = sorted(customer for customer, count in times.items() if count == int(asked[1]))
    return [f"({a}, {b})" for a, b in combinations(fitting, 2)] or [""]


def expected(item: Item) -> list[str]:
    return sorted(item.question.expected)


SOLVERS: dict[str, Callable[[Item], tuple[object, object]]] = {
    **{
        name: lambda item: (numbers_of_keys(item), expected(item))
        for name in ("niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery")
    },
    "variable_tracking": lambda item: (variables(item), expected(item)),
    "count_lines": lambda item: ([f"[{lines_with_word(item)}]"], expected(item)),
    "code_where": lambda item: ([repr([file_of_class(item)])], expected(item)),
    "code_subclasses": lambda item: ([f"[{subclasses(item)}]"], expected(item)),
    "transactions_count": lambda item: ([f"[{counted_transactions(item)}]"], expected(item)),
    "transactions_top": lambda item: ([repr([top_account(item)])], expected(item)),
    "chats_count": lambda item: ([f"[{counted_chats(item)}]"], expected(item)),
    "chats_pairs": lambda item: (sorted(pairs(item)), expected(item)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_agree_with_an_independent_solution(name: str) -> None:
    for length, index in [(2_000, 0), (2_000, 1), (2_000, 2), (12_000, 0)]:
        item = make_item(FAMILIES[name], length, index, seed=11)
        found, told = SOLVERS[name](item)
        assert found == told, item.id


@pytest.mark.parametrize("name", FAMILIES)
def test_a_context_has_about_the_requested_length(name: str) -> None:
    for length in (2_000, 32_000):
        chars = len(make_item(FAMILIES[name], length, 0, seed=1).question.context)
        assert 0.9 * 4 * length <= chars <= 4 * length


@pytest.mark.parametrize("name", FAMILIES)
def test_the_expected_answer_scores_fully_and_no_answer_scores_nothing(name: str) -> None:
    item = make_item(FAMILIES[name], 2_000, 3, seed=1)
    told = "\n".join(item.question.expected)
    if item.question.metric.startswith("oolong"):
        told = f"Answer: {ast.literal_eval(told)[0]}"
    assert item.score(told) == 1
    assert item.score("") == 0


def test_many_seeds_make_a_question_of_each_family() -> None:
    for seed in range(12):
        for one in FAMILIES.values():
            assert make_item(one, 2_000, 0, seed).question.expected


def manifest_of(seed: int) -> Manifest:
    return manifest([item_record(make_item(one, 2_000, 0, seed)) for one in FAMILIES.values()], seed)


PROGRAM = "import json; from tests.unit.bench.test_tasks import manifest_of; print(json.dumps(manifest_of(5)))"


def test_the_same_seed_makes_the_same_manifest_in_every_process() -> None:
    here, other = manifest_of(5), manifest_of(6)
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert json.loads(done.stdout) == here
    assert not {item["sha256"] for item in here["items"]} & {item["sha256"] for item in other["items"]}


@pytest.mark.parametrize(
    ("text", "tokens"), [("8k", 8_000), ("1M", 1_000_000), ("1.5M", 1_500_000), ("2000", 2_000)]
)
def test_lengths_are_read_and_written(text: str, tokens: int) -> None:
    assert parse_length(text) == tokens
    assert parse_length(length_name(tokens)) == tokens


@pytest.mark.parametrize("text", ["", "8x", "1k", "-8k", "8 k k", "0"])
def test_an_invalid_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid context length"):
        parse_length(text)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPlugin, match="niah_single"):
        family("niah_singel")
