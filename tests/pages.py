"""A run for the page: three levels, hundreds of sub-calls, and something of everything that can go wrong.

python -m tests.pages run.html
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from rlm_langchain import Budget, RLMOutput, create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.call import RetryPolicy
from rlm_langchain.models.model import Model, Price
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.run_scope import CompiledRLM
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.viewer.page import RunPage

QUESTION = "Which product causes the most complaints about billing, and what do the customers say?"
PRODUCTS = ("Harbor", "Lantern", "Meadow")
ROOT = (
    """# Look at the tickets before anything else
tickets = context.split("\\n\\n")
print(len(tickets), "tickets,", len(context), "characters")
print(tickets[0])
print(tickets[-1])""",
    """# Ask of each ticket whether it complains about billing
prompts = [f"Is this a complaint about billing? Answer yes or no.\\n\\n{ticket}" for ticket in tickets]
answers = llm_query_batched(prompts)
billing = [t for t, a in zip(tickets, answers) if a and a.startswith("yes")]
print(len(billing), "of", len(tickets), "are about billing")
print(sum(a is None for a in answers), "were not answered")""",
    """# Count the products by the field that I expect
counts = {}
for ticket in billing:
    counts[ticket["product"]] = counts.get(ticket["product"], 0) + 1""",
    """# The tickets are texts: cut the product out of the first line
import re
groups = {}
for ticket in billing:
    product = re.search(r"product: (\\w+)", ticket).group(1)
    groups.setdefault(product, []).append(ticket)
print({name: len(group) for name, group in groups.items()})

# One child run for each product
names = sorted(groups)
queries = [f"Summarise the complaints about {name}." for name in names]
reports = rlm_query_batched(queries, ["\\n\\n".join(groups[name]) for name in names])
for name, report in zip(names, reports):
    print(name, "->", report)""",
    """most = max(groups, key=lambda name: len(groups[name]))
check = llm_query(f"Is this report fair to its tickets? {reports[names.index(most)]}")
quotes = [re.search(r"says: (.*)", ticket).group(1) for ticket in groups[most][:3]]
answer = f"{most}: {len(groups[most])} complaints, most of them about double charges."
FINAL({"answer": answer, "quotes": quotes})""",
)
CHILD = (
    """# Pieces of eight tickets each, one question for each piece
tickets = context.split("\\n\\n")
pieces = ["\\n\\n".join(tickets[i:i + 8]) for i in range(0, len(tickets), 8)]
notes = llm_query_batched([f"What do these customers complain about?\\n\\n{piece}" for piece in pieces])
print(len([n for n in notes if n]), "of", len(pieces), "pieces")
theme = rlm_query("Name the theme of these notes.", [n for n in notes if n])
print(theme)""",
    """FINAL(f"{len(tickets)} tickets; theme: {theme}")""",
)
GRANDCHILD = (
    """votes = [llm_query(f"In one word, what is this about? {note}") for note in context[:6]]
FINAL(max(set(votes), key=votes.count))""",
)


def tickets(number: int) -> str:
    """So many support tickets, as one text."""
    complaints = (
        "I was charged twice for May",
        "the app closes when I open a chart",
        "where do I change my address",
    )
    return "\n\n".join(
        f"ticket {n} product: {PRODUCTS[zlib.crc32(str(n).encode()) % 5 % 3]}\ncustomer {n * 7919 % 10_000} says: "
        f"{complaints[n % 3]}, and this is message {n // 3 + 1} about it."
        for n in range(number)
    )


class Refused(Exception):
    """What a provider answers to a prompt that it does not take. It is not asked again."""

    status_code = 400


class Slow(FunctionModel):
    """A model that takes a while, the same for the same prompt."""

    seconds: float = 0.0

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        share = zlib.crc32(str(messages[-1].content).encode()) % 1000 / 1000
        await asyncio.sleep(self.seconds * (0.3 + share))
        return await super()._agenerate(messages, *args, **kwargs)


def says(messages: list[BaseMessage]) -> str | AIMessage:
    """What all models of the run say."""
    last = str(messages[-1].content)
    if messages[0].type != "system":
        return _leaf(last)
    question = str(messages[1].content)
    play = CHILD if "Summarise the" in question else GRANDCHILD if "Name the theme" in question else ROOT
    turn = sum(message.type == "ai" for message in messages)
    prose = "I will look at the text first, to see how it is divided.\n\n" if play is ROOT and turn == 0 else ""
    return f"{prose}```repl\n{play[min(turn, len(play) - 1)]}\n```"


def _leaf(prompt: str) -> str | AIMessage:
    number = zlib.crc32(prompt.encode())
    if number % 61 == 0:
        raise Refused("no")
    if number % 53 == 0:
        return AIMessage(
            "yes, because",
            usage_metadata={"input_tokens": 60, "output_tokens": 2, "total_tokens": 62},
            response_metadata={"finish_reason": "length", "model_name": "function"},
        )
    if "about billing" in prompt:
        return "yes: charged twice" if "charged twice" in prompt else "no"
    return "double charges" if "one word" in prompt else "They were charged twice, and nobody answers."


async def _no_time(_: float) -> None:
    pass


def demo(
    number: int = 480, *, seconds: float = 0.0, budget: Budget | None = None, context: Any = None
) -> RLMOutput:
    """Run it over so many tickets."""
    root = Model("deep-1", Slow(function=says, model_name="deep-1", seconds=seconds * 4), price=Price(3.0, 15.0))
    sub = Model("swift-1", Slow(function=says, model_name="swift-1", seconds=seconds), price=Price(0.25, 2.0))
    rlm = create_rlm(
        root,
        recursive_model=sub,
        sandbox="monty",
        budget=budget or Budget(depth=3, usd=1.0, calls=2_000),
        citations=True,
    )
    if not seconds:
        components = replace(assemble(rlm), retry=RetryPolicy(attempts=2, sleep=_no_time))
        rlm._built = CompiledRLM(components, rlm_graph(components).compile(name="rlm"))
    return asyncio.run(rlm.ainvoke({"query": QUESTION, "context": context or tickets(number)}))


def main() -> None:
    """Write the page of the run."""
    output = demo(seconds=0.4)
    RunPage(output["trajectory"], limits={"usd": 1.0, "calls": 2_000}, store=ContextStore()).to_html(sys.argv[1])
    print(Path(sys.argv[1]).stat().st_size, output["status"], output["stop_reason"], output["answer"])


if __name__ == "__main__":
    main()
