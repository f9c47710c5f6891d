"""The process that watches a host. It runs as a separate program and imports nothing of ours.

It receives a handle of each worker over standard input, and kills all workers when the host ends or closes the
link.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import selectors
import signal
import socket
import sys


def main() -> None:
    """Watch the process that the command line names: by a descriptor on Linux, elsewhere by its process id."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS has a limit that is lower than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each worker takes one
    link, host = socket.socket(fileno=os.dup(0)), int(sys.argv[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with link:
        if sys.platform == "linux":
            watch(link, host)
        else:
            watch_by_number(link, host)


def watch(link: socket.socket, host: int) -> None:
    """Receive a descriptor of each worker from `link`. Kill them all when the process of `host`, another
    descriptor, ends."""
    workers: set[int] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(host, selectors.EVENT_READ)
        selector.register(link, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            for ended in ready & workers:
                selector.unregister(ended)
                workers.remove(ended)
                os.close(ended)
            new = _received(link) if link.fileno() in ready else []
            if new is None or host in ready:
                break
            for worker in new:
                selector.register(worker, selectors.EVENT_READ)
            workers.update(new)
    workers.update(new or ())
    link.setblocking(False)
    while more := _received(link):  # the last messages of the host may not have been read yet
        workers.update(more)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker, signal.SIGKILL)


def _received(link: socket.socket) -> list[int] | None:
    """Return the descriptors that came with one byte. None if no more will come, or one of them was lost."""
    try:
        data, fds, flags, _ = socket.recv_fds(link, 1, 1)
    except (BlockingIOError, ConnectionError):
        return None
    return fds if data and fds and not flags & socket.MSG_CTRUNC else None


if sys.platform not in ("linux", "win32"):

    def watch_by_number(link: socket.socket, host: int) -> None:
        """Receive the process id of each worker from `link`. Kill them all when the process `host` ends."""
        workers: set[int] = set()
        queue, rest = select.kqueue(), b""
        add, process, ends = select.KQ_EV_ADD, select.KQ_FILTER_PROC, select.KQ_NOTE_EXIT
        queue.control([select.kevent(link, select.KQ_FILTER_READ, add)], 0)
        is_over = not _add(queue, select.kevent(host, process, add, ends)) or os.getppid() != host
        while True:
            if is_over:
                link.setblocking(False)  # the last messages of the host may not have been read yet
            for event in [] if is_over else queue.control(None, 64):
                if event.filter == process:
                    workers.discard(event.ident)
                    is_over |= event.ident == host
            try:
                data = link.recv(65536, 0 if is_over else socket.MSG_DONTWAIT)
            except BlockingIOError:
                if is_over:
                    break
                continue
            except ConnectionError:
                break
            if not data:
                break
            *numbers, rest = (rest + data).split(b"\n")
            workers.update(n for n in map(int, numbers) if _add(queue, select.kevent(n, process, add, ends)))
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    def _add(queue: select.kqueue, event: select.kevent) -> bool:
        """Return whether there is such a process."""
        try:
            queue.control([event], 0)
        except ProcessLookupError:
            return False
        return True


if __name__ == "__main__":
    main()
