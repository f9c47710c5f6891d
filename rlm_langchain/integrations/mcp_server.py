"""An RLM as an MCP server: `load_context`, `ask` and `search`, for any client of the Model Context Protocol.

A client refers to contexts by name; their texts stay in the server, and never pass through the client's model.
Every client that can connect may ask, on the budget of the server's RLM, about files below its roots and about
loaded texts: over stdio the process that started the server, over HTTP every process on this machine, or everyone
who has the token.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from rlm_langchain.context.beneath import OutsideRoot
from rlm_langchain.context.sanitize import clip
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import (
    ConfigurationError,
    InputError,
    MissingDependency,
    RLMError,
)
from rlm_langchain.records import Record, RLMInput, output_of
from rlm_langchain.retrieval.retriever import RLMRetriever
from rlm_langchain.run.cancellation import wait_ended
from rlm_langchain.runnable.options import known_options
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.types import ContextRef
from rlm_langchain.validation import check_types

try:
    from mcp.server.fastmcp import Context, FastMCP
    from mcp.server.fastmcp.exceptions import ToolError
    from mcp.types import ToolAnnotations
    from starlette.requests import Request
except ImportError as error:
    raise MissingDependency(
        'an MCP server needs the package mcp, which is not installed: pip install "rlm-langchain[mcp]"'
    ) from error

T = TypeVar("T")
MAX_CONTEXTS = 1_000
"""Most named contexts. With one more, the least recently used one loses its name."""
CONTEXT_HOURS = 12
"""Hours after which an unused context loses its name. Then its text can be garbage-collected."""
NAME_CHARS = 200
"""Longest name that a client may give, in characters."""
MAX_ITEMS_LISTED = 50
"""Most names or problems that an error message lists."""
NAME_LIFETIME = f"until nobody uses it for {CONTEXT_HOURS} hours, or {MAX_CONTEXTS:,} others were used since"
"""How long a context keeps its name, as the end of a sentence."""
MAX_SESSIONS, SESSION_MINUTES = 1_000, 30
"""Most sessions over HTTP, and the minutes after which an idle one is closed. Each takes about 60 kB."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
INSTRUCTIONS = """\
Answers questions over texts, files and folders that are too long to read. First `load_context`, which gives the \
context a name; then `ask` about it by name, as often as you like. `search` finds passages in it by words. The \
text itself never has to be in your conversation."""

Name = Annotated[str, Field(description="The name of a context that `load_context` has loaded.")]


class Loaded(TypedDict):
    """The output of `load_context`."""

    name: str
    about: str
    begins: str
    kept: str
    """How long the context keeps its name."""


class Answer(TypedDict):
    """The output of `ask`: the answer, the status and the usage."""

    answer: Any
    status: str
    stop_reason: str
    degraded: dict[str, int]
    """How many calls, replies and child runs the answer lacks, by kind."""
    found: str | None
    """The last output of the REPL, if there is no answer."""
    misfit: str | None
    """Why the last answer does not fit the schema, if no answer does."""
    iterations: int
    sub_calls: int
    tokens: int
    cost_usd: float | None


class Passage(TypedDict):
    """A passage that `search` found."""

    text: str
    source: str
    start: int
    end: int
    score: float


