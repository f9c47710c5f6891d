"""The system calls that a worker may make, as a seccomp filter. Everything else is refused.

The filter is built in the host, and installed by the worker before it accepts a program (see
`worker/confinement_check.py`). It is an allow list: a call that is not named below, or that a later kernel
adds, is refused. A call of another ABI (32-bit x86) kills the process. Filters are combined and the strictest
wins, so no call that is refused here reaches sandlock's supervisor.

The list was found by running CPython 3.11 to 3.13 and its standard library: computing, reading Python's own
files, threads, pipes and event loops. Nothing in it changes anything outside the worker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import struct
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_

ALLOWED = """
    read write readv writev pread64 preadv lseek close fstat newfstatat stat lstat getdents64 getcwd
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    pipe dup dup2 dup3 recvfrom getsockname shutdown
    munmap mremap mprotect brk
    futex set_robust_list rseq sched_yield exit exit_group restart_syscall
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
    setitimer getitimer alarm
    gettimeofday time nanosleep times getrusage
    getpid getppid gettid getuid geteuid getgid getegid getrandom
"""
"""Allowed with all arguments. In this order: open files and folder listings, waiting, pipes and socket pairs,
memory, threads, signals to itself, timers, time, and information about the process."""

MISSING = "clone3 openat2 statx faccessat2 sched_getaffinity"
"""Refused as if the kernel did not have them. The C library then uses an older call, or does without."""

NUMBERS = {
    "x86_64": """
        read 0 write 1 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12
        rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 readv 19 writev 20 pipe 22 select 23
        sched_yield 24 mremap 25 madvise 28 dup 32 dup2 33 pause 34 nanosleep 35 getitimer 36 alarm 37 setitimer 38
        getpid 39 sendto 44 recvfrom 45 shutdown 48 getsockname 51 socketpair 53 getsockopt 55 clone 56 exit 60
        fcntl 72 getcwd 79 gettimeofday 96 getrusage 98 times 100 getuid 102 getgid 104 geteuid 107 getegid 108
        getppid 110 rt_sigpending 127 rt_sigtimedwait 128 rt_sigsuspend 130 sigaltstack 131 gettid 186 time 201
        futex 202 sched_getaffinity 204 getdents64 217 restart_syscall 219 clock_gettime 228 clock_getres 229
        clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233 tgkill 234 openat 257 newfstatat 262
        pselect6 270 ppoll 271 set_robust_list 273 epoll_pwait 281 epoll_create1 291 dup3 292 pipe2 293 preadv 295
        getrandom 318 statx 332 rseq 334 clone3 435 openat2 437 faccessat2 439
    """,
    "aarch64": """
        getcwd 17 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 dup 23 dup3 24 fcntl 25 ioctl 29 openat 56 close
        57 pipe2 59 getdents64 61 lseek 62 read 63 write 64 readv 65 writev 66 pread64 67 preadv 69 pselect6 72
        ppoll 73 newfstatat 79 fstat 80 exit 93 exit_group 94 futex 98 set_robust_list 99 nanosleep 101
        getitimer 102 setitimer 103 clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getaffinity 123
        sched_yield 124 restart_syscall 128 tgkill 131 sigaltstack 132 rt_sigsuspend 133 rt_sigaction 134
        rt_sigprocmask 135 rt_sigpending 136 rt_sigtimedwait 137 rt_sigreturn 139 times 153 getrusage 165
        gettimeofday 169 getpid 172 getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178
        socketpair 199 getsockname 204 sendto 206 recvfrom 207 getsockopt 209 shutdown 210 brk 214 munmap 215
        mremap 216 clone 220 mmap 222 mprotect 226 madvise 233 getrandom 278 statx 291 rseq 293 clone3 435
        openat2 437 faccessat2 439
    """,
}
"""The numbers of these calls, by architecture. A call that is not listed does not exist there."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's names for the ABIs: AUDIT_ARCH_*."""

NEWEST = 471
"""The first number that no kernel had assigned when this list was written: `file_setattr` has 469."""

LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT = 0x15, 0x35, 0x45
"""Instructions of classic BPF. Their operands are the constant `k` and, for jumps, the number of instructions
to skip."""

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`, which the kernel passes to a filter."""

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class OneOf:
    """The argument has one of these values. Only its lower half counts, because the kernel takes these
    arguments as `int`."""

    argument: int
    values: tuple[int, ...]

    def code(self, after: int) -> list[Instruction]:
        """Continue if the condition holds, else also skip the `after` instructions that follow."""
        load = (LOAD, 0, 0, ARGUMENTS + 8 * self.argument)
        count = len(self.values)
        tests = [
            (JUMP_EQUAL, count - 1 - n, after if n == count - 1 else 0, value & 0xFFFFFFFF)
            for n, value in enumerate(self.values)
        ]
        return [load, *tests]


@dataclass(frozen=True, slots=True)
class Within:
    """Only these bits of the argument's lower half may be set."""

    argument: int
    bits: int

    def code(self, after: int) -> list[Instruction]:
        """Continue if the condition holds, else also skip the `after` instructions that follow."""
        return [
            (LOAD, 0, 0, ARGUMENTS + 8 * self.argument),
            (JUMP_ANY_BIT, after, 0, ~self.bits & 0xFFFFFFFF),
        ]


@dataclass(frozen=True, slots=True)
class Has:
    """All these bits of the argument's lower half are set."""

    argument: int
    bits: int

    def code(self, after: int) -> list[Instruction]:
        """Continue if the condition holds, else also skip the `after` instructions that follow."""
        return [
            (LOAD, 0, 0, ARGUMENTS + 8 * self.argument),
            (AND, 0, 0, self.bits),
            (JUMP_EQUAL, 0, after, self.bits),
        ]


@dataclass(frozen=True, slots=True)
class Null:
    """The argument is a null pointer: both of its halves are zero."""

    argument: int

    def code(self, after: int) -> list[Instruction]:
        """Continue if the condition holds, else also skip the `after` instructions that follow."""
        return [
            (LOAD, 0, 0, ARGUMENTS + 8 * self.argument),
            (JUMP_EQUAL, 0, after + 2, 0),
            (LOAD, 0, 0, ARGUMENTS + 8 * self.argument + 4),
            (JUMP_EQUAL, 0, after, 0),
        ]


Condition = OneOf | Within | Has | Null

Alternatives = tuple[tuple[Condition, ...], ...]
"""Groups of conditions. All conditions of one of the groups must hold."""

THREAD = 0x10F00  # CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND and CLONE_THREAD
THREAD_DETAILS = 0x7C0000 | THREAD  # what the C libraries ask for besides: no namespace, no other process
STATUS = os.O_NONBLOCK | os.O_APPEND | os.O_ACCMODE
READING = ("O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_NOCTTY", "O_LARGEFILE")
DESCRIPTORS = (fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, 1030)  # F_DUPFD_CLOEXEC
TERMINALS = (0x5401, 0x802C542A, 0x5413)  # TCGETS and TCGETS2, which `isatty` asks, and TIOCGWINSZ
FLAGS = (0x5421, 0x5450, 0x5451, 0x541B)  # FIONBIO, FIONCLEX, FIOCLEX and FIONREAD
MAPPING = 0x12D933  # all flags but those for pages that are locked, huge or not counted
SIGNALS = tuple(number for number in range(65) if number != signal.SIGCONT)  # the host's stop lasts: `resting.py`
CLOCKS = tuple(range(12))  # of time, and of its own use; those of other processes have negative numbers
ADVICE = (0, 1, 2, 3, 4, 8, 14, 15)  # of its own memory: needed or not, in large pages or not

CONDITIONS: dict[str, Alternatives] = {
    "openat": ((Within(2, reduce(or_, (getattr(os, name, 0) for name in READING))),),),
    "fcntl": ((OneOf(1, DESCRIPTORS),), (OneOf(1, (fcntl.F_SETFL,)), Within(2, STATUS))),
    "ioctl": ((OneOf(1, (*FLAGS, *TERMINALS)),),),
    "mmap": ((Within(3, MAPPING),),),
    "madvise": ((OneOf(2, ADVICE),),),
    "clone": ((Has(0, THREAD), Within(0, THREAD_DETAILS)),),
    "pipe2": ((Within(1, os.O_CLOEXEC | os.O_NONBLOCK),),),
    "socketpair": ((OneOf(0, (1,)),),),  # AF_UNIX
    "getsockopt": ((OneOf(1, (1,)), OneOf(2, (3, 4, 38, 39))),),  # its type, error, protocol and family
    "sendto": ((Null(4),),),  # to the other end, to no address
    "sched_getaffinity": ((OneOf(0, (0,)),),),
    **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep"), ((OneOf(0, CLOCKS),),)),
}
"""Allowed with some arguments only: files are opened for reading, and no descriptor signals, locks or watches."""


def missing() -> str | None:
    """Return None if the filter can be built for this machine, else what is missing."""
    machine = platform.machine()
    if machine in ARCHITECTURES:
        return None
    return f"the cpython sandbox has no list of the system calls of {machine}: use sandbox='monty'"


def program(pid: int) -> bytes:
    """Return the filter of the worker with this process id. It may signal itself, except with SIGCONT, and no other
    process."""
    head, tail = _parts(platform.machine())
    itself = _rule(numbers(platform.machine())["tgkill"], ((OneOf(0, (pid,)), OneOf(2, SIGNALS)),), errno.EPERM)
    return head + _packed(itself) + tail


@cache
def numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that are named here."""
    words = NUMBERS[machine].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def allowed(machine: str) -> frozenset[int]:
    """Return the numbers of the calls that are allowed, at least with some arguments."""
    known = numbers(machine)
    return frozenset(known[name] for name in [*ALLOWED.split(), *CONDITIONS, "tgkill"] if name in known)


@cache
def _parts(machine: str) -> tuple[bytes, bytes]:
    """Return the filter before and after the rule that depends on the worker."""
    known = numbers(machine)
    head: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    for name in ALLOWED.split():
        if name in known:
            head += [(JUMP_EQUAL, 0, 1, known[name]), (RETURN, 0, 0, ALLOW)]
    refusals = {**dict.fromkeys(MISSING.split(), errno.ENOSYS), "openat": errno.EACCES}
    tail = [
        step
        for name in dict.fromkeys((*CONDITIONS, *refusals))
        for step in _rule(known[name], CONDITIONS.get(name, ()), refusals.get(name, errno.EPERM))
    ]
    tail += [
        (JUMP_AT_LEAST, 1, 0, NEWEST),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
    ]
    return _packed(head), _packed(tail)


def _rule(number: int, alternatives: Alternatives, refusal: int) -> list[Instruction]:
    """Return the rule for one call."""
    body = [step for conditions in alternatives for step in _conjunction(conditions)]
    body.append((RETURN, 0, 0, REFUSE | refusal))
    return [(JUMP_EQUAL, 0, len(body), number), *body]


def _conjunction(conditions: tuple[Condition, ...]) -> list[Instruction]:
    """Return instructions that allow the call if all conditions hold; otherwise the following ones decide."""
    code: list[Instruction] = [(RETURN, 0, 0, ALLOW)]
    for condition in reversed(conditions):
        code = [*condition.code(len(code)), *code]
    return code


def _packed(code: list[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *step) for step in code)
