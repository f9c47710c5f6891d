"""From what was typed to what an RLM is made of and asked. Says what is wrong before anything is paid."""

from __future__ import annotations

import codecs
import json
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from io import BufferedReader
from math import inf
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import LIMITS, Limit
from rlm_langchain.cli.session.approve import OFF
from rlm_langchain.context.decoding import replace_surrogates
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.sources.folders import MAX_TEXT_BYTES, UniqueKeys
from rlm_langchain.context.sources.streams import as_input_error
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.models.model import Price
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from rlm_langchain.cli.options import Setup
    from rlm_langchain.runnable.runnable import RLMRunnable

NO_MODEL = """\
no model was named. Name one in one of these ways, or set RLM_MODEL to it:
  --model local                   the small model that comes along: no key, no network after the first use
  --model openai/gpt-4o           any model of OpenRouter, with OPENROUTER_API_KEY set
  --model openai:NAME             OpenAI with OPENAI_API_KEY, or any compatible server with OPENAI_BASE_URL set"""


def named(setup: Setup) -> Setup:
    """With the models that were named, or else those that the environment names. Raises `ConfigurationError`."""
    root = setup.model or os.environ.get("RLM_MODEL")
    sub = setup.sub_model or (None if setup.model else os.environ.get("RLM_SUB_MODEL"))
    if not root:
        raise ConfigurationError(NO_MODEL)
    for name in (root, sub or "", *(setup.strategy or ())):
        if replace_surrogates(name)[1]:
            raise ConfigurationError(
                f"{visible(name)} is not in UTF-8: the name of a model or a strategy must be text"
            )
    return replace(
        setup,
        model=root,
        sub_model=sub,
        strategy=[_absolute(one) for one in setup.strategy or ()] or None,
        schema=_schema_text(setup.schema),
    )


def _schema_text(given: str | None) -> str | None:
    """The schema itself, by which a kept run is gone on with when its file has changed. Raises
    `ConfigurationError`."""
    if given is None or given.lstrip().startswith("{"):
        return given
    with as_input_error(given):
        return Path(given).read_text(encoding="utf-8")


def _schema(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"--schema is not JSON ({error}): give a JSON schema, or a file that holds one"
        ) from None
    if not isinstance(schema, dict):
        raise ConfigurationError("--schema is not a JSON object: give a JSON schema, or a file that holds one")
    return schema


def made_of(setup: Setup) -> RLMRunnable:
    """The RLM that options describe. Raises `ConfigurationError`."""
    limits = {limit.field: _limit(limit, getattr(setup, limit.option.name)) for limit in LIMITS if limit.option}
    return build(
        root_model=setup.model,
        recursive_model=setup.sub_model,
        sandbox=setup.sandbox or "auto",
        strategies=[strategy(one) for one in setup.strategy or ()],
        output_schema=_schema(setup.schema),
        prices=prices(setup),
        budget=budget(limits),
    )


def prices(setup: Setup) -> dict[str, Price]:
    """The prices that were given, by model: of one by its name, else of those that no list knows.

    Raises `ConfigurationError`.
    """
    from rlm_langchain.models.pricing import has_price
    from rlm_langchain.models.registry import resolve

    found: dict[str, Price] = {}
    for given in setup.price or ():
        name, _, pair = given.rpartition("=")
        models = [name] if name else [model for model in (setup.model, setup.sub_model) if model]
        found |= {one: _price(given, pair) for one in models if name or not has_price(resolve(one, "root"))}
    return found


def _price(given: str, pair: str) -> Price:
    read, _, written = pair.partition(":")
    try:
        return Price(float(read), float(written))
    except (ValueError, ConfigurationError) as error:
        raise ConfigurationError(
            f"--price {visible(given)}: give dollars per million tokens read and written, as in 0.15:0.60"
        ) from error


def build(**options: Any) -> RLMRunnable:
    """The RLM, checked as far as it can be without asking a model. Raises `ConfigurationError`."""
    from rlm_langchain.runnable.create import create_rlm

    rlm = create_rlm(**options)
    _ = rlm.graph
    return rlm


def budget(limits: Mapping[str, float | int | None]) -> Budget:
    """The limits that were given; for the others, what `Budget` says."""
    given: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return Budget(**given)


def strategy(name: str) -> str | Path:
    """A strategy by name, or a folder of skills by path."""
    return Path(name) if os.sep in name or name.startswith(".") else name


def _absolute(name: str) -> str:
    """A folder of skills is found again from wherever the run is gone on with."""
    found = strategy(name)
    return str(found.absolute()) if isinstance(found, Path) else name


def _limit(limit: Limit, given: Any) -> Any:
    """What was given for a limit. `off` takes the place of what a thread was begun with."""
    if not isinstance(given, str) or given == OFF:
        return None if given == OFF else given
    try:
        number = int(given) if limit.whole else float(given.removeprefix("$"))
    except ValueError:
        number = -1
    if not 0 <= number < inf:
        kind = "a number of calls (20)" if limit.whole else "dollars (0.50)"
        flag = limit.option.flag if limit.option else limit.field
        raise ConfigurationError(f"{flag} {given}: give {kind}, or off")
    return number


