"""Harmless programs without a sandbox, one for each check: they prove that the check can fail."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlm_langchain.types import (
    Completed,
    ContextFile,
    Limits,
    Reply,
    Step,
)


@dataclass
class Unconfined:
    """Not a sandbox: runs code in this process. Only for the controls of this suite."""

    name: str = "unconfined"
    guidance: str = ""
    broken: list[bool] = field(default_factory=list)

    def missing(self) -> str | None:
        """Say that it confines nothing."""
        return "this is no sandbox"

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> UnconfinedSession:
        """Return a session with a fresh namespace."""
        return UnconfinedSession({"llm_query": print, "broken": self.broken})


@dataclass
class UnconfinedSession:
    """A namespace in this process."""

    names: dict[str, object]

    def run(self, code: str) -> Step:
        """Run the code in this process."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code if not self.names["broken"] else "", self.names)  # noqa: S102 - that is the point
        return Completed(output.getvalue())

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Never called: a control does not wait for replies."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Control(NamedTuple):
    """A harmless program, and the problem that the judge must report."""

    code: str
    problem: str
    limits: Limits = Limits()


CONTROLS = {
    "a secret file": Control("print(open('{CANARY}/secret.txt').read())", "canary-file"),
    "a secret variable": Control("import os\nprint(os.environ['RLM_CANARY_KEY'])", "canary-key"),
    "a global of the host": Control(
        "import sys\nprint(sys.modules['rlm_langchain.testing.hostile.judge'].CANARY_HOST)", "canary-host"
    ),
    "an effect": Control("open('{CANARY}/PWNED', 'w').close()", "files were made"),
    "a connection": Control(
        "import socket\nsocket.create_connection(('127.0.0.1', 47811), 2).close()", "something connected"
    ),
    "overtime": Control(
        "import time\nend = time.monotonic() + 1.6\nwhile time.monotonic() < end:\n    pass",
        "a step took",
        Limits(seconds=0),
    ),
    "memory": Control("import sys\nsys.kept = bytearray(b'x' * (40 << 20))", "the host grew"),
    "a process": Control("import subprocess\nsubprocess.Popen(['sleep', '2'])", "processes were left"),
    "the next session": Control("broken.append(True)", "the next session"),
    "the standard error": Control("import os\nos.write(2, b'noise')", "standard error of the host"),
    "a target of a link": Control("import os\nprint(os.readlink('{CANARY}/link'))", "canary-link"),
    "a mode": Control("import os\nos.chmod('{CANARY}/secret.txt', 0o640)", "the mode of secret.txt"),
    "times": Control("import os\nos.utime('{CANARY}/secret.txt', (1, 1))", "the times of secret.txt"),
    "a hard link": Control(
        "import os\nos.link('{CANARY}/secret.txt', '{CANARY}/hard')", "the number of links of secret.txt"
    ),
    "another target": Control(
        "import os\nos.unlink('{CANARY}/link')\nos.symlink('x', '{CANARY}/link')", "the target of link"
    ),
}

LIBC = """
import ctypes, os, zlib
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
name = os.path.basename("{CANARY}")
queue, key = f"/{name}".encode(), zlib.crc32(name.encode()) & 0x7FFFFFFE
"""
"""Code that finds objects which have a name or a key instead of a path."""

LINUX = {
    "an attribute that is read": Control(
        "import os\nprint(os.getxattr('{CANARY}/secret.txt', 'user.canary'))", "canary-attribute"
    ),
    "an attribute": Control(
        "import os\nos.removexattr('{CANARY}/secret.txt', 'user.canary')", "the extended attributes of secret.txt"
    ),
    "a flag": Control(
        "import fcntl\nwith open('{CANARY}/secret.txt') as file:\n"
        "    flags = fcntl.ioctl(file, 0x80086601, bytes(8))\n"
        "    fcntl.ioctl(file, 0x40086602, bytes([flags[0] | 0x40, *flags[1:]]))",  # not for dumps
        "the flags of secret.txt",
    ),
    "a message": Control(
        LIBC + "text = ctypes.create_string_buffer(256)\nfd = libc.mq_open(queue, os.O_RDONLY)\n"
        "libc.mq_receive(fd, text, 256, None)\nos.close(fd)\nprint(text.value)",
        "canary-queue",
    ),
    "a queue": Control(LIBC + "libc.mq_unlink(queue)", "the queue changed"),
    "a new queue": Control(
        LIBC + "os.close(libc.mq_open(queue + b'-PWNED', os.O_CREAT | os.O_RDWR, 0o600, None))", "-PWNED changed"
    ),
    "shared memory that is read": Control(
        LIBC + "print(ctypes.string_at(libc.shmat(libc.shmget(key, 0, 0), None, 0o10000)))", "canary-shared"
    ),
    "shared memory": Control(LIBC + "libc.shmctl(libc.shmget(key, 0, 0), 0, None)", "the objects of System V"),
    "a queue of System V": Control(LIBC + "libc.msgctl(libc.msgget(key, 0), 0, None)", "the objects of System V"),
    "semaphores": Control(LIBC + "libc.semctl(libc.semget(key, 0, 0), 0, 0)", "the objects of System V"),
    "new shared memory": Control(LIBC + "libc.shmget(key + 1, 10, 0o1600)", "the objects of System V"),
}
"""Controls that need Linux."""

if sys.platform == "linux":
    CONTROLS |= LINUX
    if os.geteuid() == 0:  # others cannot give a file away
        CONTROLS["an owner"] = Control(
            "import os\nos.chown('{CANARY}/secret.txt', 1, 1)", "the owner of secret.txt"
        )
