"""However long the context is, it is in no prompt, checkpoint, callback, event or record."""

from __future__ import annotations

import logging
import pickle
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import create_rlm
from rlm_langchain.testing.models import FunctionModel, script

CANARY = "zebra-quartz-7731"
CODE = ("n = len(context)\nprint(n)", "found = context.find('quartz')", "FINAL([n, found > 0])")


def big(megabytes: int) -> str:
    """A text whose canary is where no preview looks."""
    half = "word " * (megabytes * 100_000)
    return f"{half}{CANARY}{half}"


class Witness(BaseCallbackHandler):
    """Keeps everything that callbacks are shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.seen.append(repr((inputs, kwargs.get("metadata"))))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.seen.append(repr(outputs))

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.seen.append(repr(messages))


def test_forty_megabytes_leave_no_trace(caplog):
    caplog.set_level(logging.DEBUG)
    saver, witness = InMemorySaver(), Witness()
    rlm = create_rlm(script(*CODE), checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}, "callbacks": [witness]}
    context = big(40)
    events = [*rlm.stream({"query": "q", "context": context}, config, stream_mode=["custom", "values", "updates"])]
    answer = rlm.graph.get_state({"configurable": {"thread_id": "t"}}).values["answer"]
    assert answer == [len(context), True]
    checkpoints = pickle.dumps((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))
    assert CANARY.encode() not in checkpoints
    assert len(checkpoints) < 200_000
    assert len(witness.seen) > 10
    for text in (*witness.seen, repr(events), caplog.text):
        assert CANARY not in text


def test_the_root_prompt_is_as_long_for_ten_million_tokens_as_for_a_few():
    def chars(megabytes: float) -> list[int]:
        prompts: list[int] = []

        def play(messages: list[Any]) -> str:
            prompts.append(sum(len(message.content) for message in messages))
            return f"```repl\n{CODE[min(len(prompts) - 1, 2)]}\n```"

        create_rlm(FunctionModel(function=play)).completion("q", "word " * int(megabytes * 200_000))
        return prompts

    for long, short in zip(chars(40), chars(0.1), strict=True):
        assert abs(long - short) < 0.02 * short
