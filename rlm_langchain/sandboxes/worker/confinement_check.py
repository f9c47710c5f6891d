"""Gives up system calls before a program's code arrives, and checks that this process is confined."""

from __future__ import annotations

import os

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

INSTRUCTION = 8
"""Size of an instruction of a seccomp filter, in bytes."""


def give_up(program: bytes) -> str | None:
    """Give up all system calls that the filter does not allow.

    Return what this process can still do and must not, or None if all is well.
    """
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return _without_other_calls(program)
    return "this process is not confined: it can read the root folder"


def _without_other_calls(program: bytes) -> str | None:
    try:
        _install(program)
    except (ImportError, OSError) as error:
        return f"this process is not confined: its filter of system calls was not taken ({error})"
    try:
        os.getpgid(0)
    except PermissionError:
        return None
    return "this process is not confined: system calls that no worker needs are let through"


def _install(program: bytes) -> None:
    """Have the kernel refuse permanently what the filter does not allow. Raises `OSError`.

    It uses `_ctypes` directly: `ctypes` would take another 3 ms of a worker's start.
    """
    import _ctypes

    class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "B"

    class Filter(_ctypes.Array):  # type: ignore[type-arg]
        _type_, _length_ = Byte, len(program)

    code = Filter.from_buffer_copy(program)
    count, address = len(program) // INSTRUCTION, _ctypes.addressof(code)
    prog = count.to_bytes(8, "little") + address.to_bytes(8, "little")  # struct sock_fprog: a number, a pointer
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    result = _ctypes.call_function(prctl, (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prog))
    if result != 0:
        raise OSError(f"prctl returned {result}")
