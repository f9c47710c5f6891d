"""What the kernel lets a worker do: which files it may read, what it may use, and how it is started.

Covered by the kernel: files (Landlock: Python's own and the context, read only), the network and other
processes (seccomp, Landlock scopes), fork (seccomp), memory and file size (rlimits that the child may not
raise), the environment (empty). When the host dies, its children die with it.
Not covered: the names and sizes of files that a program guesses (`stat`), side channels, bugs of the kernel.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import sysconfig
from pathlib import Path
from typing import Any

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.bundle import boot

BASELINE = 64 << 20
"""Bytes of address space that Python takes before a program does anything."""

FILES = 64
"""Descriptors that a worker may have open."""

DENIED = ("memfd_create", "pidfd_open", "prlimit64", "setrlimit")
"""System calls that sandlock allows and a worker has no use for: memory that no limit counts, and the limits."""

LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store")
"""Where the dynamic linker finds what Python is linked against."""


def missing() -> str | None:
    """None when this machine can confine a worker fully, else what is missing and what to do."""
    if sys.platform != "linux":
        return f"the cpython sandbox needs Linux, and this is {platform.system()}: use sandbox='monty'"
    try:
        from sandlock import landlock_abi_version, min_landlock_abi
    except (ImportError, OSError) as error:
        return f"the cpython sandbox needs sandlock ({error}): pip install sandlock, or use sandbox='monty'"
    here, needed = landlock_abi_version(), min_landlock_abi()
    if here < needed:
        return (
            f"the cpython sandbox needs Landlock ABI {needed} (Linux 6.12, with landlock in the boot option lsm=), "
            f"and this kernel ({platform.release()}) has {max(here, 0)}: use sandbox='monty'"
        )
    return None if _python() else "the cpython sandbox cannot tell which file is the Python interpreter"


def _python() -> str | None:
    """The interpreter itself, not the link that a virtual environment has to it."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(executable) if executable else None


def readable(context: Path | None) -> list[str]:
    """The files and folders that a worker may read."""
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix}
    base |= {"platbase": sys.base_exec_prefix, "installed_platbase": sys.base_exec_prefix}
    stdlib = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    shared = sysconfig.get_config_var("LDLIBRARY") or ""
    library = os.path.join(sysconfig.get_config_var("LIBDIR") or "", shared)
    wanted = [_python(), *stdlib, library, *LIBRARIES, None if context is None else os.path.realpath(context)]
    return list(dict.fromkeys(path for path in wanted if path and os.path.exists(path)))


def hidden(paths: list[str]) -> list[str]:
    """What lies inside the readable folders and is none of a worker's business: other people's packages."""
    inside = [os.path.join(path, name) for path in paths for name in ("site-packages", "dist-packages")]
    return [path for path in inside if os.path.isdir(path)]


def policy(context: Path | None) -> Any:
    """Everything that sandlock is told."""
    from sandlock import Sandbox

    paths = readable(context)
    return Sandbox(
        fs_readable=paths,
        fs_denied=hidden(paths),
        extra_deny_syscalls=list(DENIED),
        max_processes=1,
        no_coredump=True,
        no_randomize_memory=True,
        clean_env=True,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
    )


def started(context: Path | None, memory: int) -> Any:
    """A confined `python` that waits for its code, with pipes for 0, 1 and 2. Raises `SandboxError`."""
    from sandlock import StdioMode

    command = [_python() or "", "-s", "-S", "-P", "-c", boot()]
    try:
        process = policy(context).popen(command, *[StdioMode.PIPED] * 3)
    except (RuntimeError, OSError, ValueError) as error:
        raise SandboxError(_not_started(error)) from error
    _limit(process.pid, memory)
    return process


def _limit(pid: int | None, memory: int) -> None:
    """The limits of the kernel, set from outside before any of the program's code has arrived."""
    limits = {
        resource.RLIMIT_AS: memory + BASELINE,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended already: its pipes will tell
            resource.prlimit(pid or -1, kind, (most, most))


def _not_started(error: Exception) -> str:
    """Why no worker could be started, as far as it can be told."""
    opened, most = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if opened + 16 > most:
        return (
            f"no sandbox could be started: {opened} of {most} file descriptors are open (raise it with ulimit -n)"
        )
    return f"no sandbox could be started: {error} (is there memory, and may this user start processes?)"
