"""What the kernel lets a worker do: which files it may read, what it may use, and how it is started.

Covered by the kernel: system calls (seccomp: an allow list, see `syscalls.py`), files (Landlock: Python's own
and the context, read only), the network and other processes (seccomp, Landlock scopes), fork (seccomp), memory,
file size and descriptors (rlimits that the child cannot raise), the environment (nothing of the host's). The
launcher drops the privileges of root first. `watchdog.py` ends the workers with their host.

Not covered: whether a file with a guessed name exists, and its size, date, owner and mode (the C library uses
`stat` for open files, too, in a form that seccomp cannot distinguish); side channels; bugs of the kernel.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rlm_langchain.sandboxes.cpython import syscalls

BASELINE = 64 << 20
"""Bytes of address space that Python uses before a program does anything."""

FILES = 64
"""Number of descriptors that a worker may have open."""

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
"""System calls that sandlock allows but a worker never needs.

They are refused from its first instruction on. Before a program arrives, the allow list of `syscalls.py` is
added, which decides what the program may call.

In this order: changing or watching files that cannot be opened, being called from outside, reaching other
processes, memory that no limit counts and the limits themselves, and calls that only matter if the host is
root.
"""

DENIED_X86 = "chmod chown lchown utime utimes futimesat inotify_init modify_ldt"
"""The same for calls that only older architectures have."""

LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/nix/store")
"""Where the dynamic linker finds the libraries that Python is linked against."""

LINKER_CACHE = "/etc/ld.so.cache"
"""The linker's list of libraries. Without it the linker tries one folder after the other, 2 ms of a worker's
start."""

INVENTED = ("/proc", "/etc/hosts", "/etc/hostname")
"""Files that sandlock would emulate, bypassing Landlock: mounts, load, host names."""

ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C",
    "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
}
"""The whole environment of a worker. Hashes and texts are the same everywhere, and Python need not search for
itself and for locales: each file that it looks for costs 0.1 ms under the supervisor."""

PROTECTIONS = {
    "system calls": "seccomp: an allow list; what it does not name, and what a later kernel brings, is refused",
    "files": "Landlock: Python's own and the context can be read, nothing can be written; seccomp: nothing changed",
    "network": "seccomp and Landlock: no connection, no datagram, no port, no socket of the host",
    "processes": "seccomp and Landlock: no fork, no signal to others, no tracing; it dies with its host",
    "memory": "rlimit on the address space, which ends in MemoryError; the host looks 30 times a second",
    "time": "an alarm inside, and the host's wall clock; what computes while no cell runs is stopped",
    "output": "a limit inside, and one at the pipe",
    "secrets": "an empty environment, and no descriptor of the host",
    "privileges": "no_new_privs; what starts the workers of a host that is root gives up its capabilities first",
    "not covered": "whether a file exists whose name is guessed, its size, date, owner, mode; faults of the kernel",
}
"""The protections of a worker, each with what enforces it, for `rlm doctor`."""


def missing() -> str | None:
    """Return None if this machine can confine a worker fully, else what is missing and what to do."""
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
    if (lacking := syscalls.missing()) is not None:
        return lacking
    return None if python() else "the cpython sandbox cannot tell which file is the Python interpreter"


def kernel() -> str:
    """Return which of the required features this kernel has."""
    from sandlock import landlock_abi_version, min_landlock_abi

    here, needed = landlock_abi_version(), min_landlock_abi()
    return f"Linux {platform.release()}, seccomp, Landlock ABI {here} ({needed} is needed)"


def python() -> str | None:
    """Return the interpreter itself, not a virtual environment's link to it."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(executable) if executable else None


def readable(contexts: Sequence[Path]) -> list[str]:
    """Return the files and folders that a worker may read."""
    return [*_pythons_own(), *map(os.path.realpath, contexts)]


@cache
def _pythons_own() -> tuple[str, ...]:
    """Return the interpreter, its standard library, and the libraries that both are linked against."""
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix}
    base |= {"platbase": sys.base_exec_prefix, "installed_platbase": sys.base_exec_prefix}
    stdlib = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    libraries = sysconfig.get_config_var("LIBDIR") or sys.base_prefix
    shared = [] if libraries.startswith(LIBRARIES) else map(str, Path(libraries).glob("*.so*"))
    wanted = [python() or "", *stdlib, *LIBRARIES, LINKER_CACHE, *shared]
    return tuple(dict.fromkeys(path for path in wanted if os.path.exists(path)))


def hidden(paths: list[str]) -> list[str]:
    """Return what a worker must not see inside the readable folders: other people's packages."""
    inside = [os.path.join(path, name) for path in paths for name in ("site-packages", "dist-packages")]
    return [path for path in (*inside, "/usr/lib/python3/dist-packages", *INVENTED) if os.path.exists(path)]


def policy(contexts: Sequence[Path]) -> dict[str, Any]:
    """Return all settings for sandlock: the fields of its `Sandbox`."""
    paths = readable(contexts)
    return {
        "fs_readable": paths,
        "fs_denied": hidden(paths),
        "extra_deny_syscalls": (DENIED + DENIED_X86 * (platform.machine() == "x86_64")).split(),
        "max_processes": 1,
        "no_coredump": True,
        "no_randomize_memory": True,
        "clean_env": True,
        "env": ENVIRONMENT,
        "cwd": "/",
    }


def limits(memory: int) -> dict[str, int]:
    """Return the kernel's limits, by their names in `resource`."""
    return {"RLIMIT_AS": memory + BASELINE, "RLIMIT_NOFILE": FILES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
