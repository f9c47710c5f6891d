"""Fixtures that tests of the graph share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rlm_langchain import RLMOutput, RLMRunnable


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest) -> Callable[..., RLMOutput]:
    """Ask by `invoke` and by `ainvoke`."""

    def go(rlm: RLMRunnable, input: Any, config: Any = None) -> RLMOutput:
        if request.param == "invoke":
            return rlm.invoke(input, config)
        return asyncio.run(rlm.ainvoke(input, config))

    return go
