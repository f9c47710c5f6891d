"""RLMs as arms, with and without sub-calls."""

from __future__ import annotations

from rlm_langchain.bench.arms.arm import Arm, Setting
from rlm_langchain.bench.arms.fixed import fixed_model
from rlm_langchain.protocols import Strategy
from rlm_langchain.runnable.create import create_rlm
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.types import Usage

OFF = "Sub-calls are switched off in this run: answer from what your code prints."
NO_SUB_CALLS = Strategy("no_sub_calls", "Answer without sub-calls.", f"{OFF} Do not use `llm_query` and its like.")
TURNS = 5
TURN_TOKENS = 5_000
"""Mean tokens of a turn's prompt."""
CELL_TOKENS = 400


def _depth_0(setting: Setting) -> RLMRunnable:
    return create_rlm(
        setting.root,
        recursive_model=fixed_model("no sub-calls", lambda _: OFF),
        strategies=NO_SUB_CALLS,
        budget=setting.budget,
        **setting.options,
    )


def _depth_1(setting: Setting) -> RLMRunnable:
    return create_rlm(
        setting.root,
        recursive_model=setting.sub,
        budget=setting.budget,
        **setting.options,
    )


def _expected_turns(tokens: int, window: int) -> Usage:
    return Usage(TURNS, TURNS * TURN_TOKENS, 0, TURNS * CELL_TOKENS)


def _expected_reading(tokens: int, window: int) -> Usage:
    """Return the usage of the turns, and of sub-calls that read the whole context once."""
    pieces = -(-tokens // min(window // 2, 16_000))
    return _expected_turns(tokens, window).plus(Usage(pieces, tokens, 0, pieces * CELL_TOKENS // 2))


rlm_depth_0 = Arm("rlm_depth_0", "an RLM whose code reads, without sub-calls", _depth_0, _expected_turns)
rlm_depth_1 = Arm("rlm_depth_1", "an RLM with sub-calls", _depth_1, _expected_reading)
