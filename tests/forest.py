"""Random trees of runs, and a server's side of them: what each model says, which calls fail, what is billed."""

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
"""Replies that nothing is billed for. The last one is not tried again."""


End = Literal["final", "prose", "never"]


@dataclass(frozen=True)
class Said:
    """How a model answers: after which faults, and in how many tokens."""

    faults: tuple[str, ...] = ()
    tokens: int = 1
    cached: int = 0


@dataclass(frozen=True)
class Leaf:
    """A question that one model answers. Two of the same name are the same question."""

    name: int
    size: int
    said: Said


@dataclass(frozen=True)
class Node:
    """A run: what the cell of each of its turns asks, one thing after the other, and how it ends."""

    turns: tuple[tuple[Step, ...], ...]
    end: End
    said: tuple[Said, ...]
    """One for each turn; after them turns go well."""


@dataclass(frozen=True)
class One:
    """A call on its own; its error stays in the cell, or ends it."""

    asked: Leaf | Node
    caught: bool


@dataclass(frozen=True)
class Many:
    """A batch."""

    asked: tuple[Leaf | Node, ...]


Step = One | Many


class Grower:
    """Grows a tree of at most so many runs."""

    def __init__(self, chance: Random, runs: int) -> None:
        self._chance = chance
        self._left = runs
        """Runs that may still be added."""

    def node(self, depth: int) -> Node:
        """A run with so many levels of runs below it, at most."""
        self._left -= 1
        turns = tuple(self._cell(depth) for _ in range(self._chance.choice([0, 1, 1, 2, 2, 3])))
        end: End = self._chance.choice(["final", "final", "final", "prose", "never"])
        return Node(turns, end, tuple(self._said() for _ in range(self._chance.randint(0, 2))))

    def _cell(self, depth: int) -> tuple[Step, ...]:
        return tuple(self._step(depth) for _ in range(self._chance.choice([1, 1, 2])))

    def _step(self, depth: int) -> Step:
        below = self._below(depth) if depth and self._chance.random() < 0.6 else ()
        asked: tuple[Leaf | Node, ...] = below or tuple(
            self._leaf() for _ in range(self._chance.choice([1, 1, 2, 4, 8]))
        )
        if len(asked) == 1 and self._chance.random() < 0.7:
            return One(asked[0], self._chance.random() < 0.7)
        return Many(asked)

    def _below(self, depth: int) -> tuple[Node, ...]:
        wanted = min(self._left, self._chance.choice([1, 1, 2, 3]))
        return tuple(self.node(depth - 1) for _ in range(wanted) if self._left > 0)

    def _leaves(self) -> tuple[Leaf, ...]:
        return tuple(self._leaf() for _ in range(self._chance.choice([1, 1, 2, 4, 8])))

    def _leaf(self) -> Leaf:
        return Leaf(self._chance.randint(0, 9), self._chance.choice([0, 10, 400]), self._said())

    def _said(self) -> Said:
        some = self._chance.choices([*FAULTS], weights=[4, 3, 3, 3, 1], k=self._chance.choice([1, 1, 2, 3]))
        faults = some if self._chance.random() < 0.3 else []
        return Said(tuple(faults), self._chance.randint(1, 60), self._chance.randint(0, 2))


@dataclass
class Play:
    """One tree as its models play it. Keeps count of what the server bills, by model."""

    root: Node
    runs: list[Node] = field(default_factory=list)
    questions: dict[str, Said] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    sent: dict[int, Reply] = field(default_factory=dict)
    watch: Callable[[], None] = lambda: None
    """Called for each request, in the server's thread."""

    def __post_init__(self) -> None:
        self.runs.append(self.root)
        for step in self._steps(self.root):
            for asked in step.asked if isinstance(step, Many) else [step.asked]:
                if isinstance(asked, Leaf):
                    self.questions.setdefault(self._prompt(asked), asked.said)
        self.numbers = {id(node): number for number, node in enumerate(self.runs)}

    @property
    def query(self) -> str:
        """What the root run is asked."""
        return self._prompt(self.root)

    def _steps(self, node: Node) -> Iterator[Step]:
        for cell in node.turns:
            for step in cell:
                yield step
                for asked in step.asked if isinstance(step, Many) else [step.asked]:
                    if isinstance(asked, Node):
                        self.runs.append(asked)
                        yield from self._steps(asked)

    def _prompt(self, asked: Leaf | Node) -> str:
        if isinstance(asked, Leaf):
            return f"LEAF {asked.name} {'x' * asked.size}"
        return f"NODE {next(i for i, node in enumerate(self.runs) if node is asked)};"

    def _code(self, cell: tuple[Step, ...]) -> str:
        lines = ["got = []"]
        for step in cell:
            asked = step.asked if isinstance(step, Many) else (step.asked,)
            prompts, child = [self._prompt(one) for one in asked], any(isinstance(one, Node) for one in asked)
            kind, piece = ("rlm", ", 'a piece'") if child else ("llm", "")
            if isinstance(step, Many):
                pieces = f", {['a piece'] * len(prompts)}" if child else ""
                lines.append(f"got += {kind}_query_batched({prompts}{pieces})")
            elif step.caught:
                call = f"got.append({kind}_query({prompts[0]!r}{piece}))"
                lines.append(f"try:\n    {call}\nexcept LLMError:\n    got.append(None)")
            else:
                lines.append(f"got.append({kind}_query({prompts[0]!r}{piece}))")
        return "\n".join([*lines, "print(len(got))"])

    def _turn(self, node: Node, turn: int, last: bool) -> str:
        if last:
            return "The best that is known."
        if turn < len(node.turns):
            return f"```repl\n{self._code(node.turns[turn])}\n```"
        ends = {"final": "```repl\nFINAL('done')\n```", "prose": "It is done.", "never": "```repl\nprint(1)\n```"}
        return ends[node.end]

    # --- in the server's thread ---

    def reply(self, request: Request) -> Reply:
        """What the model of a request says to it."""
        self.watch()
        words, said, key = self._said(request.messages)
        self.tries[key] += 1
        if self.tries[key] <= len(said.faults):
            return FAULTS[said.faults[self.tries[key] - 1]]
        reply = Reply(words, cached=said.cached)
        self.sent[request.number] = reply
        return reply

    def _said(self, messages: list[Message]) -> tuple[str, Said, str]:
        if messages[0]["role"] != "system":
            prompt = str(messages[0]["content"])
            said = self.questions.get(prompt, Said())
            return "word " * said.tokens, said, prompt
        number = int(re.findall(r"NODE (\d+);", str(messages[1]["content"]))[0])
        turn, node = sum(m["role"] == "assistant" for m in messages), self.runs[number]
        said = node.said[turn] if turn < len(node.said) else Said()
        last = "has to end now" in str(messages[-1]["content"])
        return self._turn(node, turn, last), said, f"{number} {turn} {len(messages)}"

    def billed(self, requests: list[Request]) -> Usage:
        """What the server has billed for these requests."""
        total = Usage()
        for request in requests:
            if request.state == "sent" and request.number in self.sent:
                total = total.plus(_bill(request.body, self.sent[request.number]))
        return total


def _bill(body: dict[str, Any], reply: Reply) -> Usage:
    told = billed(body, reply) or {}
    cached = told["prompt_tokens_details"]["cached_tokens"]
    usage = Usage(1, told["prompt_tokens"], cached, told["completion_tokens"])
    return usage._replace(cost=PRICES[body["model"]].of(usage))
