"""Generates random trees of runs, and scripts the server for them: its replies, its errors, and its bill."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from rlm_langchain.models.model import Price
from rlm_langchain.types import Usage
from tests.servers.openai import DROPPED, INVALID_JSON, RATE_LIMITED, SERVER_ERROR, Message, Reply, billed, failure
from tests.servers.server import Request

PRICES = {"root": Price(3.0, 12.0, cached=0.5), "sub0": Price(1.0, 4.0), "sub1": Price(0.25, 2.0, cached=0.1)}
"""Dollars for a million tokens, by the name of the model."""
FAULTS = {
    "500": SERVER_ERROR,
    "429": RATE_LIMITED,
    "cut": DROPPED,
    "garbled": INVALID_JSON,
    "400": failure(400, "bad"),
}
"""Replies that cost nothing. After the last one, the request is not sent again."""


End = Literal["final", "prose", "never"]


@dataclass(frozen=True)
class ScriptedReply:
    """The reply of a model: the faults before it, and its tokens."""

    faults: tuple[str, ...] = ()
    tokens: int = 1
    cached: int = 0


@dataclass(frozen=True)
class PlannedCall:
    """A call of one model. Two calls of the same name ask the same question."""

    name: int
    size: int
    reply_plan: ScriptedReply


@dataclass(frozen=True)
class PlannedRun:
    """A run: the calls of the cell of each turn, in order, and the end of the run."""

    turns: tuple[tuple[Step, ...], ...]
    end: End
    reply_plan: tuple[ScriptedReply, ...]
    """The replies to its turns. Later turns have no faults."""


@dataclass(frozen=True)
class SingleCall:
    """A single call. Its error is caught in the cell, or ends the cell."""

    asked: PlannedCall | PlannedRun
    caught: bool


@dataclass(frozen=True)
class CallBatch:
    """A batch of calls."""

    asked: tuple[PlannedCall | PlannedRun, ...]


Step = SingleCall | CallBatch


class RunTreeGenerator:
    """Generates a tree of at most `runs` runs."""

    def __init__(self, chance: Random, runs: int) -> None:
        self._chance = chance
        self._left = runs
        """Runs that may still be added."""

    def node(self, depth: int) -> PlannedRun:
        """Return a run with at most `depth` levels of runs below it."""
        self._left -= 1
        turns = tuple(self._cell(depth) for _ in range(self._chance.choice([0, 1, 1, 2, 2, 3])))
        end: End = self._chance.choice(["final", "final", "final", "prose", "never"])
        return PlannedRun(turns, end, tuple(self._scripted_reply() for _ in range(self._chance.randint(0, 2))))

    def _cell(self, depth: int) -> tuple[Step, ...]:
        return tuple(self._step(depth) for _ in range(self._chance.choice([1, 1, 2])))

    def _step(self, depth: int) -> Step:
        below = self._below(depth) if depth and self._chance.random() < 0.6 else ()
        asked: tuple[PlannedCall | PlannedRun, ...] = below or tuple(
            self._leaf() for _ in range(self._chance.choice([1, 1, 2, 4, 8]))
        )
        if len(asked) == 1 and self._chance.random() < 0.7:
            return SingleCall(asked[0], self._chance.random() < 0.7)
        return CallBatch(asked)

    def _below(self, depth: int) -> tuple[PlannedRun, ...]:
        wanted = min(self._left, self._chance.choice([1, 1, 2, 3]))
        return tuple(self.node(depth - 1) for _ in range(wanted) if self._left > 0)

    def _leaves(self) -> tuple[PlannedCall, ...]:
        return tuple(self._leaf() for _ in range(self._chance.choice([1, 1, 2, 4, 8])))

    def _leaf(self) -> PlannedCall:
        return PlannedCall(self._chance.randint(0, 9), self._chance.choice([0, 10, 400]), self._scripted_reply())

    def _scripted_reply(self) -> ScriptedReply:
        some = self._chance.choices([*FAULTS], weights=[4, 3, 3, 3, 1], k=self._chance.choice([1, 1, 2, 3]))
        faults = some if self._chance.random() < 0.3 else []
        return ScriptedReply(tuple(faults), self._chance.randint(1, 60), self._chance.randint(0, 2))


@dataclass
class ScriptedServer:
    """The server for one tree. It answers as planned, and computes what it bills."""

    root: PlannedRun
    runs: list[PlannedRun] = field(default_factory=list)
    questions: dict[str, ScriptedReply] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    sent: dict[int, Reply] = field(default_factory=dict)
    watch: Callable[[], None] = lambda: None
    """Called for each request, in the server's thread."""

    def __post_init__(self) -> None:
        self.runs.append(self.root)
        for step in self._steps(self.root):
            for asked in step.asked if isinstance(step, CallBatch) else [step.asked]:
                if isinstance(asked, PlannedCall):
                    self.questions.setdefault(self._prompt(asked), asked.reply_plan)
        self.numbers = {id(node): number for number, node in enumerate(self.runs)}

    @property
    def query(self) -> str:
        """Return the question of the root run."""
        return self._prompt(self.root)

    def _steps(self, node: PlannedRun) -> Iterator[Step]:
        for cell in node.turns:
            for step in cell:
                yield step
                for asked in step.asked if isinstance(step, CallBatch) else [step.asked]:
                    if isinstance(asked, PlannedRun):
                        self.runs.append(asked)
                        yield from self._steps(asked)

    def _prompt(self, asked: PlannedCall | PlannedRun) -> str:
        if isinstance(asked, PlannedCall):
            return f"LEAF {asked.name} {'x' * asked.size}"
        return f"NODE {next(i for i, node in enumerate(self.runs) if node is asked)};"

    def _code(self, cell: tuple[Step, ...]) -> str:
        lines = ["got = []"]
        for step in cell:
            asked = step.asked if isinstance(step, CallBatch) else (step.asked,)
            prompts, child = [self._prompt(one) for one in asked], any(isinstance(one, PlannedRun) for one in asked)
            kind, piece = ("rlm", ", 'a piece'") if child else ("llm", "")
            if isinstance(step, CallBatch):
                pieces = f", {['a piece'] * len(prompts)}" if child else ""
                lines.append(f"got += {kind}_query_batched({prompts}{pieces})")
            elif step.caught:
                call = f"got.append({kind}_query({prompts[0]!r}{piece}))"
                lines.append(f"try:\n    {call}\nexcept LLMError:\n    got.append(None)")
            else:
                lines.append(f"got.append({kind}_query({prompts[0]!r}{piece}))")
        return "\n".join([*lines, "print(len(got))"])

    def _turn(self, node: PlannedRun, turn: int, last: bool) -> str:
        if last:
            return "The best that is known."
        if turn < len(node.turns):
            return f"```repl\n{self._code(node.turns[turn])}\n```"
        ends = {"final": "```repl\nFINAL('done')\n```", "prose": "It is done.", "never": "```repl\nprint(1)\n```"}
        return ends[node.end]

    # --- in the server's thread ---

    def reply(self, request: Request) -> Reply:
        """Return the reply to a request."""
        self.watch()
        words, reply_plan, key = self._scripted_reply(request.messages)
        self.tries[key] += 1
        if self.tries[key] <= len(reply_plan.faults):
            return FAULTS[reply_plan.faults[self.tries[key] - 1]]
        reply = Reply(words, cached=reply_plan.cached)
        self.sent[request.number] = reply
        return reply

    def _scripted_reply(self, messages: list[Message]) -> tuple[str, ScriptedReply, str]:
        if messages[0]["role"] != "system":
            prompt = str(messages[0]["content"])
            reply_plan = self.questions.get(prompt, ScriptedReply())
            return "word " * reply_plan.tokens, reply_plan, prompt
        number = int(re.findall(r"NODE (\d+);", str(messages[1]["content"]))[0])
        turn, node = sum(m["role"] == "assistant" for m in messages), self.runs[number]
        reply_plan = node.reply_plan[turn] if turn < len(node.reply_plan) else ScriptedReply()
        last = "has to end now" in str(messages[-1]["content"])
        return self._turn(node, turn, last), reply_plan, f"{number} {turn} {len(messages)}"

    def billed(self, requests: list[Request]) -> Usage:
        """Return the usage that the server has billed for these requests."""
        total = Usage()
        for request in requests:
            if request.state == "sent" and request.number in self.sent:
                total = total.plus(_usage_of_reply(request.body, self.sent[request.number]))
        return total


def _usage_of_reply(body: dict[str, Any], reply: Reply) -> Usage:
    reported = billed(body, reply) or {}
    cached = reported["prompt_tokens_details"]["cached_tokens"]
    usage = Usage(1, reported["prompt_tokens"], cached, reported["completion_tokens"])
    return usage._replace(cost=PRICES[body["model"]].of(usage))