@dataclass
class ContextRegistry:
    """The named contexts, and the RLM that answers questions about them. Safe with threads."""

    rlm: RLMRunnable
    roots: Sequence[Path]
    clock: Callable[[], float] = time.monotonic
    contexts: OrderedDict[str, ContextRef] = field(default_factory=OrderedDict)
    """Contexts by name, the least recently used first."""
    searches: dict[str, RLMRetriever] = field(default_factory=dict)
    """Retrievers by the checksum of their context."""
    _used: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, path: str | None, text: str | None, name: str | None) -> Loaded:
        """Name a file, a folder or a text. Raises `InputError`."""
        if (path is None) == (text is None):
            raise InputError("give either a path or a text")
        store = ContextStore(self.rlm.home)
        ref = store.reference(text) if path is None else self._read_path(store, Path(path).expanduser())
        if ref is None:
            raise InputError("there is nothing in it: give a file, a folder or a text that is not empty")
        if name is not None and not 0 < len(name.strip()) <= NAME_CHARS:
            raise InputError(f"a name has 1 to {NAME_CHARS} characters, not {len(name.strip()):,}")
        name = name or (Path(path).absolute().name if path else f"text-{ref['sha256'][:8]}")
        with self._locked():
            self.contexts[name] = ref
            self._use(name)
        return {"name": name, "about": ref["about"], "begins": ref["preview"], "kept": NAME_LIFETIME}

    def find(self, names: Sequence[str]) -> Any:
        """Return the context with this name, or a dict of several. Raises `InputError`, which lists the names."""
        with self._locked():
            if missing := [name for name in names if name not in self.contexts]:
                known = ", ".join(sorted(self.contexts)[:MAX_ITEMS_LISTED]) or "none yet: call load_context first"
                raise InputError(
                    f"no context is called {', '.join(missing)}; loaded: {known}. A context has its name "
                    f"{NAME_LIFETIME}"
                )
            found = {name: self.contexts[name] for name in names}
            for name in names:
                self._use(name)
        if len(names) == 1:
            return found[names[0]]
        store = ContextStore(self.rlm.home)
        return {name: store.load(ref) for name, ref in found.items()} or None

    def retriever(self, name: str) -> RLMRetriever:
        """Return the retriever of a context, whose index is built once. Raises `InputError`."""
        ref = self.find([name])
        with self._lock:
            if ref["sha256"] not in self.searches:
                self.searches[ref["sha256"]] = RLMRetriever(corpus=ref, home=self.rlm.home)
            return self.searches[ref["sha256"]]

    def _read_path(self, store: ContextStore, path: Path) -> ContextRef | None:
        """Return a reference to a path below one of the roots, with all links followed. Raises `InputError`."""
        try:
            return store.reference_beneath(path, self.roots)
        except InputError as error:
            if not isinstance(error.__cause__, OutsideRoot):
                raise
            raise InputError(
                f"{path} is outside of what this server may read; it may read: {_join_paths(self.roots)}"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the registry. Drop expired names before, and if there are too many the least recently used after."""
        with self._lock:
            oldest = self.clock() - CONTEXT_HOURS * 3600
            for name in [name for name in self.contexts if self._used[name] < oldest]:
                self._forget(name)
            yield
            while len(self.contexts) > MAX_CONTEXTS:
                self._forget(next(iter(self.contexts)))

    def _use(self, name: str) -> None:
        self.contexts.move_to_end(name)
        self._used[name] = self.clock()

    def _forget(self, name: str) -> None:
        ref = self.contexts.pop(name)
        del self._used[name]
        if all(other["sha256"] != ref["sha256"] for other in self.contexts.values()):
            self.searches.pop(ref["sha256"], None)


class _Server(FastMCP[Any]):
    """A FastMCP server that describes invalid calls in one sentence, and refuses unknown arguments."""

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run a tool. Raises `ToolError`."""
        tools = {tool.name: tool.inputSchema.get("properties", {}) for tool in await self.list_tools()}
        if name not in tools:
            raise ToolError(f"there is no tool {clip(repr(name), NAME_CHARS)}; there are {', '.join(tools)}")
        if unknown := [argument for argument in arguments if argument not in tools[name]]:
            takes = ", ".join(tools[name])
            raise ToolError(f"{name} takes no argument {clip(repr(unknown[0]), NAME_CHARS)}; it takes {takes}")
        try:
            return await super().call_tool(name, arguments)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            faults = error.__cause__.errors(include_input=False, include_url=False)
            problems = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:MAX_ITEMS_LISTED]
            )
            raise ToolError(f"{name} was called wrongly: {problems}") from None


@known_options
def create_mcp_server(rlm: RLMRunnable, *, roots: Sequence[Path] = (), host: str = "127.0.0.1") -> FastMCP[Any]:
    """Create an MCP server, without running it. It reads files below `roots` only.

    All clients share the named contexts. A name is dropped if it is not used for `CONTEXT_HOURS`. Each call is a
    separate run, so a checkpointer of the RLM is not used. A run is cancelled if its client cancels the call or
    disconnects.
    """
    rlm = checked_rlm(rlm)
    check_types("create_mcp_server", str, host=host)
    check_types("create_mcp_server", (list, tuple), roots=roots)
    for root in roots:
        check_types("create_mcp_server", Path, root=root)
    rlm = rlm.model_copy(update={"checkpointer": None}) if rlm.checkpointer else rlm
    registry = ContextRegistry(rlm, tuple(roots))
    limits: Any = {"max_sessions": MAX_SESSIONS, "session_idle_timeout": SESSION_MINUTES * 60}
    server = _Server("rlm", instructions=INSTRUCTIONS, host=host, log_level="WARNING", **limits)
    server._mcp_server.version = version("rlm-langchain")  # FastMCP has no parameter for it

    async def load_context(
        path: Annotated[str | None, Field(description="A file or folder on the server's machine.")] = None,
        text: Annotated[str | None, Field(description="The text itself.")] = None,
        name: Annotated[str | None, Field(description="What to call it. Default: the name of the file.")] = None,
    ) -> Loaded:
        return await reporting_errors(asyncio.to_thread(registry.load, path, text, name))

    async def ask(
        query: Annotated[str, Field(description="The question, complete in itself.")],
        contexts: Annotated[list[str], Field(description="Names of contexts; several are read together.")],
        ctx: Context[Any, Any, Any],
    ) -> Answer:
        return await reporting_errors(while_connected(_answer(registry, query, contexts, ctx), ctx))

    async def search(query: str, context: Name, k: Annotated[int, Field(ge=1, le=100)] = 10) -> list[Passage]:
        return await reporting_errors(_search(registry, query, context, k))

    server.add_tool(load_context, description="Load a file, a folder or a text, to ask about it by its name.")
    for tool, what in (
        (ask, "Answer a question about loaded contexts, however long they are. Takes seconds to minutes."),
        (search, "The passages of a loaded context that have most to do with a query, by words; quick and free."),
    ):
        server.add_tool(tool, description=what, annotations=ToolAnnotations(readOnlyHint=True))
    return server


