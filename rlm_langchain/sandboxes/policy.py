"""What the kernel lets a worker do: which files it may read, what it may use, and how it is started.

Covered by the kernel: files (Landlock: Python's own and the context, read only), the network and other
processes (seccomp, Landlock scopes), fork (seccomp), memory, file size and descriptors (rlimits that the child
may not raise), the environment (empty). A worker of a host that is root gives up its privileges first. When the
host dies, its workers die with it.
Not covered: whether a file exists whose name a program guesses, and its size and date (`stat`); side channels;
bugs of the kernel.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.bundle import boot

BASELINE = 64 << 20
"""Bytes of address space that Python takes before a program does anything."""

FILES = 64
"""Descriptors that a worker may have open."""

DENIED = """
    fchmod fchmodat fchown fchownat utimensat setxattr lsetxattr fsetxattr removexattr lremovexattr
    fremovexattr
    inotify_init1 inotify_add_watch fanotify_init
    listen accept accept4
    kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd
    process_madvise
    memfd_create memfd_secret mlock mlock2 mlockall mq_open prlimit64 setrlimit
    setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid
    chroot settimeofday clock_settime adjtimex clock_adjtime syslog vhangup fsopen fsmount move_mount
    open_tree
    setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr sched_setaffinity move_pages
    migrate_pages
"""
"""System calls that sandlock lets through and a worker has no use for.

In this order: to change or watch files that cannot be opened, to be called from outside, to reach other
processes, memory that no limit counts and the limits themselves, and what only matters to a host that is root.
"""

DENIED_X86 = "chmod chown lchown utime utimes futimesat inotify_init modify_ldt"
"""The same for calls that newer processors no longer have."""

LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store")
"""Where the dynamic linker finds what Python is linked against."""

PROTECTIONS = {
    "files": "Landlock: Python's own and the context can be read, nothing can be written; seccomp: nothing changed",
    "network": "seccomp and Landlock: no connection, no datagram, no port, no socket of the host",
    "processes": "seccomp and Landlock: no fork, no signal to others, no tracing; it dies with its host",
    "memory": "rlimit on the address space, which ends in MemoryError; the host looks every quarter of a second",
    "time": "an alarm inside, and the host's wall clock",
    "output": "a limit inside, and one at the pipe",
    "secrets": "an empty environment, and no descriptor of the host",
    "privileges": "no_new_privs; a worker of root gives up its capabilities before it starts",
    "not covered": "that a file exists, whose name a program guesses, its size and date; faults of the kernel",
}
"""What confines a worker here, each with what enforces it: for `rlm doctor`."""


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
    return None if python() else "the cpython sandbox cannot tell which file is the Python interpreter"


def kernel() -> str:
    """What this kernel has of what a worker needs."""
    from sandlock import landlock_abi_version, min_landlock_abi

    here, needed = landlock_abi_version(), min_landlock_abi()
    return f"Linux {platform.release()}, seccomp, Landlock ABI {here} ({needed} is needed)"


def python() -> str | None:
    """The interpreter itself, not the link that a virtual environment has to it."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(executable) if executable else None


def readable(contexts: Sequence[Path]) -> list[str]:
    """The files and folders that a worker may read."""
    return [*_pythons_own(), *map(os.path.realpath, contexts)]


@cache
def _pythons_own() -> tuple[str, ...]:
    """The interpreter, its standard library, and the libraries that both are linked against."""
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix}
    base |= {"platbase": sys.base_exec_prefix, "installed_platbase": sys.base_exec_prefix}
    stdlib = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    libraries = sysconfig.get_config_var("LIBDIR") or sys.base_prefix
    shared = [] if libraries.startswith(LIBRARIES) else map(str, Path(libraries).glob("*.so*"))
    wanted = [python() or "", *stdlib, *LIBRARIES, *shared]
    return tuple(dict.fromkeys(path for path in wanted if os.path.exists(path)))


def hidden(paths: list[str]) -> list[str]:
    """What lies inside the readable folders and is none of a worker's business: other people's packages."""
    inside = [os.path.join(path, name) for path in paths for name in ("site-packages", "dist-packages")]
    return [path for path in (*inside, "/usr/lib/python3/dist-packages") if os.path.isdir(path)]


def policy(contexts: Sequence[Path]) -> Any:
    """Everything that sandlock is told."""
    from sandlock import Sandbox

    paths = readable(contexts)
    return Sandbox(
        fs_readable=paths,
        fs_denied=hidden(paths),
        extra_deny_syscalls=(DENIED + DENIED_X86 * (platform.machine() == "x86_64")).split(),
        max_processes=1,
        no_coredump=True,
        no_randomize_memory=True,
        clean_env=True,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
    )


def started(contexts: Sequence[Path], memory: int) -> Any:
    """A confined `python` that waits for its code, with pipes for 0, 1 and 2. Raises `SandboxError`."""
    from sandlock import StdioMode

    command = [python() or "", "-s", "-S", "-P", "-c", boot()]
    try:
        process = _starter(os.getpid()).submit(policy(contexts).popen, command, *[StdioMode.PIPED] * 3).result()
    except (RuntimeError, OSError, ValueError) as error:
        raise SandboxError(_not_started(error)) from error
    limit(process.pid, memory)
    return process


@cache
def _starter(pid: int) -> ThreadPoolExecutor:
    """A thread that lives as long as this process: the kernel ends a worker with the thread that started it."""
    return ThreadPoolExecutor(1, thread_name_prefix="rlm-starter")


def limit(pid: int | None, memory: int) -> None:
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
