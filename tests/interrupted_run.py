"""A program whose run is to be interrupted. It prints a line after five replies, and at its end what is left open.

python -m tests.interrupted_run invoke|stream|ainvoke SANDBOX URL
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from rlm_langchain import Budget, RLMRunnable, create_rlm
from rlm_langchain.run.run_tree import RunTree
from tests.processes import children
from tests.servers.endings import chat


class TreeObserver(BaseCallbackHandler):
    """Keeps the tree of a run, so that its ledger can be inspected later. Calls `then` after some replies."""

    run_inline = True

    def __init__(self, rlm: RLMRunnable, replies: int = 0, then: Callable[[], Any] = lambda: None) -> None:
        self.trees = rlm.built.components.trees
        self.tree: RunTree | None = None
        self._replies, self._then = replies, then

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        (self.tree,) = self.trees._alive.values()

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self._replies -= 1
        if self._replies == 0:
            self._then()

    def left(self) -> dict[str, Any]:
        assert self.tree is not None
        return {
            "spent": self.tree.ledger.spent[:4],
            "reserved": self.tree.ledger._reserved[:4],
            "children": children(),
            "alive": len(self.trees._alive),
            "threads": sorted(t.name.rstrip("_0123456789") for t in threading.enumerate() if not t.daemon),
        }


def main() -> None:
    """Run until interrupted."""
    way, sandbox, url = sys.argv[1:]
    rlm = create_rlm(chat(url), sandbox=sandbox, budget=Budget(depth=2))
    observer = TreeObserver(rlm, 5, lambda: print("five", flush=True))
    config: Any = {"callbacks": [observer]}
    try:
        match way:
            case "invoke":
                rlm.invoke("ROOT", config)
            case "stream":
                for _ in rlm.stream("ROOT", config, stream_mode="custom"):
                    pass
            case "ainvoke":
                asyncio.run(rlm.ainvoke("ROOT", config))
    except KeyboardInterrupt:
        print(json.dumps(observer.left()), flush=True)


if __name__ == "__main__":
    main()
