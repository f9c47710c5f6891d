"""Single flight: of several equal calls at the same time, the first is made, and the others share its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Remembered answers and calls in progress, by key.

    Safe for threads and for tasks of any event loop. None means that there is no answer: whoever waited for it
    calls again.
    """

    def __init__(self) -> None:
        self._answers: dict[str, T] = {}
        self._flights: dict[str, Future[T | None]] = {}
        self._lock = threading.Lock()

    def join(self, key: str, *fallbacks: str) -> T | None:
        """Return the answer to this key, waiting for a call in progress, or else the remembered answer of a
        fallback key.

        None makes the caller responsible for the call. It must then call `finish`.
        """
        while True:
            answer, flight = self._find_or_begin(key, fallbacks)
            if flight is None or (answer := flight.result()) is not None:
                return answer

    async def ajoin(self, key: str, *fallbacks: str) -> T | None:
        """Do what `join` does, without blocking the event loop."""
        while True:
            answer, flight = self._find_or_begin(key, fallbacks)
            if flight is None or (answer := await asyncio.shield(asyncio.wrap_future(flight))) is not None:
                return answer

    def known(self, key: str) -> T | None:
        """Return the remembered answer, without waiting."""
        with self._lock:
            return self._answers.get(key)

    def finish(self, key: str, answer: T | None, remember_as: str | None = None) -> None:
        """Pass the answer to those who wait for it. With `remember_as`, also remember it under this key."""
        with self._lock:
            flight = self._flights.pop(key)
            if remember_as is not None and answer is not None:
                self._answers[remember_as] = answer
        flight.set_result(answer)

    def remember(self, answers: Mapping[str, T]) -> None:
        """Add the answers of earlier processes."""
        with self._lock:
            for key, answer in answers.items():
                self._answers.setdefault(key, answer)

    def _find_or_begin(self, key: str, fallbacks: tuple[str, ...]) -> tuple[T | None, Future[T | None] | None]:
        """Return an answer, or the future of a call in progress. If both are None, the caller has started a new
        call."""
        with self._lock:
            if (flight := self._flights.get(key)) is not None:
                return None, flight
            for known in (key, *fallbacks):
                if (answer := self._answers.get(known)) is not None:
                    return answer, None
            flight = self._flights[key] = Future()
            flight.set_running_or_notify_cancel()  # a waiter that is cancelled cancels only its own waiting
            return None, None
