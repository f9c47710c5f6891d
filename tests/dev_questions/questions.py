"""What is asked, and how the truth is computed: in plain Python, each time, from the same texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, Literal

from tests.dev_questions import texts

Truth = bool | float | str | tuple[str, ...]
"""A yes or no, a number, a text, or texts in any order."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question over a text, and what is right."""

    name: str
    set: Literal["dev", "held"]
    context: Callable[[], Any]
    query: str
    truths: Callable[[Any], list[Truth]]
    """More than one where the words of the question can be read in two ways."""
    folder: bool = False
    """Whether the context is given as a folder on disk."""


def best(scores: dict[str, float]) -> str:
    """The one name with the highest score. A question whose answer is a tie is no question."""
    (first, top), (_, second) = Counter(scores).most_common(2)
    if top == second:
        raise ValueError(f"a tie at {top}: {first!r}")
    return first


def lines(text: str) -> list[str]:
    return text.split("\n")


def rows(text: str) -> list[list[str]]:
    return [line.split("|") for line in lines(text)[1:]]


def per_package(items: list[dict[str, Any]]) -> dict[str, float]:
    totals: Counter[str] = Counter()
    for item in items:
        totals[item["package"]] += item["lines"]
    del totals[""]
    return dict(totals)


def words_of_capitals(text: str) -> list[Truth]:
    return [
        len(set(re.findall(r"\b[A-Z]{4,}\b", text))),
        len({w for w in re.findall(r"\w{4,}", text) if w.isupper()}),
    ]


def peps(text: str) -> list[str]:
    return re.findall(r"\bPEP\s+(\d+)", text)


def sections(text: str) -> list[str]:
    return re.findall(r"^== (\S+) ==$", text, re.MULTILINE)


def folders(files: dict[str, str]) -> Counter[str]:
    return Counter(path.rpartition("/")[0] for path in files if "/" in path)


def names_of(text: str) -> dict[str, float]:
    return dict(Counter(line.partition(",")[2] for line in lines(text)[1:]))


LIBRARY = [
    ("How many files are in the asyncio folder?", lambda c: [sum(p.startswith("asyncio/") for p in c)]),
    (
        "Over all files, how many lines start with 'class '?",
        lambda c: [sum(line.startswith("class ") for t in c.values() for line in lines(t))],
    ),
    ("Which file has the most lines?", lambda c: [best({p: t.count("\n") for p, t in c.items()})]),
    (
        "Which file contains the string 'lambda' most often?",
        lambda c: [best({p: t.count("lambda") for p, t in c.items()})],
    ),
    (
        "In which file is the class HTTPServer defined?",
        lambda c: [p for p, t in c.items() if re.search(r"^class HTTPServer\b", t, re.MULTILINE)],
    ),
    (
        "What is the value of HTTP_PORT in http/client.py?",
        lambda c: [int(re.search(r"^HTTP_PORT = (\d+)", c["http/client.py"], re.MULTILINE)[1])],
    ),
    (
        "How many files contain the line 'import threading'?",
        lambda c: [
            sum(any(line.strip() == "import threading" for line in lines(t)) for t in c.values()),
            sum("import threading" in t for t in c.values()),
            sum("import threading" in lines(t) for t in c.values()),
        ],
    ),
    (
        "Name the three files with the most characters.",
        lambda c: [tuple(p for p, _ in Counter({p: len(t) for p, t in c.items()}).most_common(3))],
    ),
    ("Does any file mention 'Gutenberg'?", lambda c: [any("Gutenberg" in t for t in c.values())]),
    (
        "What is the average number of characters per file, rounded to a whole number?",
        lambda c: [round(sum(map(len, c.values())) / len(c))],
    ),
]

REFERENCE = [
    (
        "How often does the word 'exception' occur, ignoring case?",
        lambda c: [c.lower().count("exception"), len(re.findall(r"\bexception\b", c, re.IGNORECASE))],
    ),
    ("How many lines are longer than 72 characters?", lambda c: [sum(len(line) > 72 for line in lines(c))]),
    ("What is the longest line?", lambda c: [best({line.strip(): len(line) for line in lines(c)})]),
    ("At which index does the word 'coroutine' first occur?", lambda c: [c.find("coroutine")]),
    ("How many different words consist of capital letters only and have four letters or more?", words_of_capitals),
    (
        "Show me the last line in which the word 'yield' appears.",
        lambda c: [[line.strip() for line in lines(c) if "yield" in line][-1]],
    ),
    (
        "How many different PEPs does the text refer to (for example PEP 484)?",
        lambda c: [len(set(peps(c))), len(set(re.findall(r"PEP (\d+)", c)))],
    ),
    (
        "Which letter from a to z is used least, ignoring case?",
        lambda c: [best({x: -c.lower().count(x) for x in ascii_lowercase})],
    ),
    (
        "How many empty lines are there?",
        lambda c: [sum(not line for line in lines(c)), sum(not line.strip() for line in lines(c))],
    ),
]

