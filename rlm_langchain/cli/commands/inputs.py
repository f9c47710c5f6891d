"""Turns options and arguments into an RLM, a question and a context. Finds mistakes before a model is called."""

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
from rlm_langchain.cli import streams
from rlm_langchain.cli.session.approve import OFF
from rlm_langchain.context.decoding import CONVERT, NOT_STRICT, replace_surrogates
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.sources.folders import UniqueKeys
from rlm_langchain.context.sources.several import Several
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
  --model local                   the bundled small model: no key, no network after the first use
  --model openai/gpt-4o           any model of OpenRouter, with OPENROUTER_API_KEY set
  --model openai:NAME             OpenAI with OPENAI_API_KEY, or any compatible server with OPENAI_BASE_URL set"""


def with_models(setup: Setup) -> Setup:
    """Return the options with models: those that were named, else those of the environment.

    Raises `ConfigurationError`.
    """
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
        strategy=[_absolute(name) for name in setup.strategy or ()] or None,
        schema=_schema_text(setup.schema),
    )


def _schema_text(schema: str | None) -> str | None:
    """Return the schema itself, so that a saved run keeps it when its file changes. Raises `InputError`."""
    if schema is None or schema.lstrip().startswith("{"):
        return schema
    with as_input_error(schema):
        return Path(schema).read_text(encoding="utf-8")


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


def build_from(setup: Setup) -> RLMRunnable:
    """Return the RLM that options describe. Raises `ConfigurationError`."""
    limits = {limit.field: _limit(limit, getattr(setup, limit.option.name)) for limit in LIMITS if limit.option}
    return build(
        root_model=setup.model,
        recursive_model=setup.sub_model,
        sandbox=setup.sandbox or "auto",
        strategies=[strategy(name) for name in setup.strategy or ()],
        output_schema=_schema(setup.schema),
        prices=prices(setup),
        budget=budget(limits),
    )


def prices(setup: Setup) -> dict[str, Price]:
    """Return the given prices by model: of the named model, else of each model that no price list has.

    Raises `ConfigurationError`.
    """
    from rlm_langchain.models.pricing import has_price
    from rlm_langchain.models.registry import resolve

    found: dict[str, Price] = {}
    for price in setup.price or ():
        name, _, pair = price.rpartition("=")
        models = [name] if name else [model for model in (setup.model, setup.sub_model) if model]
        found |= {
            model: parse_price(price, pair) for model in models if name or not has_price(resolve(model, "root"))
        }
    return found


def parse_price(price: str, pair: str) -> Price:
    """Return the price that `pair` (IN:OUT) is. Raises `ConfigurationError`, which quotes `price`."""
    read, _, written = pair.partition(":")
    try:
        return Price(float(read), float(written))
    except (ValueError, ConfigurationError) as error:
        raise ConfigurationError(
            f"--price {visible(price)}: give dollars per million tokens read and written, as in 0.15:0.60"
        ) from error


def build(**options: Any) -> RLMRunnable:
    """Return an RLM, checked as far as possible without calling a model. Raises `ConfigurationError`."""
    from rlm_langchain.runnable.create import create_rlm

    rlm = create_rlm(**options)
    _ = rlm.graph
    return rlm


def budget(limits: Mapping[str, float | int | None]) -> Budget:
    """Return a budget with the given limits, and the defaults of `Budget` for the others."""
    values: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return Budget(**values)


def strategy(name: str) -> str | Path:
    """Return the name of a strategy, or the path of a folder of skills."""
    return Path(name) if os.sep in name or name.startswith(".") else name


def _absolute(name: str) -> str:
    """Return the absolute path of a folder of skills, so that the run can be resumed from any folder."""
    found = strategy(name)
    return str(found.absolute()) if isinstance(found, Path) else name


def _limit(limit: Limit, value: Any) -> Any:
    """Return the value of a limit. `off` removes the one that a thread has."""
    if not isinstance(value, str) or value == OFF:
        return None if value == OFF else value
    try:
        number = int(value) if limit.whole else float(value.removeprefix("$"))
    except ValueError:
        number = -1
    if not 0 <= number < inf:
        kind = "a number of calls (20)" if limit.whole else "dollars (0.50)"
        flag = limit.option.flag if limit.option else limit.field
        raise ConfigurationError(f"{flag} {value}: give {kind}, or off")
    return number


def check(query: str, context: Sequence[str]) -> str:
    """Return the question. Raises `InputError` if it is empty, or or if part of the context is not there."""
    if not query.strip():
        raise InputError('the question is empty: rlm ask "What is in this file?" FILE')
    if not context and _is_piped():
        raise InputError(
            "something is piped in, and nothing says that it is the context: rlm ask QUERY - reads it, "
            "rlm ask QUERY < /dev/null ignores it"
        )
    if not context and os.path.exists(query):
        raise InputError(
            f'{visible(query)} is a file or a folder, and there is no question: rlm ask "What is in it?" '
            f"{shlex.quote(visible(query))}"
        )
    # Checked before the model is built, because the local one may be downloaded then.
    for name in [path for _, path in map(name_and_path, context) if path != "-"]:
        if "://" in name and not os.path.exists(name):
            raise InputError(f"{name} is an address: curl -s {shlex.quote(name)} | rlm ask QUERY -")
        if not os.path.exists(name) and os.path.isfile(query):
            raise InputError(f"there is no file or folder {name}: the question comes first, and then {query}")
        with as_input_error(name):
            os.stat(name)
    return query


def _is_piped() -> bool:
    """Return whether there is something to read on standard input, without waiting for it."""
    try:
        if sys.stdin.isatty() or not select([sys.stdin], [], [], 0)[0]:
            return False
        return isinstance(sys.stdin.buffer, BufferedReader) and bool(sys.stdin.buffer.peek(1))
    except (AttributeError, OSError, ValueError):  # standard input is closed, or is not a file
        return False


@contextmanager
def preparing() -> Iterator[None]:
    """Surround everything that happens before a model is called. Ctrl-C there says that nothing was paid for."""
    try:
        yield
    except KeyboardInterrupt:
        streams.say("\nInterrupted before any model was called.")
        raise


def context(
    names: Sequence[str], *, strict: bool, seconds: float | None = None, encoding: str | None = None
) -> ContextRef | None:
    """Return a reference to the context. Several files or folders become one dict. Raises `InputError`."""
    store = ContextStore()
    if not names:
        return None
    if len(names) == 1 and not name_and_path(names[0])[0]:
        return _reference(names[0], store, strict=strict, seconds=seconds, encoding=encoding)
    until = inf if seconds is None else time.monotonic() + seconds
    return store.several_to_reference(_joined(names, store, strict=strict, until=until, encoding=encoding))


def name_and_path(given: str) -> tuple[str, str]:
    """Return the name and the path in `contract=a.pdf`; of a path alone, an empty name."""
    name, equals, path = given.partition("=")
    is_named = equals and name.isidentifier() and path and not os.path.exists(given)
    return (name, path) if is_named else ("", given)


def check_encoding(encoding: str | None, names: Sequence[str]) -> None:
    """Raise `ConfigurationError` for an unknown encoding, and `InputError` for a folder to be read in one."""
    try:
        is_text = encoding is None or codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise ConfigurationError(
            f"--encoding {visible(str(encoding))} is not known to Python: use latin-1, for example"
        )
    if encoding and (folders := [path for _, path in map(name_and_path, names) if os.path.isdir(path)]):
        raise InputError(
            f"{visible(folders[0])} is a folder, and --encoding is for files: give its files one by one"
        )


def _reference(
    name: str, store: ContextStore, *, strict: bool, seconds: float | None, encoding: str | None
) -> ContextRef | None:
    if name == "-" and sys.stdin is None:
        raise InputError("standard input is closed, and - reads from it: pipe something in")
    if encoding is None:
        try:
            return store.reference(sys.stdin.buffer if name == "-" else Path(name), strict=strict, seconds=seconds)
        except InputError as error:
            raise _with_options(error, name) from error
    with as_input_error(visible(name)), ExitStack() as opened:
        if name != "-" and not stat.S_ISREG(os.stat(name).st_mode):  # opening or reading it may never end
            raise InputError(
                f"{visible(name)} is not a regular file, and --encoding is for files and for standard input: "
                f"cat {shlex.quote(visible(name))} | rlm ask QUERY - --encoding {encoding}"
            )
        stream = sys.stdin.buffer if name == "-" else opened.enter_context(open(name, "rb"))
        try:  # strict: bytes that do not fit the encoding mean that it is the wrong one
            return store.reference(codecs.getreader(encoding)(stream), seconds=seconds)
        except InputError as error:
            if not isinstance(error.__cause__, UnicodeError):
                raise
            raise InputError(
                f"{visible(name)} is not in {encoding} ({error.__cause__}): give another --encoding, or leave it "
                "out to have bytes that are not UTF-8 replaced and counted"
            ) from error


def _with_options(error: InputError, name: str) -> InputError:
    """Return an error about undecodable bytes with the options that help. Any other error is returned as it is."""
    way_out = next((text for text in (CONVERT, NOT_STRICT) if str(error).endswith(text)), None)
    if way_out is None:
        return error
    advice = "convert it to UTF-8" if os.path.isdir(name) else "name its encoding (--encoding latin-1, for example)"
    replacing = ", or leave out --strict to have such bytes replaced and counted" if way_out == NOT_STRICT else ""
    return InputError(f"{str(error).removesuffix(way_out)}{advice}{replacing}")


def _joined(
    names: Sequence[str], store: ContextStore, *, strict: bool, until: float, encoding: str | None
) -> Several:
    """Return what was given by name or path, and the files of a folder by their path in it.

    Raises `InputError` if they are more than a sandbox can hold in memory.
    """
    joined = Several()
    keys = UniqueKeys(name for name in names if name != "-")
    for one in names:
        called, name = name_and_path(one)
        key = called or ("stdin" if name == "-" else keys.key(name))
        if key in joined.values or names.count(one) > 1:
            raise InputError(f"{visible(one)} was given twice: give it once")
        joined.names += [called] if called else []
        seconds = None if until == inf else max(0.0, until - time.monotonic())
        reference = _reference(name, store, strict=strict, seconds=seconds, encoding=encoding)
        value = store.load(reference) if reference else ""
        joined.add(key, value, reference, is_folder=not called and os.path.isdir(name))
    return joined
