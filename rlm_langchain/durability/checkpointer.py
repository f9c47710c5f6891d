"""Between LangGraph and its saver: what goes wrong there is an error of ours, and what is read is data only.

Savers raise whatever their database, driver or serialiser raises, and LangGraph's serialiser, as it comes, makes
objects of any class that a row names. Our state is plain, so none is needed. A copy of the saver takes its place in
the graph, of a class that is the saver's own with every method translated, and with a serialiser that allows no
class of anybody's: it shares the saver's connection, and is one to whoever asks.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

from rlm_langchain.context.decoding import replace_each, replace_unkept, unkept
from rlm_langchain.errors import ConfigurationError, JournalError, RLMError
from rlm_langchain.trajectory.checksum import SEAL, checksum

READ_METHODS = ("get_tuple", "aget_tuple")
HISTORY_METHODS = ("get_delta_channel_history", "aget_delta_channel_history")
LIST_METHODS = ("list", "alist")
PUT_METHODS = ("put", "aput")
WRITE_METHODS = ("put_writes", "aput_writes")
UNKNOWN_FORMAT = "serialization type"
"""What LangGraph's serialiser says of a row that is a pickle, or no format of its own."""


def checked_saver(saver: Any) -> Any:
    """A copy of a saver that raises our errors; LangGraph's other options as they are."""
    check(saver)
    if saver is None or isinstance(saver, bool):
        return saver
    twin: Any = copy.copy(saver)
    twin.__class__, twin.serde = _checked_class(twin.__class__), _data_only_serde(saver.serde)
    return twin


def check(saver: object) -> None:
    """Raise `ConfigurationError` for what is neither a saver nor one of LangGraph's other options."""
    if saver is not None and not isinstance(saver, bool | BaseCheckpointSaver):
        raise ConfigurationError(f"checkpointer={saver!r} cannot be used: give a checkpoint saver of LangGraph")


def _data_only_serde(serde: Any) -> Any:
    """LangGraph's serialiser with an empty list of classes; a serialiser of somebody else, as it is."""
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    if type(serde) is EncryptedSerializer:
        return EncryptedSerializer(serde.cipher, _data_only_serde(serde.serde))
    return JsonPlusSerializer(allowed_msgpack_modules=None) if type(serde) is JsonPlusSerializer else serde


@cache
def _checked_class(kind: Any) -> Any:
    ways = dict.fromkeys(READ_METHODS, (_wrap_call, "read", _verify_checkpoint))
    ways |= dict.fromkeys(HISTORY_METHODS, (_wrap_call, "read", _unchanged))
    ways |= dict.fromkeys(LIST_METHODS, (_wrap_iterator, "read", _verify_checkpoint))
    ways |= dict.fromkeys(PUT_METHODS, (_wrap_put, "written", _unchanged))
    ways |= dict.fromkeys(WRITE_METHODS, (_wrap_call, "written", _unchanged))
    methods = {name: make(getattr(kind, name), what, look) for name, (make, what, look) in ways.items()}
    return type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__doc__": kind.__doc__})


Method = Callable[..., Any]


def _wrap_call(method: Method, what: str, look: Callable[[Any], Any]) -> Method:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with as_journal_error(what):
            return look(method(*args, **kwargs))

    @wraps(method)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        with as_journal_error(what):
            return look(await method(*args, **kwargs))

    return acall if inspect.iscoroutinefunction(method) else call


def _wrap_iterator(method: Method, what: str, look: Callable[[Any], Any]) -> Method:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with as_journal_error(what):
            yield from map(look, method(*args, **kwargs))

    @wraps(method)
    async def acall(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with as_journal_error(what):
            async for found in method(*args, **kwargs):
                yield look(found)

    return acall if inspect.isasyncgenfunction(method) else call


def _wrap_put(method: Method, what: str, look: Callable[[Any], Any]) -> Method:
    write = _wrap_call(method, what, look)

    @wraps(method)
    def call(saver: Any, config: Any, checkpoint: Any, metadata: Any, *rest: Any, **more: Any) -> Any:
        config, metadata = _kept_config(config), _kept(metadata)
        sealed = {**metadata, SEAL: _checkpoint_checksum(checkpoint, metadata)}
        return write(saver, config, checkpoint, sealed, *rest, **more)

    return call


def _kept(given: Any) -> Any:
    """A caller's metadata as every database keeps it. LangGraph takes NULs out of values, and leaves the rest."""
    clean, replaced = replace_each(given, replace_unkept)
    if not replaced:
        return given
    logging.getLogger(__name__).warning("in the metadata of a checkpoint, U+FFFD stands for %s", unkept(replaced))
    return clean


def _kept_config(config: Any) -> Any:
    """The config of a checkpoint. Savers keep its metadata beside the checkpoint, and what callers configured."""
    settings = config["configurable"]
    own = {key: one for key, one in settings.items() if key.startswith("__")}
    given = {key: one for key, one in settings.items() if key not in own}
    return {**config, "configurable": own | _kept(given), "metadata": _kept(config.get("metadata") or {})}


def _unchanged(found: Any) -> Any:
    return found


def _verify_checkpoint(found: Any) -> Any:
    """A checkpoint as it was read, if it is the one that was written. Raises `JournalError`."""
    if found is None:
        return None
    asked = found.config["configurable"]["checkpoint_id"]
    sound = _is_intact(found.checkpoint, found.metadata) and _are_sends(found.pending_writes or ())
    if not sound or asked != found.checkpoint["id"]:
        raise JournalError(
            "a checkpoint is not what was written: go back to an earlier one with `rlm fork`, or ask again on a "
            "new thread"
        )
    return found


def _is_intact(checkpoint: Any, metadata: Any) -> bool:
    """Whether a checkpoint carries the seal that belongs on it; one of another writer, who seals nothing, must at
    least have the form that LangGraph reads."""
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
    return checksum({"parts": json.loads(json.dumps(parts, default=_to_json_value))})


def _to_json_value(value: Any) -> Any:
    """Return the JSON form of a `Send` for the checksum; any other object counts as null."""
    return [value.node, value.arg] if isinstance(value, Send) else None


@contextmanager
def as_journal_error(what: str) -> Iterator[None]:
    """Raise foreign errors of a saver as ours. `what` is the operation: `read` or `written`."""
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
        raise JournalError(_error_message(what, error)) from error


def _error_message(what: str, error: Exception) -> str:
    kind = type(error).__name__
    if _is_full(error):
        return (
            f"a checkpoint cannot be {what} ({kind}): the disk of the saver's database is full, or cannot be "
            "written; make room and go on with the run: nothing that was paid is lost"
        )
    if what == "written":
        return (
            f"a checkpoint cannot be written ({kind}): see that the saver's database can be reached and has room, "
            "then resume the run; nothing that was paid is lost"
        )
    return (
        f"a checkpoint cannot be read ({kind}): the saver's database cannot be reached, or is damaged; see to it, "
        "go back to an earlier checkpoint, or ask again on a new thread"
    )


def _is_full(error: Exception) -> bool:
    """Whether a database could not write to its disk. SQLite writes when it reads, too: its log beside the file."""
    code = getattr(error, "sqlite_errorname", None) or ""
    return code.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")) or (
        getattr(error, "sqlstate", None) in ("53100", "25006")  # Postgres: a full disk, a read-only database
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    )