CHARACTERS = [
    ("How many characters belong to category Sm?", lambda c: [sum(row[2] == "Sm" for row in rows(c))]),
    (
        "Which code has the character named GREEK SMALL LETTER OMEGA?",
        lambda c: [next(row[0] for row in rows(c) if row[1] == "GREEK SMALL LETTER OMEGA")],
    ),
    ("What is U+20AC called?", lambda c: [next(row[1] for row in rows(c) if row[0] == "U+20AC")]),
    ("How many different categories are used?", lambda c: [len({row[2] for row in rows(c)})]),
    ("Which category is the most common?", lambda c: [best(dict(Counter(row[2] for row in rows(c))))]),
    ("What do all the numeric values add up to?", lambda c: [sum(float(row[3]) for row in rows(c) if row[3])]),
    (
        "How many names begin with 'LATIN CAPITAL LETTER'?",
        lambda c: [sum(row[1].startswith("LATIN CAPITAL LETTER") for row in rows(c))],
    ),
    ("Which name is the longest?", lambda c: [best({row[1]: len(row[1]) for row in rows(c)})]),
]

MODULES = [
    ("Which file has the most classes?", lambda c: [best({i["file"]: i["classes"] for i in c})]),
    (
        "How many functions are there in the package asyncio in total?",
        lambda c: [sum(i["functions"] for i in c if i["package"] == "asyncio")],
    ),
    ("How many files do not have a docstring?", lambda c: [sum(not i["docstring"] for i in c)]),
    (
        "What is the mean number of lines of the files in the email package, to one decimal?",
        lambda c: [round(sum(n := [i["lines"] for i in c if i["package"] == "email"]) / len(n), 1)],
    ),
    ("Leaving out files without a package, which package has the most lines?", lambda c: [best(per_package(c))]),
]

FRAMEWORKS = [
    (
        "How many files sit in the folder messages, counting subfolders?",
        lambda c: [sum(p.startswith("messages/") for p in c)],
    ),
    (
        "Where is the class RunnableLambda defined?",
        lambda c: [p for p, t in c.items() if re.search(r"^class RunnableLambda\b", t, re.MULTILINE)],
    ),
    (
        "Count the lines in which '@deprecated' appears.",
        lambda c: [sum("@deprecated" in line for t in c.values() for line in lines(t))],
    ),
    ("Which folder holds the largest number of files?", lambda c: [best(dict(folders(c)))]),
    (
        "In which file do we find the most occurrences of 'async def'?",
        lambda c: [best({p: t.count("async def") for p, t in c.items()})],
    ),
]

DOCSTRINGS = [
    (
        "Every entry begins with a line like '== module.name =='. How many entries does this manual have?",
        lambda c: [len(sections(c))],
    ),
    (
        "Every entry begins with a line like '== module.name =='. How many different modules have entries?",
        lambda c: [
            len({s.rpartition(".")[0] for s in sections(c)}),
            len({s.partition(".")[0] for s in sections(c)}),
        ],
    ),
    (
        "What is the first line of the entry '== shutil.copymode =='?",
        lambda c: [lines(c.partition("== shutil.copymode ==\n")[2])[0]],
    ),
    (
        "I need the number of lines that start with 'Return'.",
        lambda c: [sum(line.startswith("Return") for line in lines(c))],
    ),
]

ENTITIES = [
    ("How many rows does the table have, without the header?", lambda c: [len(lines(c)) - 1]),
    (
        "Give me the code point for the name 'hearts;'.",
        lambda c: [next(line.partition(",")[2] for line in lines(c) if line.startswith("hearts;,"))],
    ),
    (
        "How many names stand for more than one code point?",
        lambda c: [sum(" " in line.partition(",")[2] for line in lines(c)[1:])],
    ),
    ("Which code point has the greatest number of names?", lambda c: [best(names_of(c))]),
]

TOPICS = [
    (
        "In how many of the articles does the word 'generator' appear?",
        lambda c: [sum("generator" in t for t in c), sum("generator" in t.lower() for t in c)],
    ),
    ("What is the first line of the longest article?", lambda c: [lines(max(c, key=len))[0]]),
]


def _set(
    name: str, which: Literal["dev", "held"], context: Callable[[], Any], asked: list[Any], *, folder: bool = False
) -> list[Question]:
    return [
        Question(f"{name}-{n}", which, context, query, truths, folder)
        for n, (query, truths) in enumerate(asked, start=1)
    ]


QUESTIONS = [
    *_set("library", "dev", texts.library, LIBRARY, folder=True),
    *_set("reference", "dev", texts.reference, REFERENCE),
    *_set("characters", "dev", texts.characters, CHARACTERS),
    *_set("modules", "dev", texts.modules, MODULES),
    *_set("frameworks", "held", texts.frameworks, FRAMEWORKS, folder=True),
    *_set("docstrings", "held", texts.docstrings, DOCSTRINGS),
    *_set("entities", "held", texts.entities, ENTITIES),
    *_set("topics", "held", texts.topics, TOPICS),
]
