"""What is said when a run is over: the answer on standard output, and how it came about beside it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from rlm_langchain.cli.rendering.numbers import percent
from rlm_langchain.cli.rendering.plain import dollars
from rlm_langchain.cli.rendering.records import STOPS, as_text
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import InputError
from rlm_langchain.records import RLMOutput
from rlm_langchain.trajectory.degradation import describe_shortfalls
from rlm_langchain.types import ContextRef, Usage


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that is over, as a person or a program wants to hear of it."""

    output: RLMOutput
    context: ContextRef | None
    seconds: float
    trace: str | None = None
    """Where its steps are kept."""
    thread: str | None = None
    """The name under which it can be gone on with."""

    @property
    def used(self) -> Usage:
        """Of all models together."""
        usage = self.output["usage"]
        return Usage(**usage["root"]).plus(Usage(**usage["sub"]))

    @property
    def context_tokens(self) -> int | None:
        """About how many the context has; None without a context."""
        return None if self.context is None else approximate_tokens(self.context["size"])

    def answer(self, *, terminal: bool) -> str:
        """As text. What cannot be seen is made visible on a terminal, and kept as it is for a program."""
        text = as_text(self.output["answer"])
        return visible(text) if terminal else text

    def lines(self) -> list[str]:
        """How it ended, what it took, and how much of the context a model has read."""
        output, used = self.output, self.used
        turns = _count(output["iterations"], "turn")
        calls = _count(output["sub_calls"], "sub-call")
        took = f"{turns}, {calls} · {self.seconds:.1f} s{dollars(used.cost)}"
        missing = describe_shortfalls(output.get("degraded") or {})
        return [
            f"{output['status']}: {STOPS[output['stop_reason']]} · {took}",
            *([f"the answer may lack something: {missing}"] if missing else []),
            self._reading() + self._coverage(),
        ]

    def _coverage(self) -> str:
        """Which share of the context itself was among what models have read, when that is known."""
        coverage = self.output.get("coverage")
        if coverage is None:
            return ""
        share = percent(coverage["share"]) if coverage["share"] else "nothing"
        return f"; of its text they were shown {share}"

    def _reading(self) -> str:
        read, wrote = self.used.input, self.used.output
        about = "about " if self.used.estimated else ""
        told = f"models read {about}{read:,} tokens and wrote {wrote:,}"
        if self.context_tokens is None:
            return told
        of = f"; the context has about {self.context_tokens:,}"
        return f"{told}{of}{_ratio(read, self.context_tokens)}"

    def record(self) -> dict[str, Any]:
        """Everything but the trajectory, as one JSON object."""
        rest = {key: value for key, value in self.output.items() if key != "trajectory"}
        context: dict[str, Any] | None = None
        if self.context is not None:
            told = ("sha256", "kind", "length", "size", "about")
            context = {key: value for key, value in self.context.items() if key in told}
            context["tokens"] = self.context_tokens
        return {
            **rest,
            "seconds": round(self.seconds, 3),
            "context": context,
            "trace": self.trace,
            "thread": self.thread,
        }

    def json(self) -> str:
        """One line of ASCII, so that no terminal and no encoding can stumble over what an answer holds."""
        return json.dumps(self.record())


def finish(ended: RunResult, *, json: bool, quiet: bool) -> int:
    """Give the answer to standard output and the rest to standard error; the exit code says if there is one."""
    failed = ended.output["status"] == "failed"
    terminal = sys.stdout.isatty()
    if json:
        _give(ended.json(), ended)
    elif failed:
        print(f"rlm: there is no answer: {STOPS[ended.output['stop_reason']]}", file=sys.stderr)
        if misfit := ended.output.get("misfit"):
            print(f"The last answer does not fit the schema: {visible(misfit)}", file=sys.stderr)
        if not quiet and (found := ended.output.get("found")) is not None:
            print(f"What was seen last:\n{visible(found)}", file=sys.stderr)
    else:
        _give("\n" * (terminal and not quiet) + ended.answer(terminal=terminal), ended)
    if not quiet:
        print("\n" + "\n".join(ended.lines()), file=sys.stderr)
    return 1 if failed else 0


def _give(answer: str, ended: RunResult) -> None:
    """Write to standard output. Raises `InputError`, which says where the answer is: it was paid for."""
    try:
        print(answer, flush=True)
    except BrokenPipeError as error:
        silence()
        closed = "standard output was closed before all of the answer was written"
        if ended.thread:
            kept = f"`rlm resume {shlex.quote(ended.thread)}` gives it again"
            raise InputError(f"{closed}: {kept}") from error
        raise InputError(f"{closed}. The answer is:\n{answer}") from error
    except OSError as error:
        silence()
        raise InputError(
            f"standard output cannot be written ({error.strerror}): write elsewhere. The answer is:\n{answer}"
        ) from error


def silence() -> None:
    """Give up standard output: what is left to be written would be tried again when Python ends."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _ratio(read: int, tokens: int) -> str:
    """How much less than the context was read; nothing to boast of when it was not less."""
    return f": {percent(read / tokens)} of it" if 0 < read < tokens else ""
