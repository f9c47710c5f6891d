"""The account of a run, over the real tree and receipts on disk, with kills between any two effects.

`RLM_ACCOUNTS` is how many stories are tried. A failed one is printed step by step, with the `RLM_SEED` that
repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from rlm_langchain import Budget
from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.types import Usage, total_usage
from tests.durable.account import Held, Process

ACCOUNTS = int(os.environ.get("RLM_ACCOUNTS", "100"))
BUDGET = Budget(usd=16, calls=12, tokens=4_000)
PLACES = ("0", "1", "0/2", " turn 0")
SIZES = (Usage(1), Usage(1, 40, 0, 20, 1.0), Usage(1, 200, 0, 400, 2.0), Usage(1, 900, 0, 100, 4.0))


@dataclass
class Request:
    """A request that was sent, as one who sees everything knows it."""

    place: str
    most: Usage
    used: Usage | None = None
    """What the process has kept that it used. None: not known on disk."""
    key: str | None = None
    """Of its reply, if that was kept."""
    billed: Usage | None = None
    """What the provider has billed, if it said so. Else it may bill the most."""
    is_lost: bool = False
    """Whether the process that sent it has given it up, or has ended."""

    @property
    def recorded(self) -> Usage:
        return self.most._replace(estimated=True) if self.used is None else self.used

    @property
    def owed(self) -> Usage:
        return self.most if self.billed is None else self.billed


class Account(RuleBasedStateMachine):
    """Calls reserve, send, are answered, fail, are cut off; the process is killed, and another one goes on."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="rlm-account-")
        self.path = Path(self.folder.name) / "receipts.jsonl"
        self.requests: list[Request] = []
        self.flying: dict[Held, Request] = {}
        self.replies, self.crowd = 0, 3
        self.undo: list[Request] | None = None
        """What was true before the last line was written; None when the last step has written none."""
        self.process = Process(self.path, BUDGET, {}, self.loop)

    def teardown(self) -> None:
        self.process.close()
        self.folder.cleanup()

    # ---- what may happen

    @initialize(crowd=st.sampled_from((3, 9)))
    def begins(self, crowd: int) -> None:
        """In some stories so many calls work at once that some have to wait."""
        self.crowd = crowd

    @rule(data=st.data())
    def then(self, data: st.DataObject) -> None:
        """One effect of those that are possible. Calls get on more often than they are ended, or most would not."""
        possible = [self.reserve] * (self.crowd if len(self.process.held) < self.crowd else 1)
        possible += [self.begin] * (4 if self.ready(sent=False) else 0)
        if self.ready(sent=True):
            possible += [self.reply, self.reply, self.reply, self.fail, self.lose]
        possible += [self.cancel, self.kill] if self.process.held else []
        possible += [self.give_up] * 3 if any(one.waits for one in self.process.held) else []
        possible += [self.kill_in_a_line, self.kill_and_double_the_last_line] if self.undo is not None else []
        effect = data.draw(st.sampled_from(possible))
        effect(data)

    def some(self, data: st.DataObject, *, sent: bool) -> Held:
        return data.draw(st.sampled_from(self.ready(sent=sent)))

    def ready(self, *, sent: bool) -> list[Held]:
        return [one for one in self.process.held if one.entry is not None and one.sent == sent]

    def writes(self) -> None:
        """The next line is about to be written."""
        self.undo = [Request(**vars(one)) for one in self.requests]

    def reserve(self, data: st.DataObject) -> None:
        self.undo = None
        place, most = data.draw(st.sampled_from(PLACES)), data.draw(st.sampled_from(SIZES))
        held = self.process.reserve(place, most)
        if held.task.done():
            assert isinstance(held.task.exception(), BudgetRefused)
            event("refused")

    def begin(self, data: st.DataObject) -> None:
        held = self.some(data, sent=False)
        self.writes()
        assert held.entry is not None
        if held.entry.begin():
            self.requests.append(request := Request(held.place, held.wanted))
            self.flying[held] = request
        else:
            self.undo = None
            held.end()
        self.process.go_on()

    def reply(self, data: st.DataObject) -> None:
        """A reply comes; one that cannot be read is billed, too."""
        held, share = self.some(data, sent=True), data.draw(st.sampled_from((0.25, 0.5, 1)))
        self.writes()
        request, most = self.flying.pop(held), held.wanted
        cost = (most.cost or 0) * share
        request.billed = request.used = Usage(1, int(most.input * share), 0, int(most.output * share), cost)
        if data.draw(st.booleans()):
            self.replies += 1
            request.key = f"{held.place} {self.replies}"
        self.process.reply(held, request.used, request.key)

    def fail(self, data: st.DataObject) -> None:
        """In a way that costs nothing; the same reservation may try again."""
        held = self.some(data, sent=True)
        self.writes()
        request = self.flying.pop(held)
        request.billed = request.used = Usage()
        assert held.entry is not None
        held.entry.withdraw()
        if data.draw(st.booleans()):
            held.end()
        self.process.go_on()

    def lose(self, data: st.DataObject) -> None:
        """The connection ends without a reply; the provider may go on, and bill."""
        held = self.some(data, sent=True)
        self.undo = None
        self.flying.pop(held).is_lost = True
        assert held.entry is not None
        held.entry.lose()
        held.end()
        self.process.go_on()

    def cancel(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.process.held))
        self.undo = None
        if held in self.flying:
            self.flying.pop(held).is_lost = True
        self.process.cancel(held)

    def give_up(self, data: st.DataObject) -> None:
        """Cut off a call that waits for its turn."""
        self.undo = None
        self.process.cancel(data.draw(st.sampled_from([one for one in self.process.held if one.waits])))
        event("cancelled while it waited")

    def kill(self, _: st.DataObject) -> None:
        self.ends()
        self.goes_on()

    def kill_in_a_line(self, data: st.DataObject) -> None:
        """While the last line is written: a part of it is there, and what it is about has not happened on disk."""
        before = self.undo or []
        self.ends()
        start, whole = self.last_line()
        cut = start + (len(whole) - start) * data.draw(st.integers(0, 99)) // 100
        self.path.write_bytes(whole[:cut] + bytes(100))
        sent = self.requests[: len(before)]  # a request whose line is not whole has not left
        for request, was in zip(sent, before, strict=True):
            request.used, request.key = was.used, was.key
        self.requests = sent
        self.goes_on()

    def kill_and_double_the_last_line(self, _: st.DataObject) -> None:
        """A line that is there twice says the same as once."""
        self.ends()
        start, whole = self.last_line()
        self.path.write_bytes(whole + whole[start:])
        self.goes_on()

    def last_line(self) -> tuple[int, bytes]:
        """Where the last line begins, and all lines."""
        whole = self.path.read_bytes().rstrip(b"\0")
        return whole.rstrip(b"\n").rfind(b"\n") + 1, whole

    def ends(self) -> None:
        event("killed in flight" if self.flying else "killed")
        self.process.kill()
        self.flying.clear()

    def goes_on(self) -> None:
        self.undo = None
        for request in self.requests:
            request.is_lost = request.used is None
        self.process = Process(self.path, BUDGET, {}, self.loop)

    # ---- what is always so

    @invariant()
    def what_is_spent_is_what_is_recorded(self) -> None:
        ledger, flying = self.process.tree.ledger, [*self.flying.values()]
        landed = [one for one in self.requests if not any(one is other for other in flying)]
        assert ledger.spent == total_usage(one.recorded for one in landed)
        assert self.process.tree.spent_below("") == ledger.spent
        reserved = [one.wanted for one in self.process.held if one.entry is not None and one.entry.admitted]
        held = ledger.committed
        assert held == ledger.spent.plus(total_usage(reserved))
        assert held.calls <= (BUDGET.calls or 0)
        assert held.tokens <= (BUDGET.tokens or 0)
        assert (held.cost or 0) <= (BUDGET.usd or 0)
        for place in PLACES:
            lost = sum(one.is_lost for one in self.requests if one.place == place)
            assert self.process.tree.lost_at(place) == lost

    @invariant()
    def the_disk_accounts_for_all_of_it_and_for_all_that_may_be_billed(self) -> None:
        kept = Receipts(self.path)  # as a new process reads them
        requests = kept.requests()
        spent = total_usage(one.used for one in requests)
        assert spent == total_usage(one.recorded for one in self.requests)
        assert sum(one.lost for one in requests) == sum(one.used is None for one in self.requests)
        owed = total_usage(one.owed for one in self.requests)
        assert owed.calls <= spent.calls <= (BUDGET.calls or 0)
        assert owed.tokens <= spent.tokens <= (BUDGET.tokens or 0)
        assert (owed.cost or 0) <= (spent.cost or 0) <= (BUDGET.usd or 0)
        for key in (one.key for one in self.requests if one.key is not None):  # so it is not asked again
            assert (kept.find(key) or {})["text"] == f"reply to {key}"

    @invariant()
    def whoever_waits_is_waited_for(self) -> None:
        """A call waits only for what others hold."""
        if any(one.waits for one in self.process.held):
            assert any(one.entry is not None for one in self.process.held)


def test_the_account_is_right_whatever_ends_the_process() -> None:
    drawn = os.environ.get("RLM_SEED") or str(random.randrange(10**6))
    print(f"RLM_SEED={drawn}")
    tell_stories(ACCOUNTS, int(drawn))


def tell_stories(count: int, drawn: int, *, shorten: bool = True) -> None:
    """Draw so many stories. One that fails is made short, which takes a while."""
    with asyncio.Runner() as runner:
        Account.loop = runner.get_loop()
        run_state_machine_as_test(
            seed(drawn)(Account),
            settings=settings(
                max_examples=count,
                stateful_step_count=25,
                deadline=None,
                database=None,
                print_blob=False,
                phases=(Phase.generate, Phase.shrink) if shorten else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
