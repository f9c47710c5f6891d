"""Real texts to measure on: what is on the machine, and folders of text that are named."""

from __future__ import annotations

import ast
import gzip
import hashlib
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STDLIB = Path(sysconfig.get_path("stdlib"))
SUFFIXES = {".py", ".txt", ".rst", ".pod", ".noun", ".verb", ".adj", ".adv", ".gz"}


class Question(NamedTuple):
    """A query, and where its answer is in the context."""

    query: str
    key: str
    start: int
    end: int


class Task(NamedTuple):
    """A context and questions about it."""

    name: str
    context: dict[str, str]
    questions: list[Question]


def plain(folders: Sequence[Path], tokens: int) -> tuple[str, int]:
    """So many tokens (characters / 4) of text from these folders and the standard library; and what it was in all.

    Text that comes twice is taken once. Raises `SystemExit` when there is too little.
    """
    parts, size, seen = [], 0, set()
    for path in [*_files(STDLIB), *(file for folder in folders for file in _files(folder))]:
        text = _read(path)
        digest = hashlib.sha256(text.encode()).digest()
        if len(text) < 200 or digest in seen:
            continue
        seen.add(digest)
        parts.append(text)
        size += len(text)
        if size >= 4 * tokens:
            return "\n\n".join(parts)[: 4 * tokens], len(parts)
    raise SystemExit(f"{size / 4:,.0f} tokens of text are there, {tokens:,} are needed: name more folders")


def docstrings(count: int, most: int) -> Task:
    """The standard library without its docstrings; the first sentence of a docstring asks for its function.

    Modules are taken in no order, until they are `most` characters.
    """
    context: dict[str, str] = {}
    found: list[Question] = []
    for path in sorted(_files(STDLIB), key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        if sum(map(len, context.values())) > most:
            break
        if path.suffix != ".py" or path.stat().st_size > 400_000:
            continue
        key = str(path.relative_to(STDLIB))
        context[key], questions = _undocumented(key, _read(path))
        found += questions
    return Task("docstrings", {k: v for k, v in context.items() if v.strip()}, _some(found, count))


def code_lines(count: int, most: int) -> Task:
    """The same context; a line of code that stands there once, its words in no order, asks for its passage."""
    context, found = docstrings(0, most).context, list[Question]()
    times = Counter(line.strip() for text in context.values() for line in text.splitlines())
    for key, text in context.items():
        at = 0
        for line in text.splitlines(keepends=True):
            words = re.findall(r"\w+", line)
            if 4 <= len(words) <= 12 and times[line.strip()] == 1:
                query = " ".join(sorted(words, key=lambda word: hashlib.sha256(word.encode()).digest()))
                found.append(Question(query, key, at, at + len(line)))
            at += len(line)
    return Task("lines of code", context, _some(found, count))


def glosses(folder: Path, count: int) -> Task:
    """WordNet's nouns as words and example sentences; a definition asks for its word."""
    context: dict[str, str] = {}
    found: list[Question] = []
    for line in _read(folder / "data.noun").splitlines():
        head, bar, gloss = line.partition(" | ")
        if not bar or line.startswith("  ") or '"' not in gloss:
            continue
        fields = head.split()
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        definition, _, examples = gloss.partition('; "')
        key, text = fields[0], f'{", ".join(words)}: "{examples.strip()}'
        context[key] = text
        if len(definition.split()) >= 5:
            found.append(Question(definition.strip(), key, 0, len(text)))
    return Task("glosses", context, _some(found, count))


def _some(questions: list[Question], count: int) -> list[Question]:
    """The same ones always, in no order; of equal queries none, since they have no one answer."""
    asked: dict[str, int] = {}
    for question in questions:
        asked[question.query] = asked.get(question.query, 0) + 1
    single = [question for question in questions if asked[question.query] == 1]
    return sorted(single, key=lambda q: hashlib.sha256(q.query.encode()).digest())[:count]


def _undocumented(key: str, source: str) -> tuple[str, list[Question]]:
    """A module without its docstrings, and a question for each function that had one."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return "", []
    lines = source.splitlines(keepends=True)
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    documented = [node for node in nodes if ast.get_docstring(node)]
    for node in documented:
        told = node.body[0]
        lines[told.lineno - 1 : told.end_lineno] = [""] * (told.end_lineno - told.lineno + 1)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    questions = []
    for node in documented:
        query = _sentence(ast.get_docstring(node) or "")
        if isinstance(node, ast.FunctionDef) and len(query.split()) >= 6 and len(node.body) >= 3:
            questions.append(Question(query, key, starts[node.lineno - 1], starts[node.end_lineno or node.lineno]))
    return "".join(lines), questions


def _sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s|\n\s*\n", " ".join(text.split("\n\n", maxsplit=1)[0].split()))[0]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file() and not {"test", "tests", "site-packages"} & set(path.parts):
            yield path


def _read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return data.decode("utf-8", "replace") if b"\0" not in data[:8000] else ""
