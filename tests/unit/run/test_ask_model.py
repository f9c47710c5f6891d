"""What a later process finds of the replies that an earlier one has paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from rlm_langchain.budget.budget import Budget
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.models.call import CallFailed, RetryPolicy
from rlm_langchain.models.model import Model
from rlm_langchain.models.registry import resolve
from rlm_langchain.run.ask_model import ModelRequest, ask_model, receipt_key
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.testing.models import FunctionModel


class Shop:
    """A model with a parser behind it, asked by one process after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0

    def reply(self, _: Any) -> str:
        self.asked += 1
        return "ANSWER: forty two"

    def model(self, parse: Any, *, fallback: bool = False) -> Model:
        chat: Any = FunctionModel(function=self.reply, model_name="named")
        if fallback:

            def down(_: Any) -> str:
                raise ConnectionResetError

            other = FunctionModel(function=down, model_name="down") | RunnableLambda(self.wrong)
            return resolve(other.with_fallbacks([chat | RunnableLambda(parse)]), "sub")
        return resolve(chat | RunnableLambda(parse), "sub")

    @staticmethod
    def wrong(_: AIMessage) -> str:
        return "the parser of another model"

    async def process(self, model: Model, *, memo: bool = False, place: str = "0") -> tuple[str, int]:
        """Return the reply in a process of its own, and the tokens that all processes have read."""
        tree, messages = RunTree(Budget()), [HumanMessage("q")]
        tree.open_receipts(self.path)
        key = receipt_key(tree, model, messages, "" if memo else place)
        request = ModelRequest(model, messages, place, key, f"wave {place}{key}" if memo else None)
        try:
            reply = await ask_model(tree, request, RetryPolicy(), {})
            return reply.text, tree.ledger.spent.input
        finally:
            tree.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "receipts.jsonl")


def parse(message: AIMessage) -> str:
    return str(message.content).removeprefix("ANSWER: ")


def cannot(_: AIMessage) -> str:
    raise ValueError("no JSON")


@pytest.mark.parametrize("memo", [False, True])
@pytest.mark.parametrize("fallback", [False, True])
async def test_a_process_that_resumes_has_the_text_that_the_parser_made(
    shop: Shop, memo: bool, fallback: bool
) -> None:
    model = shop.model(parse, fallback=fallback)
    first = await shop.process(model, memo=memo)
    assert first[0] == "forty two"
    assert [await shop.process(model, memo=memo) for _ in range(2)] == [first, first], "and it is booked once"
    assert shop.asked == 1
    if memo:
        assert (await shop.process(model, memo=memo, place="1"))[0] == "forty two", "another place has it too"
        assert shop.asked == 1


@pytest.mark.parametrize("memo", [False, True])
async def test_a_reply_that_no_parser_has_read_yet_is_read_by_the_process_that_resumes(
    shop: Shop, memo: bool
) -> None:
    with pytest.raises(CallFailed, match=r"could not read its reply \(ValueError: no JSON\)"):
        await shop.process(shop.model(cannot), memo=memo)
    with pytest.raises(CallFailed, match="could not read"):
        await shop.process(shop.model(cannot), memo=memo)
    first = await shop.process(shop.model(parse), memo=memo)
    assert (first, shop.asked) == (("forty two", 1), 1), "it is not asked, or paid, again"
    assert await shop.process(shop.model(cannot), memo=memo) == first, "nor read again"


async def test_a_text_that_a_parser_leaves_empty_is_for_who_has_asked_alone(shop: Shop) -> None:
    def nothing(_: AIMessage) -> str:
        return ""

    empty = shop.model(nothing)
    assert (await shop.process(empty, memo=True))[0] == ""
    assert ((await shop.process(empty, memo=True))[0], shop.asked) == ("", 1)
    await shop.process(empty, memo=True, place="1")
    assert shop.asked == 2


async def test_the_parsed_text_settles_nothing(shop: Shop) -> None:
    await shop.process(shop.model(parse))
    sent = Receipts(shop.path).requests()
    assert [(one.used.calls, one.lost) for one in sent] == [(1, False)]
