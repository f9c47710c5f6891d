"""Child runs that are asked the same: the first one works, the others have its answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future


class SingleFlight:
    """The child runs of a tree by what they are asked. For threads and tasks, since runs are either."""

    def __init__(self) -> None:
        self._runs: dict[str, Future[str | None]] = {}
        self._lock = threading.Lock()

    def first(self, key: str) -> Future[str | None] | None:
        """The answer of the run that was asked this before, to wait for; None is no answer, and means: ask again.

        No future: the caller is the first, and tells when it is `over`.
        """
        with self._lock:
            if key in self._runs:
                return self._runs[key]
            self._runs[key] = Future()
            return None

    def known(self, key: str) -> str | None:
        """The answer, when it is there already."""
        with self._lock:
            run = self._runs.get(key)
        return run.result() if run is not None and run.done() else None

    def over(self, key: str, answer: str | None) -> None:
        """The first is over. None: it has no answer worth remembering, and the next one may be the first."""
        with self._lock:
            run = self._runs[key]
            if answer is None:
                del self._runs[key]
        run.set_result(answer)

    def remember(self, answers: Mapping[str, str]) -> None:
        """What runs of earlier processes answered."""
        with self._lock:
            for key, answer in answers.items():
                self._runs.setdefault(key, _done(answer))


def _done(answer: str) -> Future[str | None]:
    future: Future[str | None] = Future()
    future.set_result(answer)
    return future
