"""Each layer of the cpython sandbox holds alone, and would be missed: without it, the same attempt succeeds."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

from sandlock import Sandbox, StdioMode

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import launcher_process, policy, syscalls
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.worker import confinement_check
from rlm_langchain.types import Completed, Limits

ATTEMPT = """
import ctypes, errno, os, socket, sys
call = ctypes.CDLL(None, use_errno=True)
call.syscall.restype = ctypes.c_long

def system(number, *args):
    if call.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "system call")

try:
    {attempt}
except OSError as error:
    print(errno.errorcode[error.errno])
except ValueError as error:
    print(error)
else:
    print("done")
"""

REFUSED = {"EACCES", "EPERM", "EAGAIN", "ENOSYS", "EXDEV", "not allowed to raise maximum limit"}


def confined(code: str) -> str:
    """What a program prints under sandlock's policy, without our worker and our limits."""
    process = Sandbox(**policy.policy([])).popen(
        [policy.python(), "-I", "-S", "-c", code], StdioMode.NULL, StdioMode.PIPED, StdioMode.PIPED
    )
    with process:
        return (process.stdout.readall() + process.stderr.readall()).decode().strip()


def unconfined(code: str) -> str:
    """What it prints without any policy."""
    command = [policy.python(), "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


FILES = {
    "read a file": "open('{folder}/file').read()",
    "list a folder": "os.listdir('{folder}')",
    "list the root": "os.listdir('/')",
    "read the list of users": "open('/etc/passwd').read()",
    "read the environment of its parent": "open(f'/proc/{{os.getppid()}}/environ', 'rb').read()",
    "read its own memory map": "open('/proc/self/maps').read()",
    "write a file": "open('{folder}/new', 'w')",
    "write to a file": "open('{folder}/file', 'a')",
    "make a folder": "os.mkdir('{folder}/made')",
    "make a link": "os.symlink('/', '{folder}/link')",
    "make a hard link": "os.link('{folder}/file', '{folder}/hard')",
    "rename a file": "os.rename('{folder}/file', '{folder}/other')",
    "delete a file": "os.unlink('{folder}/file')",
    "delete a folder": "os.rmdir('{folder}/empty')",
    "truncate a file": "os.truncate('{folder}/file', 0)",
    "change the mode of a file": "os.chmod('{folder}/file', 0o777)",
    "change the owner of a file": "os.chown('{folder}/file', -1, -1)",
    "add an attribute to a file": "os.setxattr('{folder}/file', 'user.x', b'x')",
    "change the times of a file": "os.utime('{folder}/file')",
    "make a pipe with a name": "os.mkfifo('{folder}/fifo')",
    "write to shared memory": "open('/dev/shm/rlm-test', 'w').close(); os.unlink('/dev/shm/rlm-test')",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("secret")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("attempt", FILES)
def test_the_kernel_refuses_to_look_or_touch(attempt, folder):
    code = ATTEMPT.format(attempt=FILES[attempt].format(folder=folder))
    before = sorted(os.listdir(folder))
    assert confined(code) in REFUSED
    assert sorted(os.listdir(folder)) == before
    assert unconfined(code) == "done"


def test_the_packages_of_others_cannot_be_read(tmp_path):
    hidden = policy.hidden(policy.readable([]))
    if not hidden:
        pytest.skip("this Python has no packages of its own")
    code = ATTEMPT.format(attempt=f"os.listdir({hidden[0]!r})")
    assert confined(code) in REFUSED
    assert unconfined(code) == "done"


def test_the_context_can_be_read_and_not_written(folder):
    process = Sandbox(**policy.policy([folder / "file"])).popen(
        [
            policy.python(),
            "-I",
            "-S",
            "-c",
            f"print(open('{folder}/file').read()); open('{folder}/file', 'a')",
        ],
        StdioMode.NULL,
        StdioMode.PIPED,
        StdioMode.PIPED,
    )
    with process:
        assert process.stdout.readall() == b"secret\n"
        assert b"PermissionError" in process.stderr.readall()


CALLS = {
    "connect to a port": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "send a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listen on a port": "socket.create_server(('127.0.0.1', 0))",
    "listen on any port": "socket.socket().listen()",
    "connect to a socket file": "socket.socket(socket.AF_UNIX).connect('{folder}/socket')",
    "connect to an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0rlm-{port}')",
    "fork": "os.fork() or os._exit(0)",
    "start a program": "os.posix_spawn(sys.executable, [sys.executable, '-c', ''], {{}})",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "trace": "system(101, 0, 0, 0, 0)",
    "make a memory file": "os.memfd_create('x')",
    "lock memory": "system(151, 1)",
    "hold another process": "os.pidfd_open(os.getppid())",
    "leave its namespace": "system(272, 0)",
    "raise its limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))"
    ),
}

PROBES = {
    "set up io_uring": "system(425, 1, 0)",
    "read another's memory": "system(310, os.getppid(), 0, 0, 0, 0, 0)",
    "load a bpf program": "system(321, 5, 0, 0)",
    "handle page faults": "system(323, 1 << 30)",
    "mount": "system(165, 0, 0, 0, 0, 0)",
    "set the clock": "system(164, 1, 1)",
    "watch files": "system(254, -1, 0, 0)",
    "change its root": "system(161, 0)",
    "use the key ring": "system(250, 99, 0, 0, 0, 0)",
}

X86 = os.uname().machine == "x86_64"


@pytest.fixture
def port(folder):
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as file,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port = tcp.getsockname()[1]
        file.bind(f"{folder}/socket")
        abstract.bind(f"\0rlm-{port}")
        file.listen()
        abstract.listen()
        yield port


@pytest.mark.parametrize("attempt", CALLS)
def test_the_kernel_refuses_to_reach_out(attempt, folder, port):
    if "system(" in CALLS[attempt] and not X86:
        pytest.skip("the numbers of system calls are those of x86-64")
    code = ATTEMPT.format(attempt=CALLS[attempt].format(folder=folder, port=port))
    assert confined(code) in REFUSED
    assert unconfined(code) == "done"


@pytest.mark.skipif(not X86, reason="the numbers of system calls are those of x86-64")
@pytest.mark.parametrize("attempt", PROBES)
def test_seccomp_does_not_even_let_the_kernel_look_at_an_attempt_to(attempt):
    """The arguments are nonsense on purpose: an error other than "not permitted" means that it came through."""
    assert confined(ATTEMPT.format(attempt=PROBES[attempt])) in {"EPERM", "EACCES", "ENOSYS"}


def limited(code: str, memory: int) -> str:
    """What a program prints under our limits, without sandlock."""
    command = [policy.python(), "-I", "-S", "-c", "import sys; sys.stdin.read(); " + code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        launcher_process.limit(process.pid, policy.limits(memory))
        out, error = process.communicate("")
    return out.strip() or error.strip().splitlines()[-1]


def test_memory_ends_in_a_memory_error():
    assert limited("x = bytearray(100 << 20); print(len(x) >> 20)", 200 << 20) == "100"
    assert limited("x = bytearray(300 << 20)", 200 << 20) == "MemoryError"
    assert limited("import mmap; mmap.mmap(-1, 300 << 20)", 200 << 20).endswith("Cannot allocate memory")


def test_descriptors_are_few():
    assert limited("import os; [os.dup(1) for _ in range(40)]; print('done')", 200 << 20) == "done"
    assert limited("import os; [os.dup(1) for _ in range(100)]", 200 << 20).endswith("Too many open files")


def test_no_file_can_grow(tmp_path):
    code = f"file = open({str(tmp_path / 'x')!r}, 'w'); file.write('x'); file.flush()"
    assert limited(code, 200 << 20).endswith("File too large")


def test_threads_are_limited_by_memory():
    code = """
import threading
gate, count = threading.Event(), 0
try:
    while True:
        threading.Thread(target=gate.wait, daemon=True).start()
        count += 1
except RuntimeError:
    print(count < 100)
gate.set()
"""
    assert limited(f"exec({code!r})", 200 << 20) == "True"


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("RLM_CANARY_KEY", "secret")
    assert confined("import os; print(sorted(os.environ))") == str(
        ["LC_ALL", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONUTF8"]
    )
    assert "RLM_CANARY_KEY" in unconfined("import os; print(sorted(os.environ))")


def test_no_descriptor_of_the_host_is_inherited():
    with open(sys.executable, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        code = """
import os
for fd in range(3, 256):
    try:
        os.fstat(fd)
        print(fd)
    except OSError:
        pass
print('end')
"""
        assert confined(code) == "end"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has powers to give up")
def test_a_worker_of_root_has_no_powers_left():
    session = CPythonSandbox().open(None, "", Limits())
    status = Path(f"/proc/{session._worker.pid}/status").read_text().splitlines()
    session.close()
    powers = {
        name: int(value, 16) for name, value in (line.split(":") for line in status if line.startswith("Cap"))
    }
    assert {name: value & ~4 for name, value in powers.items()} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )


# --- The allow list of system calls, alone ------------------------------------------------------------

FILTERED = f"""
import ctypes, sys
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
names = {{"__name__": "privileges"}}
exec(open({confinement_check.__file__!r}).read(), names)
names["_install"](sys.stdin.buffer.read())
"""


def filtered(code: str, change=bytes) -> str:
    """What a program prints under the allow list, without sandlock and without limits."""
    command = [policy.python(), "-I", "-S", "-c", FILTERED + f"exec({code!r}, {{'__name__': 'x'}})"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        out, error = process.communicate(change(syscalls.program(process.pid)))
    return (out or error).decode().strip()


CHANGES = {
    "change a mode by the newest call": "system(452, -100, path, 0o640, 0)",
    "change the mode of the folder": "os.chmod('{folder}', 0o750)",
    "change an owner by number": "system({fchownat}, -100, path, -1, -1, 0)",
    "change times by number": "system({utimensat}, -100, path, None, 0)",
    "add an attribute": "os.setxattr(path, 'user.x', b'1')",
    "add an attribute by the newest call": "system(463, -100, path, 0, b'user.x', value, SIZE)",
    "remove an attribute": "os.removexattr(path, 'user.kept')",
    "remove an attribute by the newest call": "system(466, -100, path, 0, b'user.kept')",
    "change flags": "from fcntl import ioctl; f = open(path); ioctl(f, 0x40086602, ioctl(f, 0x80086601, bytes(8)))",
    "change flags by the newest call": "system(469, -100, path, numbers(*[0] * 8), 24, 0)",
    "make a hard link": "os.link(path, '{folder}/hard')",
    "make a symbolic link": "os.symlink(path, '{folder}/soft')",
    "move a file": "os.rename(path, path + b'2'); os.rename(path + b'2', path)",
    "make a message queue": "call.mq_open(queue + b'x', os.O_CREAT, 0o600, None) >= 0 or fail()",
    "remove a message queue": "call.mq_unlink(queue) == 0 or fail()",
    "make shared memory": "call.shmctl(call.shmget(0, 100, 0o1600), 0, None) == 0 or fail()",
    "make a queue of System V": "call.msgctl(call.msgget(0, 0o1600), 0, None) == 0 or fail()",
    "make semaphores": "call.semctl(call.semget(0, 1, 0o1600), 0, 0) == 0 or fail()",
    "write a file": "open(path, 'a')",
    "read and write a file": "open(path, 'r+')",
    "hold a path": "os.open(path, os.O_PATH)",
    "write back a file": "f = open(path); os.fsync(f.fileno())",
    "lock a file": "import fcntl; fcntl.flock(open(path), fcntl.LOCK_EX)",
    "lock a part of a file": "import fcntl; fcntl.lockf(open(path), fcntl.LOCK_SH)",
    "lease a file": "import fcntl; fcntl.fcntl(open(path), 1024, fcntl.F_RDLCK)",
    "be told of a folder": "import fcntl; fcntl.fcntl(os.open('{folder}', 0), 1026, 4)",
    "have a signal sent": "import fcntl; fcntl.fcntl(open(path), fcntl.F_SETOWN, os.getpid())",
    "have its input signalled": "import fcntl; fcntl.fcntl(os.pipe()[0], fcntl.F_SETFL, 0o20000)",
}
"""Each is refused by the allow list alone, and done without it."""

READS = {
    "read an attribute": "os.getxattr(path, 'user.kept')",
    "list attributes": "os.listxattr(path)",
    "read an attribute by the newest call": "system(464, -100, path, 0, b'user.kept', value, SIZE)",
    "read where a link points": "os.readlink('{folder}/link')",
    "read the size of a file system": "os.statvfs(path)",
    "list mounts by the newest call": "system(458, numbers(24, 2**64 - 1, 0), numbers(*[0] * 9), 9, 0)",
    "read the name of the host": "os.uname()",
    "read the load": "call.sysinfo(ctypes.create_string_buffer(512)) == 0 or fail()",
    "use the key ring": "system({keyctl}, 6, -3, None, 0)",
    "read its limits": "import resource; resource.getrlimit(0)",
}

ELSEWHERE = {
    "fork": "os.fork() or os._exit(0)",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "signal a thread of its parent": "system({tgkill}, os.getppid(), os.getppid(), 0)",
    "outlive its host": "call.prctl(1, 0, 0, 0, 0) == 0 or fail()",
    "open a socket": "socket.socket()",
    "open a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "open a socket with a name": "socket.socket(socket.AF_UNIX)",
    "send a descriptor": "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])",
    "set a priority": "os.nice(0)",
    "change its folder": "os.chdir('/')",
    "lock memory": "call.mlock(value, 1) == 0 or fail()",
    "map locked memory": "import mmap; mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x2000)",
    "watch files": "call.inotify_init() >= 0 or fail()",
    "see how much its parent has computed": "call.clock_gettime(~os.getppid() << 3 | 2, value) == 0 or fail()",
    "see that its parent is there": "call.clock_getres(~os.getppid() << 3 | 2, value) == 0 or fail()",
    "make a timer": "call.timerfd_create(0, 0) >= 0 or fail()",
}

ORDINARY = {
    "read a file": "open(path).read() == 'secret' or fail()",
    "list a folder": "os.listdir('{folder}')",
    "import modules": "import asyncio, decimal, json, sqlite3, statistics, zlib",
    "start a thread": "import threading; t = threading.Thread(target=print, args=('',)); t.start(); t.join()",
    "run an event loop": "import asyncio; asyncio.run(asyncio.to_thread(len, ''))",
    "use a pair of sockets": "a, b = socket.socketpair(); a.send(b'x'); b.recv(1); a.setblocking(False)",
    "map a file": "import mmap; mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ)[0]",
    "signal itself": "import signal; signal.signal(10, lambda *_: None); signal.raise_signal(10)",
    "ring an alarm": "import signal as s; s.signal(14, lambda *_: None); s.setitimer(0, 0.01, 0.01); s.pause()",
    "call back from C": "ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(abs)(-1)",
    "ask for all clocks": "import time; [time.clock_gettime(n) for n in range(8)]; time.thread_time()",
    "ask for its own use": "import resource; resource.getrusage(resource.RUSAGE_SELF)",
}

NUMBERS = (
    {"fchownat": 260, "utimensat": 280, "keyctl": 250, "tgkill": 234}
    if X86
    else {"fchownat": 54, "utimensat": 88, "keyctl": 219, "tgkill": 131}
)

FAIL = """
def fail():
    raise OSError(ctypes.get_errno(), "call")

class Arguments(ctypes.Structure):
    _fields_ = [("value", ctypes.c_uint64), ("size", ctypes.c_uint32), ("flags", ctypes.c_uint32)]

buffer = ctypes.create_string_buffer(b"value", 256)
SIZE = ctypes.c_long(16)
value = ctypes.byref(Arguments(ctypes.addressof(buffer), 5, 0))
path, queue = {path!r}, {queue!r}

def numbers(*values):
    return (ctypes.c_uint64 * len(values))(*values)
"""


@pytest.fixture
def attempt(folder):
    """The code of an attempt on this folder, and on a message queue."""
    os.setxattr(folder / "file", "user.kept", b"x")
    os.symlink("secret", folder / "link")
    queue, libc = b"/rlm-" + os.urandom(8).hex().encode(), ctypes.CDLL(None)
    os.close(libc.mq_open(queue, os.O_CREAT | os.O_RDWR, 0o600, None))
    start, end = ATTEMPT.split("try:", 1)
    start += FAIL.format(path=os.fsencode(folder / "file"), queue=queue)
    yield lambda line: start + "try:" + end.format(attempt=line.format(folder=folder, **NUMBERS))
    for name in (queue, queue + b"x"):
        libc.mq_unlink(name)


@pytest.mark.parametrize("what", [*CHANGES, *READS, *ELSEWHERE])
def test_the_allow_list_alone_refuses_to(what, attempt):
    code = attempt({**CHANGES, **READS, **ELSEWHERE}[what])
    assert filtered(code) in {"EPERM", "EACCES", "ENOSYS"}
    assert unconfined(code) == "done"


@pytest.mark.parametrize("what", ORDINARY)
def test_the_allow_list_lets_a_program(what, attempt):
    assert filtered(attempt(ORDINARY[what])) == "done"


def test_the_allow_list_changes_nothing_that_it_refuses(attempt, folder):
    def seen():
        status = os.stat(folder / "file")
        return status.st_mode, status.st_nlink, status.st_ctime_ns, os.listxattr(folder / "file")

    before = seen()
    for line in CHANGES.values():
        filtered(attempt(line))
    assert seen() == before


OWN_REFUSAL = 130
"""An error number that no system call of the kernel gives back here: EOWNERDEAD."""

SWEEP = """
import ctypes, json
call = ctypes.CDLL(None, use_errno=True).syscall
call.restype = ctypes.c_long
passed = []
for number in {numbers}:
    ctypes.set_errno(0)
    result = call(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    if (result, ctypes.get_errno()) != (-1, {refusal}):
        passed.append(number)
print(json.dumps(passed))
"""

UNFILTERED = {335, 336} if X86 else set()
"""What uprobes put into programs, which seccomp is not asked about: the kernel takes them from nowhere else."""


def test_every_system_call_but_those_of_the_list_is_refused():
    """Known or not. The filter's own refusals are marked, so that none of the kernel's is taken for one."""

    def marked(program: bytes) -> bytes:
        steps = struct.iter_unpack("=HBBI", program)
        kinds = {
            (syscalls.RETURN, syscalls.REFUSE | number) for number in (errno.EPERM, errno.ENOSYS, errno.EACCES)
        }
        return b"".join(
            struct.pack("=HBBI", code, t, f, syscalls.REFUSE | OWN_REFUSAL if (code, k) in kinds else k)
            for code, t, f, k in steps
        )

    let = syscalls.allowed(os.uname().machine)
    numbers = [
        n for n in [*range(1024), 4095, 1 << 20, 0x3FFFFFFF, 0x40000000, 0x40000001, 0x7FFFFFFF] if n not in let
    ]
    out = filtered(SWEEP.format(numbers=sorted(set(numbers) - UNFILTERED), refusal=OWN_REFUSAL), change=marked)
    assert json.loads(out) == []
    out = filtered(SWEEP.format(numbers=[39 if X86 else 172, 1 << 20], refusal=OWN_REFUSAL), change=marked)
    assert json.loads(out) == [39 if X86 else 172], "getpid is let through: the sweep can fail"


def verdict(program: bytes, number: int, arguments=(), architecture=None) -> int:
    """What the kernel would do, by running the filter here."""
    machine = os.uname().machine
    data = struct.pack(
        "=iIQ6Q",
        number,
        syscalls.ARCHITECTURES[machine] if architecture is None else architecture,
        0,
        *[n & (1 << 64) - 1 for n in [*arguments, *[0] * 6][:6]],
    )
    steps, at, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, then, other, k = steps[at]
        match code:
            case syscalls.LOAD:
                value = int.from_bytes(data[k : k + 4], sys.byteorder)
            case syscalls.AND:
                value &= k
            case syscalls.RETURN:
                return k
            case syscalls.JUMP_EQUAL:
                at += then if value == k else other
            case syscalls.JUMP_AT_LEAST:
                at += then if value >= k else other
            case syscalls.JUMP_ANY_BIT:
                at += then if value & k else other
        at += 1


@pytest.mark.parametrize("architecture", [0x40000003, 0x40000028, 0xC0000016, 0, 0xFFFFFFFF])
def test_a_call_of_another_abi_ends_the_process(architecture):
    for number in range(600):
        assert verdict(syscalls.program(1), number, architecture=architecture) == syscalls.KILL


CLOCK_CALLS = ("clock_gettime", "clock_getres", "clock_nanosleep")

ARGUMENTS = [
    ("openat", (-100, 0, os.O_RDONLY | os.O_CLOEXEC), True),
    ("openat", (-100, 0, os.O_WRONLY), False),
    ("openat", (-100, 0, os.O_RDWR), False),
    ("openat", (-100, 0, os.O_CREAT), False),
    ("openat", (-100, 0, os.O_TRUNC), False),
    ("openat", (-100, 0, os.O_TMPFILE), False),
    ("openat", (-100, 0, os.O_PATH), False),
    ("openat", (-100, 0, 3), False),
    ("openat", (-100, 0, os.O_RDONLY | 1 << 32), True),  # the kernel takes an int
    ("openat", (-100, 0, os.O_WRONLY | 1 << 32), False),
    ("clone", (0x3D0F00,), True),
    ("clone", (17,), False),
    ("clone", (0x4100 | 17,), False),  # vfork
    ("clone", (0x3D0F00 | 17,), False),
    ("clone", (0x3D0F00 & ~0x10000,), False),
    *[("clone", (0x3D0F00 | space,), False) for space in (0x80, *(1 << bit for bit in (13, 17, *range(24, 32))))],
    ("tgkill", (4711, 1, 9), True),
    ("tgkill", (4712, 1, 9), False),
    ("tgkill", (-1, 1, 9), False),
    ("tgkill", (4711, 1, 18), False),  # SIGCONT: what the host has stopped stays stopped
    ("tgkill", (4711, 1, 18 | 1 << 32), False),
    ("tgkill", (4711, 1, 64), True),
    ("ioctl", (0, 0x5401), True),
    *[("ioctl", (0, request), False) for request in (0x5412, 0x541C, 0x40086602, 0x5452, 0x8901, 0x40049409)],
    ("fcntl", (0, 1), True),
    ("fcntl", (0, 4, os.O_NONBLOCK), True),
    ("fcntl", (0, 4, 0o20000), False),
    *[("fcntl", (0, command), False) for command in (5, 6, 7, 8, 9, 10, 15, 37, 38, 1024, 1026, 1031, 1033)],
    ("mmap", (0, 1, 7, 0x22), True),
    *[("mmap", (0, 1, 7, 0x22 | flag), False) for flag in (0x2000, 0x40000, 8)],
    ("madvise", (0, 1, 4), True),
    *[("madvise", (0, 1, advice), False) for advice in (9, 12, 100, 101)],
    ("sendto", (0, 0, 0, 0, 0), True),
    ("sendto", (0, 0, 0, 0, 4096), False),
    ("sendto", (0, 0, 0, 0, 1 << 32), False),
    ("socketpair", (1,), True),
    ("socketpair", (16,), False),
    ("pipe2", (0, os.O_CLOEXEC), True),
    ("pipe2", (0, os.O_EXCL), False),  # a queue of notifications
    ("sched_getaffinity", (0,), True),
    ("sched_getaffinity", (1,), False),
    *[(name, (clock,), True) for name in CLOCK_CALLS for clock in range(12)],
    *[(name, (clock,), False) for name in CLOCK_CALLS for clock in (-1, ~1 << 3 | 2, ~1 << 3 | 6, 12, ~5 << 3 | 3)],
]


@pytest.mark.parametrize(("name", "arguments", "fine"), ARGUMENTS)
def test_what_the_filter_says_to_arguments(name, arguments, fine):
    number = syscalls.numbers(os.uname().machine)[name]
    assert (verdict(syscalls.program(4711), number, arguments) == syscalls.ALLOW) is fine


@pytest.mark.parametrize("machine", syscalls.ARCHITECTURES)
def test_the_filter_of_each_machine_names_what_it_allows(machine, monkeypatch):
    monkeypatch.setattr(syscalls.platform, "machine", lambda: machine)
    known, let = syscalls.numbers(machine), syscalls.allowed(machine)
    assert len(set(known.values())) == len(known)
    assert set(known) <= {
        *syscalls.ALLOWED.split(),
        *syscalls.CONDITIONS,
        *syscalls.MISSING.split(),
        "tgkill",
    }
    program, architecture = syscalls.program(7), syscalls.ARCHITECTURES[machine]
    plain = {known[name] for name in syscalls.ALLOWED.split() if name in known}
    for number in range(1024):
        said = verdict(program, number, architecture=architecture)
        assert (said == syscalls.ALLOW) >= (number in plain)
        assert said != syscalls.ALLOW or number in let
        assert said in {
            syscalls.ALLOW,
            *(syscalls.REFUSE | n for n in (errno.EPERM, errno.EACCES, errno.ENOSYS)),
        }
    assert verdict(program, 2000, architecture=architecture) == syscalls.REFUSE | errno.ENOSYS


ALL = struct.pack("=HBBI", syscalls.RETURN, 0, 0, syscalls.ALLOW)


@pytest.mark.parametrize(("program", "why"), [(ALL, "let through"), (b"", "not taken"), (bytes(16), "not taken")])
def test_a_worker_whose_filter_does_not_hold_takes_no_program(program, why, monkeypatch):
    monkeypatch.setattr(syscalls, "program", lambda pid: program)
    with pytest.raises(SandboxError, match=f"not confined: .*{why}"):
        CPythonSandbox().open(None, "", Limits())


def test_other_machines_are_told_what_to_use(monkeypatch):
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "riscv64")
    assert "no list of the system calls of riscv64: use sandbox='monty'" in (CPythonSandbox().missing() or "")


def test_what_sandlock_makes_up_cannot_be_read_either():
    session = CPythonSandbox().open(None, "", Limits())
    paths = ["/proc/mounts", "/proc/self/mounts", "/proc/self/mountinfo", "/proc/loadavg", "/proc/self/cgroup"]
    paths += ["/etc/hosts", "/etc/hostname", "/proc/self/../mounts", "/proc/self/task", "/proc"]
    code = f"for path in {paths}:\n    try: print(os.open(path, 0))\n    except PermissionError: pass"
    assert session.run("import os\n" + code) == Completed("")
    session.close()
