"""The lease of a thread where processes share a Postgres database, and perhaps no folder: on several machines.

It is an advisory lock of a transaction on a connection of its own, so the server lets go of it when the process
ends, however it ends, and within a minute when its machine or its network does. It passes through poolers, which
keep a connection for as long as its transaction is open. Not covered: a server that is started anew lets go of all
leases, under runs that then fail at their next checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlm_langchain.errors import ThreadBusy
from rlm_langchain.guard import translated

POSTGRES = "langgraph.checkpoint.postgres"
SETTINGS = (
    "set local lock_timeout = '1s'",  # a process that was killed a moment ago may not be gone yet
    "set local idle_in_transaction_session_timeout = 0",
    "set local tcp_keepalives_idle = 20",
    "set local tcp_keepalives_interval = 10",
    "set local tcp_keepalives_count = 4",
)


@contextmanager
def database_lease(saver: Any, thread: str) -> Iterator[None]:
    """Hold a thread in the database of a Postgres saver; for another saver there is nothing to do.

    Raises `ThreadBusy` when somebody else holds it, `JournalError` when the database cannot be reached.
    """
    if not any(kind.__module__.startswith(POSTGRES) for kind in type(saver).__mro__):
        yield
        return
    with translated("read"):
        connection = _connected(saver.conn)
    try:
        with translated("read"):
            _take(connection, thread)
        yield
    finally:
        connection.close()


def _take(connection: Any, thread: str) -> None:
    from psycopg.errors import LockNotAvailable

    number = int.from_bytes(hashlib.sha256(f"rlm {thread}".encode()).digest()[:8], signed=True)
    for setting in SETTINGS:
        connection.execute(setting)
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (number,))
    except LockNotAvailable as busy:
        raise ThreadBusy(
            f"another process works on the thread {thread!r}, with the same database; wait for it"
        ) from busy


def _connected(ours: Any) -> Any:
    """One connection more to the database of a connection, or of a pool."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    if isinstance(ours, psycopg.Connection | psycopg.AsyncConnection):
        return psycopg.connect(make_conninfo(ours.info.dsn, password=ours.info.password or None))
    options = {key: value for key, value in (ours.kwargs or {}).items() if key not in ("autocommit", "row_factory")}
    return psycopg.connect(ours.conninfo, **options)
