"""The data of a run's page, as JSON: the records as a tree, with totals, states, titles and tokens.

The page shows nothing else. Each number is a field of a record or a sum of such fields. Sums follow the ledger: a
child run counts through the record of its call, which includes everything below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_langchain.context.places import described
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import labelled_strings
from rlm_langchain.errors import JournalError
from rlm_langchain.records import (
    AnswerRecord,
    CallRecord,
    Citation,
    NoteRecord,
    OutputRecord,
    QuestionRecord,
    Record,
    TurnRecord,
)
from rlm_langchain.trajectory.degradation import STOP_SENTENCES, describe_shortfalls
from rlm_langchain.trajectory.messages import stored_prompts
from rlm_langchain.trajectory.tree import CallView, RanCell, RunView, Trajectory, TurnView
from rlm_langchain.types import ContextRef, Usage, total_usage
from rlm_langchain.viewer.code import MAX_HIGHLIGHTED_CHARS, Batch, Lines, title, tokens

VERSION = 1
"""Version of the data format."""
MAX_CONTEXT_BYTES = 1_000_000
"""Maximum size of a context whose text the page includes, in bytes."""
MAX_LOADED_BYTES = 64 << 20
"""Maximum size of a context that is loaded for the text around quotes, in bytes."""
MAX_TEXT_CHARS = 100_000
"""Maximum characters of one prompt or reply in the page."""
MAX_TOTAL_CHARS = 40_000_000
"""Maximum characters of all prompts and replies in the page, which keeps it below 25 MB."""
PREFIX_CHARS = 500
"""Characters of each prompt or reply beyond that total. The page says where texts are cut."""
QUOTE_MARGIN = 400
"""Characters before and after a quote in the page."""
OPTIONAL_FIELDS = ("flaw", "retries", "lost", "from_cache", "summary")
"""Fields that only some turns and calls have."""

Json = dict[str, Any]


def page_data(
    records: Iterable[Record], *, limits: Mapping[str, float] | None = None, store: ContextStore | None = None
) -> Json:
    """Return the page data for these records.

    `limits`: values of `Budget` by field, which records do not contain. `store`: the contexts, for short contexts
    and the text around quotes. None: the page shows only text that is in the records.
    """
    return _Page(Trajectory.of(records), limits or {}, store).data()


@dataclass(slots=True)
class _Page:
    tree: Trajectory
    limits: Mapping[str, float]
    store: ContextStore | None
    numbers: dict[str, int] = field(default_factory=dict)
    """Position of each run in the page, by path."""
    totals: dict[str, tuple[Usage, Usage]] = field(default_factory=dict)
    """Usage of each run's own turns and of everything below them, by path."""
    highlighted: int = 0
    text_chars: int = 0
    """Characters of prompts and replies added so far."""
    models: dict[str, int] = field(default_factory=dict)
    known_tokens: dict[str, list[int]] = field(default_factory=dict)

    def data(self) -> Json:
        self.tree.runs.setdefault("", RunView(""))
        paths = sorted(self.tree.runs, key=_order)
        self.numbers = {path: number for number, path in enumerate(paths)}
        for path in sorted(paths, key=len, reverse=True):
            self.totals[path] = self._usage(self.tree.runs[path])
        runs = [self._run(self.tree.runs[path]) for path in paths]
        top = self.tree.runs[""]
        return {
            "version": VERSION,
            "runs": runs,
            "models": list(self.models),
            "limits": dict(self.limits),
            "stops": STOP_SENTENCES,
            "contexts": [self._context(ref) for ref in _contexts(top)],
            "citations": self._citations(top),
            "plain_code": self.highlighted > MAX_HIGHLIGHTED_CHARS,
        }

    # --- Totals ---

    def _usage(self, run: RunView) -> tuple[Usage, Usage]:
        """Return the usage of a run as in the ledger: its turns, including lost ones, and its calls, each once."""
        own = total_usage(Usage(**usage) for usage in _paid_turns(run.steps))
        return own, total_usage(self._used(run, number, view) for number, view in _calls(run))

    def _used(self, run: RunView, number: int, view: CallView) -> Usage:
        """Return the usage of a call. While its child run is active: the usage of that run so far."""
        if view.record is not None:
            return Usage(**view.record["usage"])
        if view.run is None:
            return Usage()
        own, below = self.totals[view.run.path]
        return own.plus(below)

    # --- Runs ---

    def _run(self, run: RunView) -> Json:
        above, _, number = run.path.rpartition("/")
        own, below = self.totals[run.path]
        lines, seen = Lines(), dict[str, int]()
        found: Json = {
            "path": run.path,
            "up": self.numbers.get(above, -1) if run.path else -1,
            "question": self._question(run.question) if run.question else None,
            "steps": [self._step(run, step, lines, seen) for step in run.steps],
            "answer": self._answer(run.answer) if run.answer else None,
            "own": _numbers(own),
            "below": _numbers(below),
        }
        if run.path:
            found["call"] = int(number)
        return found

    def _step(
        self,
        run: RunView,
        step: TurnView | NoteRecord | AnswerRecord | QuestionRecord,
        lines: Lines,
        seen: dict[str, int],
    ) -> Json:
        if isinstance(step, TurnView):
            return self._turn(run, step, lines, seen)
        match step["type"]:
            case "note":
                found: Json = {"type": "note", "to": step["to"], "text": step["text"], "time": step["time"]}
                usage = step.get("usage")
                return {**found, "usage": _numbers(Usage(**usage)), "lost": step.get("lost", 0)} if usage else found
            case "answer":
                return {"type": "answer", **self._answer(step)}
            case _:
                return {"type": "question", **self._question(step)}

    def _turn(self, run: RunView, view: TurnView, lines: Lines, seen: dict[str, int]) -> Json:
        turn = view.record
        code = "\n".join(turn["cells"]).strip()
        found: Json = {
            "type": "turn",
            "turn": turn["turn"],
            "title": title(turn["cells"], turn["text"]),
            "text": turn["text"],
            "words": _words(turn),
            "usage": _numbers(Usage(**turn["usage"])),
            "model": self._model(turn["model"]),
            "seconds": turn["seconds"],
            "time": turn["time"],
            "cells": [self._cell(run, cell, lines) for cell in view.cells],
        }
        if len(turn["cells"]) > len(view.cells):
            found["unrun"] = [self._code(code) for code in turn["cells"][len(view.cells) :]]
        if code and code in seen:
            found["repeats"] = seen[code]
        seen.setdefault(code, turn["turn"])
        return found | _set(turn, *OPTIONAL_FIELDS)

    def _cell(self, run: RunView, cell: RanCell, lines: Lines) -> Json:
        calls = dict(sorted(cell.calls.items()))
        batches = [*_batches(cell)]
        asked = [_batch(calls, numbers) for numbers in batches]
        places, prompts = lines.of(cell.record["code"], asked), self._prompts(cell)
        return {
            "cell": cell.record["cell"],
            "time": cell.record["time"],
            **self._code(cell.record["code"]),
            "batches": [
                {
                    "lines": line,
                    "kind": batch.kind,
                    "calls": [self._call(run, n, calls.get(n), prompts.get(n)) for n in numbers],
                }
                for numbers, line, batch in zip(batches, places, asked, strict=True)
            ],
            "output": _output(cell.output) if cell.output else None,
        }

    def _code(self, code: str) -> Json:
        if code not in self.known_tokens:
            self.highlighted += len(code)
            self.known_tokens[code] = tokens(code) if self.highlighted <= MAX_HIGHLIGHTED_CHARS else []
        return {"code": code, "tokens": self.known_tokens[code]}

    def _prompts(self, cell: RanCell) -> dict[int, str]:
        """Return stored prompts by call number. A prompt is empty if it was stored but cannot be shown."""
        found: dict[int, str] = {}
        for wave in cell.waves:
            if "prompts_ref" not in wave:
                continue
            stored = stored_prompts(self.store, wave)  # without them, the page says that it has only the beginning
            texts = [""] * wave["count"] if stored is None else map(self._clipped, stored)
            found |= dict(enumerate(texts, wave["first"]))
        return found

    def _clipped(self, text: str) -> str:
        """Cut a text to the space left in the page."""
        kept = text[: MAX_TEXT_CHARS if self.text_chars < MAX_TOTAL_CHARS else PREFIX_CHARS]
        self.text_chars += len(kept)
        return kept

    def _call(self, run: RunView, number: int, view: CallView | None, prompt: str | None) -> Json:
        record = view.record if view else None
        child = view.run if view else None
        found: Json = {"call": number, "state": _state(record, child)}
        if child is not None:
            found["run"] = self.numbers[child.path]
        if record is None:
            if view is not None:
                found["usage"] = _numbers(self._used(run, number, view))
            return found
        found |= {
            "kind": record["kind"],
            "prompt": record["preview"],
            "chars": record["prompt_chars"],
            "sha": record["prompt_sha256"][:12],
            "usage": _numbers(Usage(**record["usage"])),
            "seconds": round(record["seconds"], 3),
            "time": round(record["time"], 3),
        }
        if prompt is not None:
            found |= {"kept": True, "prompt": prompt or record["preview"]}
        if record["model"]:
            found["model"] = self._model(record["model"])
        if record["value"] is not None:
            reply = _text(record["value"])
            found["reply"] = self._clipped(reply)
            if len(found["reply"]) < len(reply):
                found["reply_of"] = len(reply)
        if record["error"] is not None:
            found["error"] = record["error"]
        if "value_ref" in record:
            found["reply_chars"] = record["value_ref"]["length"]
        return found | _set(record, "images", "read", "refused", "memo") | _set(record, *OPTIONAL_FIELDS)

    def _model(self, name: str) -> int:
        return self.models.setdefault(name, len(self.models))

    def _question(self, record: QuestionRecord) -> Json:
        context = record.get("context")
        found: Json = {"query": record["query"], "text": record["text"], "time": record["time"]}
        if context:
            found["context"] = {"about": context["about"], "preview": context["preview"]}
        return found | _set(record, "sandbox", "strategies", "chosen", "follows", "empty", "whole")

    def _answer(self, record: AnswerRecord) -> Json:
        found: Json = {
            "answer": None if record["answer"] is None else _text(record["answer"]),
            "status": record["status"],
            "reason": record["stop_reason"],
            "time": record["time"],
        }
        if missing := record.get("degraded"):
            found["missing"] = [describe_shortfalls({kind: count}) for kind, count in missing.items()]
        if "answer_ref" in record:
            found["answer_chars"] = record["answer_ref"]["length"]
        return found | _set(record, "read", "coverage")

    # --- Contexts ---

    def _context(self, ref: ContextRef) -> Json:
        found: Json = {
            "about": ref["about"],
            "type": ref["type"],
            "length": ref["length"],
            "size": ref["size"],
            "preview": ref["preview"],
        }
        parts = self._parts(ref)
        if parts is None:
            return found
        starts, at = [], 0
        for label, text in parts:
            starts.append([label, at])
            at += len(text.encode("utf-8", "replace"))
        found["size"] = at
        if ref["kind"] == "json":
            found["items"] = starts
        if at <= MAX_CONTEXT_BYTES:
            found["text"] = "".join(text for _, text in parts)
        return found

    def _parts(self, ref: ContextRef) -> list[tuple[str, str]] | None:
        """Return the texts of a context with their labels, or None if it is missing or too large."""
        if self.store is None or ref["size"] > MAX_LOADED_BYTES:
            return None
        try:
            value = self.store.load(ref)
        except JournalError:  # changed or garbage collected: the page says that it has no text
            return None
        return [("context", value)] if isinstance(value, str) else [*labelled_strings(value)]

    def _citations(self, top: RunView) -> list[Json]:
        cited = top.answer.get("citations", []) if top.answer else []
        if not cited:
            return []
        texts: dict[str, str] = {}
        for number, ref in enumerate(_contexts(top)):
            for label, text in self._parts(ref) or ():
                name = f"context_{number}" if ref["kind"] == "text" else f"context_{number}.{label}"
                texts[label if number == 0 else name] = text
        return [_citation(one, texts.get(one["source"])) for one in cited]


