"""Wraps a checkpoint saver: its errors become ours, damaged rows are found, and only plain data is loaded.

Savers raise whatever their database, driver or serialiser raises, and LangGraph's default serialiser creates
objects of any class that a row names. Our state is plain JSON and needs none of them. So the graph is given a copy
of the saver. The copy belongs to a subclass of the saver's class in which every method translates errors, and its
serialiser creates no objects. It shares the connection of the saver and passes `isinstance` checks.

LangGraph would continue without a row that is lost, so a lost row is an error, too. The fields of a checkpoint have
a checksum in its metadata; the writes of a task have one in a separate row, which is hidden from readers; and
the checkpoint counts the records of the trajectory, which is assembled from the rows of all earlier steps.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver
from langgraph.checkpoint.base import id as checkpoint_ids
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

from rlm_langchain.context.decoding import describe_unstorable, replace_each, replace_unstorable
from rlm_langchain.errors import ConfigurationError, JournalError, RLMError
from rlm_langchain.trajectory.checksum import SEAL, checksum
from rlm_langchain.trajectory.journal import DAMAGED

READ_METHODS = ("get_tuple", "aget_tuple")
HISTORY_METHODS = ("get_delta_channel_history", "aget_delta_channel_history")
LIST_METHODS = ("list", "alist")
PUT_METHODS = ("put", "aput")
WRITE_METHODS = ("put_writes", "aput_writes")
WRITES_SEAL = "__rlm_seal__"
"""Channel of the row that holds the checksum of everything that a task has written. It is hidden from readers."""
NULL_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task for outside input. Its writes have no checksum, because they are extended and saved again."""
TRAJECTORY, RECORDED = "trajectory", "recorded"
"""Channels of our graph's state: the records, and their number."""
UNKNOWN_FORMAT = "serialization type"
"""Part of the message that LangGraph's serialiser raises for a pickle and for any unknown format."""


_ONE_ROW_SAVERS = "langgraph.checkpoint.sqlite"
"""The module of the savers that store a checkpoint in one row. Others, as that for Postgres, store values by their
versions, which must then be random: after a fork, the same step has other values."""


def checked_saver(saver: Any) -> Any:
    """Return a copy of a saver that raises our errors. None, True and False are returned unchanged.

    Raises `ConfigurationError` for anything that is not a saver.
    """
    check_checkpointer(saver)
    if saver is None or isinstance(saver, bool) or hasattr(saver, "list_intact"):  # it is such a copy already
        return saver
    checked: Any = copy.copy(saver)
    checked.__class__, checked.serde = _checked_class(checked.__class__), _data_only_serde(saver.serde)
    return checked


def check_checkpointer(saver: object) -> None:
    """Raise `ConfigurationError` unless this is a saver, None, True or False."""
    if saver is None or isinstance(saver, bool | BaseCheckpointSaver):
        return
    may_be_shown = isinstance(saver, type) or (isinstance(saver, str) and "://" not in saver)  # no password
    shown = repr(saver) if may_be_shown else f"a {type(saver).__name__}"
    raise ConfigurationError(f"checkpointer={shown} cannot be used: {_way_out(saver)}")


def _way_out(saver: object) -> str:
    if (factory := getattr(saver, "func", None)) is not None and hasattr(saver, "gen"):  # of `contextlib`
        opening = "with" if hasattr(saver, "__enter__") else "async with"
        return (
            f"it is not open yet. Open it, and ask within: {opening} {factory.__qualname__}(...) as saver: "
            "create_rlm(..., checkpointer=saver)"
        )
    if isinstance(saver, type):
        return f"it is a class. Give a saver: {saver.__name__}(...)"
    return (
        "give a checkpoint saver of LangGraph, such as InMemorySaver(), or on disk: with "
        "SqliteSaver.from_conn_string('runs.db') as saver: create_rlm(..., checkpointer=saver)"
    )


