"""Turns records into parts that every view can show, in a terminal or not.

Invisible characters of all text are escaped here, so no escape sequence from a model, a context or code reaches a
terminal.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

from rlm_langchain.context.places import described
from rlm_langchain.context.sanitize import visible
from rlm_langchain.records import (
    AnswerRecord,
    NoteRecord,
    OutputRecord,
    QuestionRecord,
    Record,
    TurnRecord,
)
from rlm_langchain.trajectory.degradation import STOP_SENTENCES, describe_shortfalls

Kind = Literal["heading", "prose", "code", "printed", "error", "note", "call", "answer"]

LINES: dict[Kind, int] = {
    "prose": 12,
    "code": 60,
    "printed": 14,
    "error": 14,
    "note": 3,
    "call": 2,
    "answer": 8,
}
"""Most lines of a part that are shown without `--full`."""

WIDTH = 80
"""Longest JSON that is shown on one line, in characters."""

_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*[\w+-]*[ \t]*$", re.MULTILINE)
_QUOTED = re.compile(r"^(?P<fence>`{3,})\n(?P<text>.*)\n(?P=fence)$", re.MULTILINE | re.DOTALL)


class Part(NamedTuple):
    """A part of a record. Its text is safe to print."""

    kind: Kind
    text: str
    path: str = ""
    """Path of the run that it belongs to."""


def narrate(record: Record) -> list[Part]:
    """Return the parts of a record, in order. Waves and calls have none: `progress.py` counts them."""
    match record["type"]:
        case "question":
            parts = _question(record)
        case "turn":
            parts = _turn(record)
        case "cell":
            parts = [Part("code", record["code"].strip("\n"))]
        case "output":
            parts = _output(record)
        case "note":
            parts = _note(record)
        case "answer":
            parts = _answer(record)
        case _:
            parts = []
    shown = [Part(part.kind, visible(part.text), record["path"]) for part in parts]
    return [part for part in shown if part.text.strip()]


def clip(part: Part) -> str:
    """Return the text of a part, with its middle cut out if it is long."""
    most = LINES.get(part.kind, 1)
    lines = [line if len(line) <= 1_000 else f"{line[:1_000]} …" for line in part.text.split("\n")]
    if len(lines) <= most:
        return "\n".join(lines)
    tail = most // 3
    left_out = f"… {len(lines) - most + 1:,} more lines …"
    return "\n".join([*lines[: most - tail - 1], left_out, *lines[len(lines) - tail :]])


def as_text(answer: object) -> str:
    """Return an answer as text: a string as it is, everything else as JSON."""
    if isinstance(answer, str):
        return answer
    line = json.dumps(answer, ensure_ascii=False)
    return line if len(line) <= WIDTH else json.dumps(answer, ensure_ascii=False, indent=2)


def one_line(text: str, most: int = 100) -> str:
    """Return the beginning of a text, on one line."""
    line = visible(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _question(record: QuestionRecord) -> list[Part]:
    about = record.get("context")
    if about:
        context = f"context: {about['about']}"
    elif record.get("empty"):
        context = "no context: what was given is empty"
    else:
        context = "context: as before" if record.get("follows") else "no context"
    parts = [Part("heading", f"question: {record['query'].strip()}"), Part("note", context)]
    if names := ", ".join(record.get("strategies", ())):
        parts.append(Part("note", f"strategies: {names}{', chosen by the context' * record.get('chosen', False)}"))
    return parts


def _turn(record: TurnRecord) -> list[Part]:
    used = record["usage"]
    what = "summary of the history" if record.get("summary") else f"turn {record['turn'] + 1}"
    heading = (
        f"{what} · {record['model']} · {record['seconds']:.1f} s · "
        f"read {used['input']:,} tokens, wrote {used['output']:,}"
    )
    again = f" · tried {record['retries'] + 1} times" if record["retries"] else ""
    return [Part("heading", heading + again), Part("prose", _prose(record))]


def _prose(record: TurnRecord) -> str:
    """Return a reply without its code, which is shown when it runs."""
    text = record["text"]
    for code in record["cells"]:
        text = text.replace(code, "", 1)
    return re.sub(r"\n{3,}", "\n\n", _FENCE.sub("", text)).strip()


def _output(record: OutputRecord) -> list[Part]:
    quoted = _QUOTED.search(record["text"])
    if quoted:
        kind: Kind = "error" if record["error"] else "printed"
        return [Part(kind, quoted["text"]), Part("note", record["text"][quoted.end() :].strip())]
    silent = Part("note", record["text"].rpartition("\n\n")[2])
    return [] if record["outcome"] == "answered" else [silent]


def _note(record: NoteRecord) -> list[Part]:
    to = "to the model: " if record["to"] == "model" else ""
    return [Part("note", to + record["text"])]


def _answer(record: AnswerRecord) -> list[Part]:
    heading = f"{record['status']}: {STOP_SENTENCES[record['stop_reason']]}"
    if missing := record.get("degraded"):
        heading = f"{heading} ({describe_shortfalls(missing)})"
    cited = [
        f'"{" ".join(one["quote"].split())}" ({described(one.get("place", {})) or one["source"]})'
        for one in record.get("citations", ())
    ]
    return [Part("heading", heading), Part("answer", as_text(record["answer"])), Part("printed", "\n".join(cited))]