# --- Parts of records ---


def _citation(one: Citation, text: str | None) -> Json:
    found: Json = {**one, "where": described(one.get("place", {})) or one["source"]}
    if text is not None and text[one["start"] : one["end"]] == one["quote"]:
        found["before"] = text[max(0, one["start"] - QUOTE_MARGIN) : one["start"]]
        found["after"] = text[one["end"] : one["end"] + QUOTE_MARGIN]
        found["byte"] = len(text[: one["start"]].encode("utf-8", "replace"))
    return found


def _contexts(top: RunView) -> list[ContextRef]:
    """Return the distinct contexts of a run in the order of their numbers."""
    questions = [top.question, *(step for step in top.steps if not isinstance(step, TurnView))]
    refs = [one.get("context") for one in questions if one is not None and one["type"] == "question"]
    return [*{ref["sha256"]: ref for ref in refs if ref}.values()]


def _order(path: str) -> list[int]:
    return [int(number) for number in path.split("/")] if path else []


def _paid_turns(steps: Iterable[Any]) -> Iterator[Any]:
    for step in steps:
        if isinstance(step, TurnView):
            yield step.record["usage"]
        elif "usage" in step:
            yield step["usage"]


def _calls(run: RunView) -> Iterator[tuple[int, CallView]]:
    for cell in run.cells.values():
        yield from cell.calls.items()