def _data_only_serde(serde: Any) -> Any:
    """Return LangGraph's serialiser with no class allowed. Any other serialiser is returned unchanged."""
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    if type(serde) is EncryptedSerializer:
        return EncryptedSerializer(serde.cipher, _data_only_serde(serde.serde))
    return JsonPlusSerializer(allowed_msgpack_modules=None) if type(serde) is JsonPlusSerializer else serde


@cache
def _checked_class(kind: Any) -> Any:
    wrappers = dict.fromkeys(READ_METHODS, (_wrap_call, "read", _verify_checkpoint))
    wrappers |= dict.fromkeys(HISTORY_METHODS, (_wrap_history, "read", _unchanged))
    wrappers |= dict.fromkeys(LIST_METHODS, (_wrap_iterator, "read", _verify_checkpoint))
    wrappers |= dict.fromkeys(PUT_METHODS, (_wrap_put, "written", _unchanged))
    wrappers |= dict.fromkeys(WRITE_METHODS, (_wrap_put_writes, "written", _unchanged))
    methods = {name: make(getattr(kind, name), what, verify) for name, (make, what, verify) in wrappers.items()}
    methods |= {"list_intact": _wrap_sound(kind.list), "alist_intact": _wrap_sound(kind.alist)}
    if kind.__module__.startswith(_ONE_ROW_SAVERS):
        methods["get_next_version"] = _shorten_versions(kind.get_next_version)
    return type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__doc__": kind.__doc__})


Method = Callable[..., Any]

HELD_IN_DATABASE: dict[tuple[int, str], Any] = {}
"""The connections that hold locks on threads in a database (`thread_lock.py`), by the `id` of the saver's
connection and the thread."""


def _shorten_versions(method: Method) -> Method:
    """Return a method that makes versions of 7 characters, which sort as LangGraph's of 50 do.

    A checkpoint holds two dozen versions, and they were half of its bytes. The plus sign sorts before digits. So a
    long version may follow a short one, of other code or after a million steps, and a short one never follows a
    long one.
    """

    @wraps(method)
    def call(saver: Any, current: Any, channel: None) -> Any:
        step = 1 if current is None else int(str(current).partition(".")[0]) + 1
        is_short = current is None or str(current).startswith("+")
        return f"+{step:06}" if is_short and step < 1_000_000 else method(saver, current, channel)

    return call


def _lost_lock(saver: Any, config: Any) -> Callable[[], None] | None:
    """Return a function that raises `JournalError` if the lock on the thread of a write is lost; None without one.

    The database drops a lock when its connection ends, and tells nobody. Another process may have begun by then.
    """
    thread = str(config["configurable"].get("thread_id"))
    holder = HELD_IN_DATABASE.get((id(getattr(saver, "conn", None)), thread))
    if holder is None:
        return None

    def check() -> None:
        try:
            holder.execute("select 1")
        except Exception as error:
            raise JournalError(
                "the lock is lost, because its connection to the database has ended "
                f"({type(error).__name__}): another process may work here by now, so nothing more is written; "
                "resume the run when no other process does"
            ) from error

    return check


def _wrap_call(method: Method, what: str, verify: Callable[[Any], Any]) -> Method:
    @wraps(method)
    def call(saver: Any, config: Any = None, *args: Any, **kwargs: Any) -> Any:
        with as_journal_error(what, config):
            if what == "written" and (check := _lost_lock(saver, config)):
                check()
            return verify(method(saver, config, *args, **kwargs))

    @wraps(method)
    async def acall(saver: Any, config: Any = None, *args: Any, **kwargs: Any) -> Any:
        with as_journal_error(what, config):
            if what == "written" and (check := _lost_lock(saver, config)):
                await asyncio.to_thread(check)
            return verify(await method(saver, config, *args, **kwargs))

    return acall if inspect.iscoroutinefunction(method) else call


