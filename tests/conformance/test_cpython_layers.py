"""Each layer of the cpython sandbox holds alone, and would be missed: without it, the same attempt succeeds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

from sandlock import Sandbox, StdioMode

from rlm_langchain.sandboxes import policy, starting

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
        [policy.python(), "-I", "-S", "-c", f"print(open('{folder}/file').read()); open('{folder}/file', 'a')"],
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
        starting.limit(process.pid, policy.limits(memory))
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
    from rlm_langchain.sandboxes.cpython import CPythonSandbox
    from rlm_langchain.types import Completed, Limits

    code = """
import ctypes
words = (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), words)
print([word & ~4 for word in words])
"""
    session = CPythonSandbox().open(None, "", Limits())
    assert session.run(code) == Completed("[0, 0, 0, 0, 0, 0]\n")
    session.close()