def _batches(cell: RanCell) -> Iterator[list[int]]:
    """Yield the call numbers of each batch. Calls answered by the host at once have no batch record."""
    alone = dict.fromkeys(sorted(cell.calls))
    batches = [[*range(wave["first"], wave["first"] + wave["count"])] for wave in cell.waves]
    unique = {tuple(batch): batch for batch in batches}.values()
    for number in (number for batch in unique for number in batch):
        alone.pop(number, None)
    rest: list[list[int]] = []
    for number in alone:
        if rest and rest[-1][-1] == number - 1:
            rest[-1].append(number)
        else:
            rest.append([number])
    yield from sorted([*unique, *rest])


def _batch(calls: Mapping[int, CallView], numbers: list[int]) -> Batch:
    views = [calls[number] for number in numbers if number in calls]
    first = next((view.record for view in views if view.record), None)
    if first is None:
        return Batch("rlm" if any(view.run for view in views) else "llm", len(numbers), "")
    kind = "llm" if first["kind"] == "vision" else first["kind"]  # both are made by `llm_query`
    return Batch(kind, len(numbers), first["preview"])


def _state(record: CallRecord | None, child: RunView | None) -> str:
    """Return the state of a call: the first that applies."""
    if record is None:
        return "open"
    refused, flaw = record.get("refused"), record.get("flaw")
    early = child is not None and child.answer is not None and child.answer["status"] != "complete"
    states: tuple[tuple[bool, str], ...] = (
        (refused == "declined", "declined"),
        (refused is not None, "refused"),
        (record["error"] is not None, "failed"),
        (flaw is not None, flaw or ""),
        (early, "partial"),
        (record.get("memo", False), "memo"),
        (record.get("from_cache", False), "cached"),
    )
    return next((state for holds, state in states if holds), "ok")


def _set(record: Mapping[str, Any], *names: str) -> Json:
    """Return the named fields of a record that are present and not empty."""
    return {name: record[name] for name in names if record.get(name)}


def _output(record: OutputRecord) -> Json:
    found: Json = {
        "outcome": record["outcome"],
        "text": record["text"],
        "chars": record["chars"],
        "error": record["error"],
        "seconds": record["seconds"],
        "time": record["time"],
    }
    if record.get("value") is not None:
        found["value"] = _text(record["value"])
    if "unfound" in record:
        found["unfound"] = record["unfound"]
    return found | _set(record, "misfit", "blank")


def _words(turn: TurnRecord) -> str:
    """Return the text of a reply outside its code."""
    text = turn["text"]
    for code in turn["cells"]:
        text = text.replace(code, "", 1)
    kept = [line for line in text.splitlines() if not line.strip().startswith(("```", "~~~"))]
    return "\n".join(kept).strip()


def _numbers(usage: Usage) -> list[Any]:
    """Return calls, input, cached and output tokens, dollars, and whether they are estimates."""
    return [usage.calls, usage.input, usage.cached, usage.output, usage.cost, int(usage.estimated)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
