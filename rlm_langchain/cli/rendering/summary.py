"""Prints the result of a run: the answer on standard output, how it was found on standard error."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering.numbers import percent
from rlm_langchain.cli.rendering.plain import cost_suffix
from rlm_langchain.cli.rendering.records import as_text
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.context.sanitize import visible
from rlm_langchain.records import Record, RLMOutput
from rlm_langchain.trajectory.degradation import STOP_SENTENCES, describe_shortfalls
from rlm_langchain.trajectory.tree import Trajectory
from rlm_langchain.types import ContextRef, Usage

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_CONTEXT_LOSS = re.compile(r"^(left out: .*|.* replaced by U\+FFFD)$")
"""Matches a part of a context's description about text that was left out or replaced."""
_NOTE_LOSS = re.compile(r"U\+FFFD stands for|it is left out$")
"""Matches a note about text that was replaced in a question, or left out of a request."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The usage of a run so far."""

    turns: int = 0
    sub_calls: int = 0
    cost: float | None = 0.0

    @classmethod
    def of_records(cls, records: list[Record]) -> Progress:
        """Return the usage in the records of one question."""
        spent = Trajectory.of(records).spent
        turns = [record for record in records if record["type"] == "turn" and not record["path"]]
        return cls(sum(not turn.get("summary") for turn in turns), spent.sub.calls, spent.total.cost)

    def since(self, before: Progress) -> Progress:
        """Return the difference."""
        cost = None if self.cost is None or before.cost is None else max(0.0, self.cost - before.cost)
        return Progress(max(0, self.turns - before.turns), max(0, self.sub_calls - before.sub_calls), cost)

    def __str__(self) -> str:
        return f"{_count(self.turns, 'turn')}, {_count(self.sub_calls, 'sub-call')}"


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run, as text for people and as JSON for programs."""

    output: RLMOutput
    context: ContextRef | None
    seconds: float | None
    """How long this process has worked on it. None: it had ended before."""
    trace: str | None = None
    """Path of the trace file."""
    thread: str | None = None
    """Name of the thread that keeps the run."""
    before: Progress | None = None
    """The usage before this process resumed the run. None: this process began it."""
    notice: str = ""
    """What else to tell the person, once."""

    @property
    def used(self) -> Usage:
        """Return the usage of all models together."""
        usage = self.output["usage"]
        return Usage(**usage["root"]).plus(Usage(**usage["sub"]))

    @property
    def context_tokens(self) -> int | None:
        """Return about how many tokens the context has, or None without a context."""
        return None if self.context is None else approximate_tokens(self.context["size"])

    def answer(self, *, terminal: bool) -> str:
        """Return the answer as text. For a terminal, invisible characters are escaped."""
        text = as_text(self.output["answer"])
        return visible(text) if terminal else text

    def lines(self) -> list[str]:
        """Return how the run ended, what it used, and how much of the context the models read."""
        warning = self.warning()
        return [
            f"{self.output['status']}: {STOP_SENTENCES[self.output['stop_reason']]}",
            *([warning] if warning else []),
            *self._usage(),
            *self._reading(),
        ]

    def warnings(self) -> list[str]:
        """Return what was refused, cut, replaced or left out, each as a phrase. Empty if nothing was."""
        reason, missing = self.output["stop_reason"], describe_shortfalls(self.output.get("degraded") or {})
        is_told = self.output["status"] != "partial" or (reason == "degraded" and missing)
        lost = [loss for record in self.output["trajectory"] for loss in _losses(record)]
        return list(dict.fromkeys(filter(None, ["" if is_told else STOP_SENTENCES[reason], missing, *lost])))

    def warning(self) -> str:
        """Return all warnings on one line, or an empty text."""
        warnings, failed = "; ".join(self.warnings()), self.output["status"] == "failed"
        effect = "something is missing" if failed else "the answer may be wrong or incomplete"
        return f"{effect}: {warnings}" if warnings else ""

    def _usage(self) -> list[str]:
        progress = Progress(self.output["iterations"], self.output["sub_calls"], self.used.cost)
        questions = sum(record["type"] == "question" for record in self.output["trajectory"])
        scope = "this question" if questions > 1 else "the whole run"
        total = f"{progress}{{}}{cost_suffix(progress.cost)}"
        if self.seconds is None:
            return [f"{scope}: {total.format('')}"]
        took = f" · {self.seconds:.1f} s"
        if self.before is None:
            return [f"{scope}: {total}".format(took) if questions > 1 else total.format(took)]
        added = progress.since(self.before)
        return [
            f"{scope}: {total.format('')}",
            f"added by this command: {added}{took}{cost_suffix(added.cost)}",
        ]

    def _reading(self) -> list[str]:
        """Return how much models read, the size of the context, and the share of it that they were shown."""
        read, wrote = self.used.input, self.used.output
        about = "about " if self.used.estimated else ""
        tokens = f"models read {about}{read:,} tokens and wrote {wrote:,}"
        if self.context_tokens is None:
            return [tokens]
        size = f"the context has about {self.context_tokens:,}"
        if 0 < read < self.context_tokens:
            size += f", so they read {percent(read / self.context_tokens)} as many"
        coverage = self.output.get("coverage")
        if coverage is None:
            return [f"{tokens}; {size}"]
        share = f"at least {percent(coverage['share'])}" if coverage["share"] else "none"
        return [f"{tokens}; {size}", f"models were shown {share} of the text of the context"]

    def record(self) -> dict[str, Any]:
        """Return everything but the trajectory, as one JSON object."""
        output = {key: value for key, value in self.output.items() if key != "trajectory"}
        context: dict[str, Any] | None = None
        if self.context is not None:
            fields = ("sha256", "kind", "length", "size", "about")
            context = {key: value for key, value in self.context.items() if key in fields}
            context["tokens"] = self.context_tokens
        return {
            **output,
            "warnings": self.warnings(),
            "seconds": round(self.seconds or 0.0, 3),
            "context": context,
            "trace": self.trace,
            "thread": self.thread,
        }

    def json(self) -> str:
        """Return `record` on one line of ASCII, which every terminal and every encoding can show."""
        return json.dumps(self.record())


def finish(result: RunResult, *, json: bool, quiet: bool) -> int:
    """Print the answer on standard output and the rest on standard error, and return the exit code.

    With `quiet`, standard error gets the warnings only: one line, or nothing.
    """
    failed = result.output["status"] == "failed"
    terminal = sys.stdout.isatty()
    if json:
        problem = _print_answer(result.json(), result)
    elif failed:
        problem = None
        _print_failure(result, quiet=quiet)
    else:
        problem = _print_answer("\n" * (terminal and not quiet) + result.answer(terminal=terminal), result)
    if problem is not None:
        streams.print_somewhere(f"rlm: {problem}")
        return 2
    if not quiet:
        streams.say("\n" + "\n".join(filter(None, [*result.lines(), result.notice])))
    elif not failed and (warning := result.warning()):
        streams.say(f"rlm: {warning}")
    return 1 if failed else 0


def _print_failure(result: RunResult, *, quiet: bool) -> None:
    streams.say(f"rlm: there is no answer: {STOP_SENTENCES[result.output['stop_reason']]}")
    if misfit := result.output.get("misfit"):
        streams.say(f"The last answer does not fit the schema: {visible(misfit)}")
    if not quiet and (found := result.output.get("found")) is not None:
        print(f"The code printed last:\n{visible(found)}", file=sys.stderr)


def _print_answer(answer: str, result: RunResult) -> str | None:
    """Print on standard output. If that fails, return why, and where the answer is instead: it was paid for."""
    try:
        print(answer, flush=True)
    except BrokenPipeError:
        streams.discard(sys.stdout)
        closed = "standard output was closed before all of the answer was written"
        if result.thread:
            return f"{closed}: `rlm resume {shlex.quote(result.thread)}` prints it again"
        return f"{closed}. The answer is:\n{answer}"
    except OSError as error:
        streams.discard(sys.stdout)
        return f"standard output cannot be written ({error.strerror}): write elsewhere. The answer is:\n{answer}"
    return None


def _losses(record: Record) -> list[str]:
    """Return the notes in a record on text that was replaced or left out before a model could read it."""
    if record["path"]:
        return []
    if record["type"] == "question" and (context := record.get("context")):
        if notes := context.get("notes"):
            return [f"in the context: {visible(note)}" for note in notes]
        # Names of files are quoted, and may hold anything.
        parts = _QUOTED.sub('""', context["about"]).split("; ")
        return [f"in the context: {part}" for part in parts if _CONTEXT_LOSS.match(part)]
    if record["type"] == "note" and _NOTE_LOSS.search(record["text"]):
        return [visible(record["text"].rstrip("."))]
    return []


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
