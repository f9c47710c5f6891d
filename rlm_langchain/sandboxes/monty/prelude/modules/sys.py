"""What Monty's `sys` lacks, as far as there can be such a thing."""

# ruff: noqa
# mypy: ignore-errors

import sys as _sys

version = _sys.version
version_info = _sys.version_info
platform = _sys.platform
maxsize = 2**63 - 1
argv = [""]
path = []
modules = {}


class _Out:
    """Standard output."""

    def write(self, text):
        print(text, end="")
        return len(text)

    def flush(self):
        pass


stdout = _Out()
stderr = _Out()


def exit(code=None):
    raise SystemExit("the cell ended itself; the REPL goes on")


def getsizeof(value, default=0):
    return (
        49 + len(value)
        if isinstance(value, str)
        else 56 + 8 * len(value)
        if isinstance(value, (list, tuple))
        else 64
    )


def getrecursionlimit():
    return 1000


def setrecursionlimit(limit):
    pass