def _wrap_iterator(method: Method, what: str, verify: Callable[[Any], Any]) -> Method:
    @wraps(method)
    def call(saver: Any, config: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with as_journal_error(what, config):
            yield from map(verify, method(saver, config, *args, **kwargs))

    @wraps(method)
    async def acall(saver: Any, config: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with as_journal_error(what, config):
            async for found in method(saver, config, *args, **kwargs):
                yield verify(found)

    return acall if inspect.isasyncgenfunction(method) else call


def _wrap_sound(method: Method) -> Method:
    """Return a method that lists the undamaged checkpoints."""

    def call(saver: Any, config: Any) -> Iterator[Any]:
        with as_journal_error("read", config):
            yield from (_verify_checkpoint(found) for found in method(saver, config) if _is_sound(found))

    async def acall(saver: Any, config: Any) -> AsyncIterator[Any]:
        with as_journal_error("read", config):
            async for found in method(saver, config):
                if _is_sound(found):
                    yield _verify_checkpoint(found)

    return acall if inspect.isasyncgenfunction(method) else call


def _wrap_history(method: Method, what: str, verify: Callable[[Any], Any]) -> Method:
    """Return a method that counts the records of all earlier steps. LangGraph assembles whatever rows it finds."""

    @wraps(method)
    def call(saver: Any, *, config: Any, channels: Sequence[str]) -> Any:
        with as_journal_error(what, config):
            return _verify_history(saver.get_tuple(config), method(saver, config=config, channels=channels))

    @wraps(method)
    async def acall(saver: Any, *, config: Any, channels: Sequence[str]) -> Any:
        with as_journal_error(what, config):
            found = await method(saver, config=config, channels=channels)
            return _verify_history(await saver.aget_tuple(config), found)

    return acall if inspect.iscoroutinefunction(method) else call


def _wrap_put(method: Method, what: str, verify: Callable[[Any], Any]) -> Method:
    write = _wrap_call(method, what, verify)

    @wraps(method)
    def call(saver: Any, config: Any, checkpoint: Any, metadata: Any, *rest: Any, **more: Any) -> Any:
        config, metadata = _storable_config(config), _storable(metadata)
        with_checksum = {**metadata, SEAL: _checkpoint_checksum(checkpoint, metadata)}
        return write(saver, config, checkpoint, with_checksum, *rest, **more)

    return call


def _wrap_put_writes(method: Method, what: str, verify: Callable[[Any], Any]) -> Method:
    write = _wrap_call(method, what, verify)

    @wraps(method)
    def call(saver: Any, config: Any, writes: Any, task_id: str, *rest: Any, **more: Any) -> Any:
        # Some async methods of savers call the sync ones.
        has_checksum = any(channel == WRITES_SEAL for channel, _ in writes)
        own = _own_writes(writes) if task_id != NULL_TASK and not has_checksum else []
        with_checksum = [*writes, (WRITES_SEAL, _writes_checksum(own))] if own else writes
        return write(saver, config, with_checksum, task_id, *rest, **more)

    return call


def _storable(given: Any) -> Any:
    """Return a caller's metadata in a form that every database accepts. LangGraph itself only removes NULs."""
    clean, replaced = replace_each(given, replace_unstorable)
    if not replaced:
        return given
    logging.getLogger(__name__).warning(
        "in the metadata of a checkpoint, U+FFFD stands for %s", describe_unstorable(replaced)
    )
    return clean


def _storable_config(config: Any) -> Any:
    """Return the config of a checkpoint in a form that every database accepts.

    Savers store the metadata and the callers' own settings next to the checkpoint.
    """
    settings = config["configurable"]
    own = {key: one for key, one in settings.items() if key.startswith("__")}
    given = {key: one for key, one in settings.items() if key not in own}
    return {**config, "configurable": own | _storable(given), "metadata": _storable(config.get("metadata") or {})}


def _unchanged(found: Any) -> Any:
    return found


def _verify_checkpoint(found: Any) -> Any:
    """Return a checkpoint without the fields that only we read. Raises `JournalError` if it was changed."""
    if found is None or isinstance(found.pending_writes, _Verified):
        return found
    if not _is_sound(found):
        raise JournalError(
            "a checkpoint is not what was written: it was changed, or rows of it are missing; go back to an "
            "earlier one with `rlm fork`, or ask again on a new thread"
        )
    _come_after(found.checkpoint["id"])
    writes = _Verified(write for write in found.pending_writes or () if write[1] != WRITES_SEAL)
    return found._replace(pending_writes=writes)


def _come_after(checkpoint: str) -> None:
    """Have all checkpoints that this process makes from now on come after this one, whatever its clock says.

    The latest checkpoint of a thread is the one with the highest id, and an id begins with the time. A clock that
    was set back, or one of another machine that is behind, would make checkpoints that nobody ever finds.
    """
    try:
        made = checkpoint_ids.UUID(checkpoint)
    except ValueError:  # of another writer, who orders them in another way
        return
    last = checkpoint_ids._last_v6_timestamp
    if made.version == 6 and (last is None or last < made.time):
        checkpoint_ids._last_v6_timestamp = made.time  # type: ignore[assignment]


class _Verified(list[tuple[str, str, Any]]):
    """Writes without their checksums, which were already checked: some async methods call the sync ones."""


def _is_sound(found: Any) -> bool:
    """Return whether a checkpoint and the writes of its tasks are unchanged."""
    if isinstance(found.pending_writes, _Verified):
        return True
    writes = found.pending_writes or ()
    return bool(
        found.config["configurable"]["checkpoint_id"] == found.checkpoint["id"]
        and _is_intact(found.checkpoint, found.metadata)
        and _are_sends(writes)
        and (SEAL not in found.metadata or _are_complete(writes))
    )


def _are_complete(writes: Sequence[tuple[str, str, Any]]) -> bool:
    """Return whether all writes of the tasks are present."""
    by_task: dict[str, list[tuple[str, Any]]] = {}
    for task, channel, value in writes:
        by_task.setdefault(task, []).append((channel, value))
    by_task.pop(NULL_TASK, None)
    return all(
        [value for channel, value in written if channel == WRITES_SEAL]
        == ([_writes_checksum(own)] if (own := _own_writes(written)) else [])
        for written in by_task.values()
    )


def _own_writes(writes: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return a task's own writes. LangGraph's notes about it, such as a pause or an error, may be overwritten."""
    return [(channel, value) for channel, value in writes if channel not in {*WRITES_IDX_MAP, WRITES_SEAL}]


def _writes_checksum(writes: Sequence[tuple[str, Any]]) -> str:
    """Return the checksum of a task's writes, which does not depend on their order."""
    return checksum({"writes": sorted(checksum({"write": _plain([channel, value])}) for channel, value in writes)})


def _verify_history(found: Any, histories: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the writes of earlier steps. Raises `JournalError` if some are missing."""
    if found is None or SEAL not in found.metadata or TRAJECTORY not in histories:
        return histories
    history = histories[TRAJECTORY]
    seed = history.get("seed", ())
    parts = [getattr(seed, "value", seed), *(value for _, _, value in history["writes"])]
    written = [len(part) for part in parts if isinstance(part, list | tuple)]
    if len(written) < len(parts) or sum(written) != found.checkpoint["channel_values"].get(RECORDED, 0):
        raise JournalError(DAMAGED)
    return histories


def _is_intact(checkpoint: Any, metadata: Any) -> bool:
    """Return whether a checkpoint has the right checksum.

    A checkpoint of another writer has none. Then its metadata must at least have the form that LangGraph reads.
    """
    own = _checkpoint_checksum(checkpoint, metadata)
    if SEAL in metadata:
        return bool(metadata[SEAL] == own)
    parents = metadata.get("parents") or {}
    return isinstance(parents, dict) and all(isinstance(key, str) for key in (*metadata, *parents))


def _are_sends(writes: Sequence[tuple[str, str, Any]]) -> bool:
    """Return whether all pending TASKS writes are `Send`s. LangGraph drops others silently."""
    return all(isinstance(value, Send) for _, channel, value in writes if channel == TASKS)


def _checkpoint_checksum(checkpoint: Any, metadata: Any) -> str:
    """Return the checksum of all fields that decide how a run continues. Records have checksums of their own."""
    parts = [checkpoint[key] for key in ("v", "id", "ts", "channel_versions", "versions_seen", "channel_values")]
    parts += [metadata.get(key) for key in ("source", "step", "parents", "counters_since_delta_snapshot")]
    return checksum({"parts": _plain(parts)})


def _plain(value: Any) -> Any:
    """Return a value as JSON represents it, so that it is the same after it was read back."""
    return json.loads(json.dumps(value, default=_to_json_value))


def _to_json_value(value: Any) -> Any:
    """Return the JSON form of a `Send` for the checksum; any other object counts as null."""
    return [value.node, value.arg] if isinstance(value, Send) else None


@contextmanager
def with_thread_name(thread: object) -> Iterator[None]:
    """Add the name of the thread to each `JournalError`."""
    try:
        yield
    except JournalError as error:
        thread_name = f" (on the thread {str(thread)!r})"
        if thread is not None and thread_name not in str(error):
            error.args = (str(error) + thread_name,)
        raise


@contextmanager
def as_journal_error(what: str, config: Any = None) -> Iterator[None]:
    """Raise a checkpointer's errors as ours. `what` is the operation: `read` or `written`.

    The message names the thread of `config`, if there is one.
    """
    with with_thread_name(((config or {}).get("configurable") or {}).get("thread_id")), _as_our_error(what):
        yield


@contextmanager
def _as_our_error(what: str) -> Iterator[None]:
    try:
        yield
    except RLMError:
        raise
    except (NotImplementedError, asyncio.InvalidStateError) as error:
        if UNKNOWN_FORMAT in str(error):
            raise JournalError(_error_message(what, error)) from error
        raise ConfigurationError(
            f"this saver cannot be used here ({type(error).__name__}): `invoke` needs a saver with sync methods, "
            "`ainvoke` one with async methods, AsyncSqliteSaver for example"
        ) from error
    except Exception as error:
        if "check_same_thread" in str(error) or "can only be used in that same thread" in str(error):
            raise ConfigurationError(
                "this saver's connection belongs to one thread, and a run has several: "
                "sqlite3.connect(..., check_same_thread=False)"
            ) from error
        raise JournalError(_error_message(what, error)) from error


_CLOSED = ("closed database", "no active connection", "Event loop is closed")
"""What SQLite, aiosqlite and asyncio say of a saver that is used after its end."""


def _error_message(what: str, error: Exception) -> str:
    kind = type(error).__name__
    if any(words in str(error) for words in _CLOSED):
        return (
            f"a checkpoint cannot be {what} ({kind}): the saver is closed. Ask within its `with` or `async with`, "
            "and with an async saver in the event loop that opened it"
        )
    if _is_full(error):
        return (
            f"a checkpoint cannot be {what} ({kind}): the disk of the saver's database is full, or cannot be "
            "written; make room, then resume the run, or ask again if it had not begun: nothing that was paid for "
            "is lost"
        )
    if what == "written":
        return (
            f"a checkpoint cannot be written ({kind}): check that the saver's database can be reached and has "
            "room, then resume the run; nothing that was paid for is lost"
        )
    return (
        f"a checkpoint cannot be read ({kind}): the saver's database cannot be reached, or is damaged; repair it, "
        "go back to an earlier checkpoint, or ask again on a new thread"
    )


def _is_full(error: Exception) -> bool:
    """Return whether a database could not write to its disk. SQLite also writes its log when it reads."""
    code = getattr(error, "sqlite_errorname", None) or ""
    return code.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")) or (
        getattr(error, "sqlstate", None) in ("53100", "25006")  # Postgres: a full disk, a read-only database
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    )