async def serve_stdio(server: FastMCP[Any]) -> None:
    """Serve MCP on standard input and output until the client disconnects."""
    await server.run_stdio_async()


async def serve_http(server: FastMCP[Any], port: int, token: str | None) -> None:
    """Serve MCP over HTTP at `/mcp` until this task is cancelled. Raises `ConfigurationError`."""
    import socket

    import uvicorn

    host = server.settings.host
    if host not in LOOPBACK and not token:
        raise ConfigurationError(
            f"at {host} others can ask at your cost: set RLM_MCP_TOKEN to a secret that they have to send"
        )
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(f"nothing can listen at {host}, port {port}: {error.strerror}") from error
    app = server.streamable_http_app()
    config = uvicorn.Config(require_token(app, token) if token else app, log_level="warning", lifespan="on")
    where = f"[{host}]" if ":" in host else host
    print(f"serving MCP at http://{where}:{listener.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
    with listener:
        await uvicorn.Server(config).serve(sockets=[listener])


def require_token(app: Callable[..., Awaitable[None]], token: str) -> Callable[..., Awaitable[None]]:
    """Wrap an ASGI app so that it answers 401 to requests without the token."""
    wanted = f"Bearer {token}".encode()

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        sent = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(sent, wanted):
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "http.response.body", "body": b"send the token of this server"})

    return guard


async def reporting_errors(work: Awaitable[T]) -> T:
    """Await `work`, and raise its errors as `ToolError`. Of errors that are not ours only the type is passed on,
    because their text could contain a key; they are logged."""
    try:
        return await work
    except RLMError as error:
        raise ToolError(str(error)) from error
    except Exception as error:
        logging.getLogger(__name__).exception("a call failed")
        raise ToolError(f"this failed on the server: {type(error).__name__}") from error


async def while_connected(work: Coroutine[Any, Any, T], ctx: Context[Any, Any, Any]) -> T:
    """Return the result of `work`, which is cancelled if the client disconnects.

    Over stdio and SSE the MCP library does that itself. Over streamable HTTP it does not: there the request is open
    until the answer is sent, and a client cannot fetch the answer later.
    """
    request = ctx.request_context.request
    if request is None or "session_id" in request.query_params:  # SSE: a request ends before its answer is sent
        return await work
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([task, disconnected], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise InputError("the client has hung up")
        return task.result()
    finally:
        disconnected.cancel()
        task.cancel()
        await wait_ended([task])


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answer(
    registry: ContextRegistry, query: str, names: Sequence[str], ctx: Context[Any, Any, Any]
) -> Answer:
    context = await asyncio.to_thread(registry.find, names)
    state: dict[str, Any] = {}
    turns = 0
    rlm_input = RLMInput(query=query, context=context)
    parts = cast(AsyncGenerator[Any], registry.rlm.astream(rlm_input, stream_mode=["custom", "values"]))
    async with aclosing(parts) as stream:
        async for mode, event in stream:
            if mode == "values":
                state.update(event)
            elif progress := _progress(event):
                turns += 1
                await ctx.report_progress(turns, None, progress)
    output = registry.rlm.checked(output_of(state))
    usage = output["usage"]
    return Answer(
        answer=to_jsonable_python(output["answer"]),
        status=output["status"],
        stop_reason=output["stop_reason"],
        degraded=cast(dict[str, int], output["degraded"]),
        found=output.get("found"),
        misfit=output.get("misfit"),
        iterations=output["iterations"],
        sub_calls=output["sub_calls"],
        tokens=sum(used["input"] + used["output"] for used in (usage["root"], usage["sub"])),
        cost_usd=output["cost_usd"],
    )


def _progress(record: Record) -> str | None:
    """Return the progress message for a record, or None."""
    match record["type"]:
        case "turn":
            return f"turn {record['turn'] + 1} is written"
        case "wave":
            return f"{record['count']} sub-calls are asked"
    return None


async def _search(registry: ContextRegistry, query: str, name: str, k: int) -> list[Passage]:
    retriever = await asyncio.to_thread(registry.retriever, name)
    found = await retriever.ainvoke(query, k=k)
    keys = ("source", "start", "end", "score")
    return [cast(Passage, {"text": one.page_content, **{key: one.metadata[key] for key in keys}}) for one in found]


def _join_paths(paths: Sequence[Path]) -> str:
    return ", ".join(str(path.resolve()) for path in paths) or "no files at all"
