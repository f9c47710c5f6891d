"""The clock of a session: it starts at a time set by the host, and advances only when the program reads it or
sleeps.

So a cell that runs again, on another machine and another day, sees the same times. The real clock is used only to
limit the time of a cell.
"""

from __future__ import annotations

import time
from _signal import (  # type: ignore[import-not-found]  # `signal` would load `enum`, and slow the start
    ITIMER_REAL,
    SIGALRM,
    setitimer,
    signal,
)

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STEP = 1_000
"""Nanoseconds that pass with each reading of the clock."""

AGAIN = 0.1
"""Seconds until the alarm is repeated for a cell that has caught it."""

HURRY = 0.5
"""Seconds that a cell has left if it catches the exception that ends it after its answer."""

_monotonic = time.monotonic


class TimeLimit(BaseException):
    """The cell has used its time. It is not an `Exception`, so that `except Exception` does not catch it."""

    __module__ = "builtins"  # for tracebacks: programs see a plain name


class Alarm:
    """Ends a cell from within when its time is up. If that does not help, the host kills the worker."""

    def __init__(self, seconds: float, is_held: Callable[[], int]) -> None:
        self._limit, self._is_held = seconds, is_held
        self._left, self._since = seconds, 0.0
        self._given: type[BaseException] | None = None
        signal(SIGALRM, self._ring)

    def new_cell(self) -> None:
        """Give a new cell all of its time."""
        self._left, self._given = self._limit, None

    def hurry(self, error: type[BaseException]) -> None:
        """Limit a cell that has its answer to a short time, and then end it with this error."""
        self._left, self._given = min(self._left, _monotonic() - self._since + HURRY), error
        setitimer(ITIMER_REAL, HURRY, AGAIN)

    def start(self) -> None:
        """Start the cell's time."""
        self._since = _monotonic()
        setitimer(ITIMER_REAL, max(self._left, 0.001), AGAIN)

    def stop(self) -> None:
        """Stop the cell's time."""
        setitimer(ITIMER_REAL, 0)
        self._left -= _monotonic() - self._since

    def spend(self, seconds: float) -> None:
        """Subtract time that was slept. Raises `TimeLimit` if there is not enough left."""
        spent = _monotonic() - self._since
        if seconds > self._left - spent:
            raise self._error()
        self._left -= seconds
        setitimer(ITIMER_REAL, max(self._left - spent, 0.001), AGAIN)

    def _error(self) -> BaseException:
        if self._given is not None:
            return self._given()
        return TimeLimit(f"this cell ran for more than {self._limit:g} s of its own time")

    def _ring(self, number: int, frame: object) -> None:
        if not self._is_held():
            raise self._error()


class Clock:
    """The time that programs see."""

    def __init__(self, start: float, alarm: Alarm) -> None:
        self._start = self._now = int(start * 1e9)
        self._alarm = alarm

    def wall(self) -> int:
        """Return nanoseconds since the epoch."""
        self._now += STEP
        return self._now

    def running(self) -> int:
        """Return nanoseconds since the session began."""
        return self.wall() - self._start

    def sleep(self, seconds: float, /) -> None:
        """Let time pass without waiting. It counts as the cell's own."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self._alarm.spend(seconds)
        self._now += int(seconds * 1e9)

    def install(self) -> None:
        """Replace every function of `time` by this clock."""
        vars(time).update(self._counters())
        vars(time).update(self._calendar())
        vars(time)["sleep"] = self.sleep

    def _counters(self) -> dict[str, Any]:
        functions: dict[str, Any] = {}
        for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
            functions[name] = lambda: self.running() / 1e9
            functions[name + "_ns"] = self.running
        functions["time"] = lambda: self.wall() / 1e9
        functions["time_ns"] = self.wall
        functions["clock_gettime"] = lambda clock_id, /: self._of(clock_id) / 1e9
        functions["clock_gettime_ns"] = lambda clock_id, /: self._of(clock_id)
        return functions

    def _of(self, clock_id: int) -> int:
        return self.wall() if clock_id == time.CLOCK_REALTIME else self.running()

    def _calendar(self) -> dict[str, Any]:
        """Return the functions that use the present time if they are given none."""
        localtime, gmtime, ctime = time.localtime, time.gmtime, time.ctime
        strftime, asctime = time.strftime, time.asctime
        return {
            "localtime": lambda secs=None, /: localtime(self._given(secs)),
            "gmtime": lambda secs=None, /: gmtime(self._given(secs)),
            "ctime": lambda secs=None, /: ctime(self._given(secs)),
            "strftime": lambda form, t=None, /: strftime(form, localtime(self._given(None)) if t is None else t),
            "asctime": lambda t=None, /: asctime(localtime(self._given(None)) if t is None else t),
        }

    def _given(self, secs: float | None) -> float:
        return self.wall() / 1e9 if secs is None else secs


def fix_datetime(module: Any) -> None:
    """Make `datetime.now()` use `time.time()`, as `date.today()` already does."""
    real = module.datetime

    class datetime(real):  # type: ignore[misc, valid-type]  # noqa: N801 - it takes the place of that one
        __doc__ = real.__doc__

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), module.UTC).replace(tzinfo=None)

        def __repr__(self) -> str:
            return f"datetime.{super().__repr__()}"

    datetime.__module__, datetime.__qualname__ = "datetime", "datetime"
    module.datetime = datetime


def fix_selectors(module: Any, send_waiting_calls: Callable[[], bool]) -> None:
    """Make waiting in an event loop send the calls of tasks, or else pass at once like `time.sleep`."""
    for name in ("SelectSelector", "PollSelector", "EpollSelector"):
        kind = getattr(module, name)
        kind.select = _patient(kind.select, send_waiting_calls)


def _patient(select: Any, send_waiting_calls: Callable[[], bool]) -> Any:
    def patient(self: Any, timeout: float | None = None) -> Any:
        ready = select(self, 0)
        while not ready and timeout != 0 and send_waiting_calls():
            ready = select(self, 0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return select(self, None)
        time.sleep(max(timeout, 0))
        return []

    return patient