def check(query: str, context: Sequence[str]) -> str:
    """The question. Raises `InputError` when there is none, or not what it is about."""
    if not query.strip():
        raise InputError('the question is empty: rlm ask "What is in this file?" FILE')
    if not context and _is_piped():
        raise InputError(
            "something is piped in that was not asked about: rlm ask QUERY - reads it, rlm ask QUERY < /dev/null "
            "goes without it"
        )
    if not context and os.path.exists(query):
        raise InputError(
            f'{visible(query)} is a file or a folder, and there is no question: rlm ask "What is in it?" '
            f"{shlex.quote(visible(query))}"
        )
    # All this before a model is made: the local one may be fetched then.
    for name in [one for one in context if one != "-"]:
        if "://" in name and not os.path.exists(name):
            raise InputError(f"{name} is an address: curl -s {shlex.quote(name)} | rlm ask QUERY -")
        if not os.path.exists(name) and os.path.isfile(query):
            raise InputError(f"there is no file or folder {name}: the question comes first, and then {query}")
        with as_input_error(name):
            os.stat(name)
    return query


def _is_piped() -> bool:
    """Whether something waits on standard input. Nothing is waited for: nobody may write to a pipe that is open."""
    try:
        if sys.stdin.isatty() or not select([sys.stdin], [], [], 0)[0]:
            return False
        return isinstance(sys.stdin.buffer, BufferedReader) and bool(sys.stdin.buffer.peek(1))
    except (AttributeError, OSError, ValueError):  # it is closed, or no file
        return False


@contextmanager
def preparing() -> Iterator[None]:
    """Around all that is done before a model is asked: Ctrl-C there has cost nothing."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted before anything was asked or paid.", file=sys.stderr)
        raise


def context(
    given: Sequence[str], *, strict: bool, seconds: float | None = None, encoding: str | None = None
) -> ContextRef | None:
    """What was given on the command line, by reference; several things become one dict. Raises `InputError`."""
    store = ContextStore()
    if not given:
        return None
    if len(given) == 1:
        return _reference(given[0], store, strict=strict, seconds=seconds, encoding=encoding)
    until = inf if seconds is None else time.monotonic() + seconds
    return store.reference(_joined(given, store, strict=strict, until=until, encoding=encoding))


def check_encoding(encoding: str | None, given: Sequence[str]) -> None:
    """Raise `ConfigurationError` for an encoding that there is not, `InputError` for a folder to be read in it."""
    try:
        is_text = encoding is None or codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise ConfigurationError(
            f"--encoding {visible(str(encoding))} is not known to Python: use latin-1, for example"
        )
    if encoding and (folders := [name for name in given if os.path.isdir(name)]):
        raise InputError(
            f"{visible(folders[0])} is a folder, and --encoding is for files: give its files one by one"
        )


def _reference(
    name: str, store: ContextStore, *, strict: bool, seconds: float | None, encoding: str | None
) -> ContextRef | None:
    if name == "-" and sys.stdin is None:
        raise InputError("standard input is closed, and - reads from it: pipe something in")
    if encoding is None:
        return store.reference(sys.stdin.buffer if name == "-" else Path(name), strict=strict, seconds=seconds)
    with as_input_error(visible(name)), ExitStack() as opened:
        if name != "-" and not stat.S_ISREG(os.stat(name).st_mode):  # to open one, or to read it, may never end
            raise InputError(
                f"{visible(name)} is no regular file, and --encoding is for files and for what is piped in: "
                f"cat {shlex.quote(visible(name))} | rlm ask QUERY - --encoding {encoding}"
            )
        stream = sys.stdin.buffer if name == "-" else opened.enter_context(open(name, "rb"))
        try:  # strictly: latin-1 decodes anything, and what another encoding cannot decode is in none of its texts
            return store.reference(codecs.getreader(encoding)(stream), seconds=seconds)
        except InputError as error:
            if not isinstance(error.__cause__, UnicodeError):
                raise
            raise InputError(f"{visible(name)} is not in {encoding} ({error.__cause__}): try another") from error


def _joined(
    given: Sequence[str], store: ContextStore, *, strict: bool, until: float, encoding: str | None
) -> dict[str, Any]:
    """Name to text; the files of a folder by their path in it.

    Raises `InputError` when it is more than a sandbox holds in memory.
    """
    joined: dict[str, Any] = {}
    keys, size = UniqueKeys(name for name in given if name != "-"), 0
    for name in given:
        key = "stdin" if name == "-" else keys.key(name)
        if key in joined or given.count(name) > 1:
            raise InputError(f"{name} was given twice: give it once")
        seconds = None if until == inf else max(0.0, until - time.monotonic())
        reference = _reference(name, store, strict=strict, seconds=seconds, encoding=encoding)
        size += reference["size"] if reference else 0
        if size > MAX_TEXT_BYTES:
            raise InputError(
                f"what was given is more than {MAX_TEXT_BYTES >> 30} GB of text together: give fewer files at "
                "once, or join them into one, which may be of any size"
            )
        value = store.load(reference) if reference else ""
        if isinstance(value, dict):
            joined |= {f"{key.rstrip('/')}/{path}": text for path, text in value.items()}
        else:
            joined[key] = value
    return joined
