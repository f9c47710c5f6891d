"""The randomness of a session: generated from the host's seed, so that it is the same in every replay."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PID = 2
"""The process id that programs see."""

CORES = 2
"""The number of processors that programs see."""


def install(seed: int) -> None:
    """Make the system's randomness, and other values that differ between processes, depend on the seed only."""
    draw = _drawing(seed)
    os.urandom = draw
    os.getrandom = lambda size, flags=0: draw(size)
    os.environ.clear()
    os.getpid = lambda: PID
    os.getppid = lambda: PID - 1
    os.cpu_count = lambda: CORES
    system = os.uname_result(("Linux", "rlm", "", "", os.uname().machine))
    os.uname = lambda: system


def _drawing(seed: int) -> Callable[[int], bytes]:
    """Return a function like `os.urandom`."""
    drawn: list[Any] = []

    def urandom(size: int, /) -> bytes:
        """Return `size` bytes that look random."""
        if not drawn:
            from _random import Random

            drawn.append(Random(seed))
        return drawn[0].getrandbits(8 * size).to_bytes(size, "little") if size else b""

    return urandom


def fix_random(module: Any) -> None:
    """Make `random` use the seed. Without this it reads the operating system directly, not through `os.urandom`."""
    seed: Any = module.Random.seed

    def seeded(self: Any, a: Any = None, version: int = 2) -> None:
        seed(self, int.from_bytes(os.urandom(32), "big") if a is None else a, version)

    module.Random.seed = seeded
    module.seed = module._inst.seed
    module.seed()
