"""The questions, each with the program that computes its answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple


class Question(NamedTuple):
    """What is asked of which context, and the answer, as a function of the context."""

    context: str
    text: str
    answer: Callable[[Any], int | float | str]


def _lines(text: str) -> list[str]:
    return text.split("\n")


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0]


DEV = [
    Question("stdlib", "How many files are there?", len),
    Question("stdlib", "Which file is the longest, by characters?", lambda c: max(c, key=lambda p: len(c[p]))),
    Question("stdlib", "How many lines are there in argparse.py?", lambda c: len(c["argparse.py"].splitlines())),
    Question(
        "stdlib",
        "How many files import the module re with a line 'import re'?",
        lambda c: sum(bool(re.search(r"^import re$", t, re.M)) for t in c.values()),
    ),
    Question(
        "stdlib",
        "How many classes are defined in all files together? Count lines that start with 'class '.",
        lambda c: sum(len(re.findall(r"^class ", t, re.M)) for t in c.values()),
    ),
    Question(
        "stdlib",
        "Which file contains the word 'deprecated' most often?",
        lambda c: max(c, key=lambda p: c[p].count("deprecated")),
    ),
    Question(
        "stdlib", "How many files in the folder email are there?", lambda c: sum(p.startswith("email/") for p in c)
    ),
    Question(
        "stdlib",
        "In which file is the class OrderedDict defined?",
        lambda c: next(p for p, t in c.items() if re.search(r"^class OrderedDict\b", t, re.M)),
    ),
    Question(
        "stdlib",
        "How often does the word TODO occur in all files together?",
        lambda c: sum(t.count("TODO") for t in c.values()),
    ),
    Question("topics", "How many lines does the text have?", lambda c: len(_lines(c))),
    Question(
        "topics",
        "How many chapters are there? Each begins with a line like '=== name ==='.",
        lambda c: len(re.findall(r"^=== .* ===$", c, re.M)),
    ),
    Question("topics", "How often does the word 'iterator' occur?", lambda c: len(re.findall(r"\biterator\b", c))),
    Question(
        "topics",
        "Which is the longest line, in characters? Give its length.",
        lambda c: max(len(line) for line in _lines(c)),
    ),
    Question(
        "topics",
        "How many lines contain both 'class' and 'method'?",
        lambda c: sum("class" in line and "method" in line for line in _lines(c)),
    ),
    Question(
        "topics",
        "What is the name of the last chapter? Chapters begin with a line like '=== name ==='.",
        lambda c: re.findall(r"^=== (.*) ===$", c, re.M)[-1],
    ),
    Question(
        "characters",
        "Each line is code;category;name. What is the name of U+00DF?",
        lambda c: re.search(r"^U\+00DF;\w+;(.*)$", c, re.M)[1],
    ),
    Question(
        "characters",
        "Each line is code;category;name. How many characters have the category Lu?",
        lambda c: sum(line.split(";")[1] == "Lu" for line in _lines(c)),
    ),
    Question(
        "characters",
        "Each line is code;category;name. Which category is the most frequent?",
        lambda c: _most(Counter(line.split(";")[1] for line in _lines(c))),
    ),
    Question(
        "characters", "How many names contain the word GREEK?", lambda c: sum("GREEK" in line for line in _lines(c))
    ),
    Question(
        "characters",
        "Each line is code;category;name. How many different categories are there?",
        lambda c: len({line.split(";")[1] for line in _lines(c)}),
    ),
    Question("definitions", "How many records are there?", len),
    Question(
        "definitions",
        "Each record is 'file:line kind name details'. How many are classes?",
        lambda c: sum(r.split(" ")[1] == "class" for r in c),
    ),
    Question(
        "definitions",
        "Each record is 'file:line kind name details'. Which function name occurs most often?",
        lambda c: _most(Counter(r.split(" ")[2] for r in c if r.split(" ")[1] == "def")),
    ),
    Question(
        "definitions",
        "Each record ends with args=N for functions. What is the largest number of args?",
        lambda c: max(int(r.rpartition("args=")[2]) for r in c if "args=" in r),
    ),
    Question(
        "definitions",
        "Each record is 'file:line kind name details'. Which file has the most records?",
        lambda c: _most(Counter(r.split(":")[0] for r in c)),
    ),
    Question(
        "definitions",
        "How many functions take exactly 3 arguments (args=3)?",
        lambda c: sum(r.endswith("args=3") for r in c),
    ),
]

HELD_OUT = [
    Question("entities", "How many entries does this table have?", len),
    Question(
        "entities",
        "How many of the names start with a capital letter?",
        lambda c: sum(name[0].isupper() for name in c),
    ),
    Question("entities", "Which name is the longest?", lambda c: max(c, key=len)),
    Question(
        "entities",
        "How many of the names do not end with a semicolon?",
        lambda c: sum(not name.endswith(";") for name in c),
    ),
    Question(
        "aliases",
        "Every line reads 'alias = locale'. What locale does 'bokmal' stand for?",
        lambda c: re.search(r"^bokmal = (.*)$", c, re.M)[1],
    ),
    Question(
        "aliases",
        "Every line reads 'alias = locale'. Count the different locales on the right-hand side.",
        lambda c: len({line.split(" = ")[1] for line in _lines(c)}),
    ),
    Question("aliases", "How many aliases begin with 'de'?", lambda c: sum(x.startswith("de") for x in _lines(c))),
    Question("aliases", "Tell me how many lines mention utf8.", lambda c: sum("utf8" in x for x in _lines(c))),
    Question("manual", "Count the occurrences of the string 'Return' in the text.", lambda c: c.count("Return")),
    Question(
        "manual",
        "What is the total number of words, if words are separated by white space?",
        lambda c: len(c.split()),
    ),
    Question("manual", "How many blank lines are in this text?", lambda c: sum(not x.strip() for x in _lines(c))),
    Question(
        "manual",
        "Methods are introduced like ' |  name('. How many times is '__eq__(' introduced like that?",
        lambda c: len(re.findall(r"^ \|  __eq__\(", c, re.M)),
    ),
    Question(
        "manual", "How many lines are longer than 79 characters?", lambda c: sum(len(x) > 79 for x in _lines(c))
    ),
]
