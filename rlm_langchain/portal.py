"""Lets a sync node wait for a coroutine: on one private event loop that all sync runs share."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from anyio.from_thread import BlockingPortalProvider

if TYPE_CHECKING:
    from rlm_langchain.tree import Tree

T = TypeVar("T")
A = TypeVar("A")

PORTAL = BlockingPortalProvider()
"""Runs while it is in use; hold it for a run, so that the run's connections are kept."""


def wait(tree: Tree, function: Callable[[A], Awaitable[T]], given: A) -> T:
    """The result of `function(given)`. Ends in `CancelledError` when the tree is closed meanwhile."""
    with PORTAL as portal:
        future = portal.start_task_soon(function, given)
        tree.waiting.add(future)
        try:
            return future.result()
        finally:
            tree.waiting.discard(future)


def interruptible(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """`do()`, such that Ctrl-C calls `stop` at once: LangGraph's sync runner waits for its threads first."""
    if threading.current_thread() is not threading.main_thread():
        return do()
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        work = pool.submit(copy_context().run, do)
        try:
            return work.result()
        except KeyboardInterrupt:
            stop()
            raise
