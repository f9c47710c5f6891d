"""Cooperative thread pools: tasks take turns, and when all of them wait for the host, their calls go out
together.

Programs often contain `pool.map(llm_query, chunks)`. With free threads the order of the calls would depend on
the scheduler, so that no replay could follow, and the calls would be made one after the other. Here a task runs
until it makes a call or ends, and nothing else runs meanwhile. A thread that waits for a result sends the calls
of all tasks.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Exchange = Callable[[Sequence[str]], list[Any]]

STACK = 1 << 20
"""Stack size of each task, in bytes."""

MAX_WAITING = 64
"""Tasks of one pool that may wait for the host at once."""


class Task:
    """One submitted call, in a thread that runs only when it is its turn."""

    def __init__(self, pool: CooperativePool, future: Any, work: Callable[[], Any]) -> None:
        self._pool, self.future, self._work = pool, future, work
        self._turn, self._back = allocate_lock(), allocate_lock()
        self._turn.acquire()
        self._back.acquire()
        self.asks: Sequence[str] = ()
        self._replies: list[Any] = []

    def begin(self) -> None:
        """Run until it makes a call or ends."""
        import threading

        before = threading.stack_size(STACK)
        threading.Thread(target=self._run, daemon=True).start()
        threading.stack_size(before)
        self._hand_over()

    def resume(self, replies: list[Any]) -> None:
        """Run until it makes another call or ends."""
        self.asks, self._replies = (), replies
        self._hand_over()

    def wait_for_replies(self, calls: Sequence[str]) -> list[Any]:
        """Wait for the replies to these calls. Called in the task's own thread."""
        self.asks = calls
        self._back.release()
        self._turn.acquire()
        return self._replies

    def _hand_over(self) -> None:
        self._pool.running += 1
        self._turn.release()
        self._back.acquire()
        self._pool.running -= 1
        self._pool.check()

    def _run(self) -> None:
        self._turn.acquire()
        self._pool.tasks[get_ident()] = self
        try:
            self.future.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self.future.set_exception(error)
        self._pool.tasks.pop(get_ident(), None)
        self._back.release()


class CooperativePool:
    """All tasks of a session, and the thread that sends their calls."""

    def __init__(self, exchange: Exchange, check: Callable[[], None]) -> None:
        """Create the pool. `check` raises if the cell has its answer; then no task continues."""
        self._exchange, self.check = exchange, check
        self.tasks: dict[int, Task] = {}
        """Tasks by thread, in the order in which they started."""
        self.running = 0
        """Number of tasks in the middle of a turn, which the alarm cannot reach."""
        self.refill: list[Callable[[], None]] = []
        """Functions that start the next tasks of each pool."""

    def exchange(self, calls: Sequence[str]) -> list[Any]:
        """Send calls to the host: at once, or together with the other tasks if this is a task."""
        task = self.tasks.get(get_ident())
        return self._exchange(calls) if task is None else task.wait_for_replies(calls)

    def send_waiting_calls(self) -> bool:
        """Send the calls of all waiting tasks, and resume each with its replies. Return False if none waits."""
        waiting = [task for task in self.tasks.values() if task.asks]
        if not waiting:
            return False
        replies = iter(self._exchange([call for task in waiting for call in task.asks]))
        shares = [[next(replies) for _ in task.asks] for task in waiting]
        for task, share in zip(waiting, shares, strict=True):
            task.resume(share)
        for fill in self.refill:
            fill()
        return True

    def dismiss(self) -> None:
        """Drop all tasks: none of them continues or makes a call."""
        self.tasks, self.refill, self.running = {}, [], 0

    def until(self, done: Callable[[], bool]) -> None:
        """Send calls until the condition is true, or no task waits any more."""
        while not done() and self.send_waiting_calls():
            pass
