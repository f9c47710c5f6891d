"""Random trees of runs against a server that counts: not one call or token goes unbooked, no limit is passed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_openai import ChatOpenAI

from rlm_langchain import (
    Budget,
    ModelError,
    RLMOutput,
    create_rlm,
)
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.call import RetryPolicy
from rlm_langchain.models.http.transport import async_client, sync_client
from rlm_langchain.models.model import Model
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.run_scope import CompiledRLM
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.types import Usage
from tests.random_run_trees import PRICES, PlannedRun, RunTreeGenerator, ScriptedServer
from tests.servers.scripted import serve
from tests.servers.server import Request, Server

TREES = int(os.environ.get("RLM_TREES", "32"))
"""How many; the same ones in every run, unless their number is given."""


class Counting:
    """A server whose script changes from tree to tree."""

    def __init__(self) -> None:
        self.play: ScriptedServer | None = None
        self.trees, self.billed = 0, 0
        self.server: Server

    def rule(self, request: Request) -> Any:
        assert self.play is not None
        return self.play.reply(request)


@pytest.fixture(scope="module")
def counting() -> Iterator[Counting]:
    counting = Counting()
    with serve(lambda _: "", rule=counting.rule) as server:
        counting.server = server
        yield counting
    print(f"{counting.trees} trees, {counting.billed} calls billed, {server.stats()}")


class Tally(AsyncCallbackHandler):
    """What a client of LangChain sees of the run: replies received, and the account while calls are in flight."""

    run_inline = True

    def __init__(self, components: Components) -> None:
        self.components = components
        self.received = Usage()
        self.tree: RunTree | None = None
        self.seen: set[Usage] = set()
        """What was spent and reserved at every look."""

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """The call has been admitted by now: look at how much is spent and reserved."""
        (self.tree,) = self.components.trees._alive.values()
        ledger = self.tree.ledger
        self.seen.add(ledger.spent.plus(ledger._reserved))

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        generation = response.generations[0][0]
        assert isinstance(generation, ChatGeneration)
        told = generation.message.usage_metadata
        cached = told["input_token_details"]["cache_read"]
        self.received = self.received.plus(Usage(1, told["input_tokens"], cached, told["output_tokens"]))

    @property
    def spent(self) -> Usage:
        return self.tree.ledger.spent if self.tree else Usage()


@dataclass(frozen=True)
class Cancel:
    """When a run is cancelled: at the n-th request that the server gets, or the n-th reply that has come."""

    at: Literal["request", "reply"]
    number: int


def model(name: str, url: str) -> Model:
    chat = ChatOpenAI(
        model=name,
        base_url=url,
        api_key="k",
        max_retries=0,
        http_client=sync_client(),
        http_async_client=async_client(),
    )
    return Model(name, chat, price=PRICES[name])


async def _no_time(_: float) -> None:
    pass


def quick(planned: Plan, url: str) -> tuple[RLMRunnable, Components]:
    """An RLM for this plan, whose waits between tries take no time."""
    rlm = create_rlm(
        model("root", url),
        recursive_model=[model("sub0", url), model("sub1", url)],
        sandbox="monty",
        budget=planned.budget,
        memo=planned.memo,
    )
    components = replace(assemble(rlm), retry=RetryPolicy(attempts=3, sleep=_no_time))
    rlm._built = CompiledRLM(components, rlm_graph(components).compile(name="rlm"))
    return rlm, components


@dataclass(frozen=True)
class Plan:
    """A tree, and how it is run."""

    root: PlannedRun
    budget: Budget
    memo: bool
    cancel: Cancel | None
    sync: bool


def plan(seed: int) -> Plan:
    """Up to twelve runs on up to four levels; most plans have limits that may end them."""
    chance = Random(seed)
    few = chance.random() < 0.6
    budget = Budget(
        usd=chance.uniform(0.005, 0.3) if few and chance.random() < 0.5 else None,
        calls=chance.randint(1, 40) if few and chance.random() < 0.5 else None,
        tokens=chance.randint(2_000, 100_000) if few and chance.random() < 0.5 else None,
        iterations=chance.choice([1, 2, 4, 4, 4]),
        depth=chance.choice([1, 2, 3, 4, 4, 4]),
        concurrency=chance.randint(1, 8),
        output_tokens=chance.choice([None, 150, 1_000]),
    )
    cancel = Cancel(chance.choice(["request", "reply"]), chance.randint(1, 30)) if chance.random() < 0.3 else None
    root = RunTreeGenerator(chance, chance.randint(1, 12)).node(3)
    return Plan(root, budget, chance.random() < 0.5, cancel, cancel is None and chance.random() < 0.5)


@settings(
    max_examples=TREES,
    deadline=None,
    derandomize="RLM_TREES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(seed=st.integers(0, 2**64))
def test_what_a_tree_has_used_is_what_the_server_has_billed(counting: Counting, seed: int) -> None:
    planned = plan(seed)
    counting.play = play = ScriptedServer(planned.root)
    first = counting.server.calls
    rlm, components = quick(planned, counting.server.url)
    tally = Tally(components)
    asked, config = {"query": play.query, "context": "some text"}, {"callbacks": [tally]}
    if planned.sync:
        output = attempt(lambda: rlm.invoke(asked, config))
    else:
        output = attempt(lambda: asyncio.run(asynchronously(rlm, asked, config, play, tally, planned.cancel)))
    counting.server.wait(lambda server: not server.in_flight)
    bill = play.billed(counting.server.requests[first:])
    event("cancelled" if output == "cancelled" else "failed" if output is None else output["stop_reason"])
    counting.trees, counting.billed = counting.trees + 1, counting.billed + bill.calls
    check_account(tally, bill, output)
    check_limits(planned.budget, tally, bill)
    assert not components.trees._alive


def attempt(run: Any) -> RLMOutput | Literal["cancelled"] | None:
    """The output; None when the root model did not answer."""
    try:
        return run()
    except ModelError:
        return None
    except asyncio.CancelledError:
        return "cancelled"


async def asynchronously(
    rlm: Any, asked: Any, config: Any, play: ScriptedServer, tally: Tally, cancel: Cancel | None
) -> Any:
    """Ask on a loop, and cancel when it is time. No task may be left."""
    task, loop = asyncio.ensure_future(rlm.ainvoke(asked, config)), asyncio.get_running_loop()
    if cancel is not None:
        cancel_when(cancel, play, tally, lambda: loop.call_soon_threadsafe(task.cancel))
    try:
        return await task
    finally:
        assert asyncio.all_tasks() == {asyncio.current_task()}


def cancel_when(cancel: Cancel, play: ScriptedServer, tally: Tally, stop: Any) -> None:
    """Call `stop` at the moment that `cancel` means."""
    seen = iter(range(1, 10_000))

    def one_more() -> None:
        if next(seen) == cancel.number:
            stop()

    if cancel.at == "request":
        play.watch = one_more
        return
    before = tally.on_llm_end

    async def on_llm_end(response: LLMResult, **kwargs: Any) -> None:
        await before(response, **kwargs)
        one_more()

    tally.on_llm_end = on_llm_end  # type: ignore[method-assign]


def check_account(tally: Tally, bill: Usage, output: Any) -> None:
    """Booked is what was received, and the most that requests may have used whose replies never came. So it is
    never less than what the server has billed, and the same when no request was lost."""
    spent = tally.spent
    lost = sum(tally.tree._lost.values()) if tally.tree else 0
    assert spent.calls == tally.received.calls + lost
    for known in (tally.received, bill):
        assert all(booked >= used for booked, used in zip(spent[:2], known[:2], strict=True))
        assert spent.output >= known.output
        assert spent.cost >= known.cost - 1e-9
    if not lost:
        assert spent[:4] == tally.received[:4] == bill[:4]
        assert spent.cost == pytest.approx(bill.cost)
    if output not in (None, "cancelled"):
        root, sub = Usage(**output["usage"]["root"]), Usage(**output["usage"]["sub"])
        assert root.plus(sub)[:4] == spent[:4]
        assert output["cost_usd"] == pytest.approx(spent.cost)
        assert output["sub_calls"] == sub.calls
        assert output["answer"] is not None or output["status"] == "failed"


def check_limits(budget: Budget, tally: Tally, bill: Usage) -> None:
    """Neither what was spent nor what was reserved at any time passes a limit."""
    for used in (*tally.seen, tally.spent, bill):
        assert used.calls <= (budget.calls or 10**9)
        assert used.tokens <= (budget.tokens or 10**9)
        assert (used.cost or 0.0) <= (budget.usd or 10**9) + 1e-9
