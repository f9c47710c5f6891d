"""The commands `export` and `dataset`, which write runs in formats of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rlm_langchain.cli.commands.show import find_run
from rlm_langchain.cli.options import DataSetOptions
from rlm_langchain.cli.rendering.records import as_text
from rlm_langchain.cli.session import history
from rlm_langchain.cli.session.threads import Threads
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError
from rlm_langchain.export import spans, training
from rlm_langchain.models.registry import profile_of
from rlm_langchain.records import AnswerRecord, Record
from rlm_langchain.trajectory.jsonl import write_trace
from rlm_langchain.trajectory.tree import Trajectory


def export_run(what: str | None, path: Path, form: Literal["otlp", "chrome", "jsonl"], *, content: bool) -> None:
    """Write a run to a file. Raises `InputError` if the file exists or cannot be written."""
    if path.exists():
        raise InputError(f"{path} already exists: give another file")
    records = find_run(what)[0]
    if form == "jsonl":
        write_trace(path, records)
    else:
        made = (spans.otlp if form == "otlp" else spans.chrome)(records, content=content)
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(made, file)
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}): give another file") from error
    number = len(spans.spans(records))
    print(f"wrote {path}: {number:,} spans" if form != "jsonl" else f"wrote {path}: every record of the run")


def write_data_set(names: Sequence[str], options: DataSetOptions) -> None:
    """Write training data from the named runs, by default from all finished ones. Raises `InputError`."""
    filters = training.Filters(
        only_complete=not options.partial, max_usd=options.max_usd, min_reward=options.min_reward
    )
    score = None if options.answers is None else exact_match(options.answers)
    runs = map(_finished, _records(names))
    data = training.data_set(runs, store=ContextStore(), filters=filters, score=score, held_out=options.held_out)
    files = training.write(data, options.out, options.form)
    for (kind, side), examples in sorted(data.lines.items()):
        print(f"{kind} {side.replace('_', ' ')}: {len(examples):,}")
    for what, count in sorted(data.left_out.items()):
        print(f"left out: {count:,} {what}")
    print(f"wrote {len(files):,} files to {options.out}: README.md describes them")


def exact_match(path: Path) -> training.Score:
    """Return a scorer from a JSON Lines file with `query` and `answer`: 1 for an equal answer, otherwise 0.

    Case and white space are ignored. A question that is not in the file scores 0. Raises `InputError`.
    """
    expected: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}): check its name") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            expected |= {} if row is None else {_plain(row["query"]): _plain(as_text(row["answer"]))}
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"line {number} of {path} is not an object with query and answer") from error

    def score(question: str, answer: AnswerRecord) -> float:
        return float(expected.get(_plain(question)) == _plain(as_text(answer["answer"])))

    return score


def _plain(text: str) -> str:
    return " ".join(str(text).split()).casefold()


def _records(names: Sequence[str]) -> Iterator[list[Record]]:
    if names:
        yield from (find_run(name)[0] for name in names)
        return
    yield from (saved.records for saved in Threads().all() if saved.damage is None)
    yield from (kept.records() for kept in history.runs())


def _finished(records: list[Record]) -> training.FinishedRun:
    """Return a run with its prompt profile, which follows from the name of its root model."""
    top = Trajectory.of(records).runs.get("")
    model = top.turns[0].record["model"] if top and top.turns else ""
    return training.FinishedRun(records, profile_of(model))
