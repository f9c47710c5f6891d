"""What a caller's handlers are told: every call of a model or tool, under the runs that asked, and its usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tracers import LangChainTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langsmith import Client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rlm_langchain import Budget, create_rlm
from rlm_langchain.testing.models import FunctionModel, script

SECRET = "the tail of the context"
CONTEXT = f"{'word ' * 40_000}{SECRET}"
CODE = "a = lookup('x')\nb = llm_query('leaf')\nc = rlm_query('KID', context[:20000])\nFINAL([a, b, c])"
ANSWER = ["X", "<leaf>", "<inner>"]
SUBCALL = ["subcall", "reader", "top"]
PATHS = [
    ["model", "generate", "reader", "top"],
    ["lookup", *SUBCALL],
    ["model", *SUBCALL],
    ["model", "generate", "rlm", *SUBCALL],
    ["model", "subcall", "rlm", *SUBCALL],
]
"""From each leaf up to the chain: one run for each node, graph and step."""


def lookup(key: str) -> str:
    """Looks a key up."""
    return key.upper()


def chain() -> Any:
    model = script(CODE, children={"KID": ["FINAL(llm_query('inner'))"]})
    rlm = create_rlm(model, sandbox="monty", budget=Budget(depth=2), tools=[lookup])
    begin = RunnableLambda(lambda query: {"query": query, "context": CONTEXT}).with_config(run_name="begin")
    return begin | rlm.with_config(run_name="reader", tags=["inner"], metadata={"level": 2}) | RunnablePassthrough()


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream_events"])
def run(request: pytest.FixtureRequest) -> Callable[[list[Any]], Any]:
    """Run the chain with these handlers; its output."""
    how = request.param

    def run(handlers: list[Any]) -> Any:
        config: Any = {"callbacks": handlers, "run_name": "top", "tags": ["outer"], "metadata": {"user": "u1"}}
        if how == "invoke":
            return chain().invoke("q", config)
        if how == "ainvoke":
            return asyncio.run(chain().ainvoke("q", config))
        if how == "stream":
            return [*chain().stream("q", config)][-1]
        return asyncio.run(_events(config))["data"]["output"]

    return run


async def _events(config: Any) -> Any:
    return [event async for event in chain().astream_events("q", config, version="v2")][-1]


class Seen:
    """The runs that a handler was told of."""

    def __init__(self) -> None:
        self.runs: dict[UUID, tuple[str, UUID | None]] = {}
        self.about: dict[UUID, tuple[list[str], dict[str, Any]]] = {}
        self.inputs: list[str] = []
        self.ended: list[UUID] = []

    def begin(self, name: str, given: Any, run_id: UUID, parent_run_id: UUID | None, about: dict[str, Any]) -> None:
        self.runs[run_id] = (name, parent_run_id)
        self.about[run_id] = (about.get("tags") or [], about.get("metadata") or {})
        self.inputs.append(repr(given))

    def path(self, run_id: UUID | None) -> list[str]:
        """The names from a run up to the root."""
        names = []
        while run_id is not None:
            name, run_id = self.runs[run_id]
            names.append(name)
        return names

    @property
    def leaves(self) -> list[list[str]]:
        parents = {parent for _, parent in self.runs.values()}
        found = [self.path(run_id) for run_id in self.runs if run_id not in parents]
        return [path for path in found if path[0] in ("model", "lookup")]


class Sync(BaseCallbackHandler):
    """A handler as most are."""

    def __init__(self) -> None:
        self.seen = Seen()

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, **more: Any
    ) -> None:
        self.seen.begin(str(more.get("name")), inputs, run_id, parent_run_id, more)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, **more: Any
    ) -> None:
        self.seen.begin("model", messages, run_id, parent_run_id, more)

    def on_tool_start(
        self, serialized: Any, input_str: Any, *, run_id: Any, parent_run_id: Any = None, **more: Any
    ) -> None:
        self.seen.begin(serialized["name"], input_str, run_id, parent_run_id, more)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **more: Any) -> None:
        self.seen.ended.append(run_id)

    def on_llm_end(self, response: Any, *, run_id: Any, **more: Any) -> None:
        self.seen.ended.append(run_id)

    def on_tool_end(self, output: Any, *, run_id: Any, **more: Any) -> None:
        self.seen.ended.append(run_id)


class Async(AsyncCallbackHandler):
    """One whose methods are coroutines."""

    def __init__(self) -> None:
        self.seen, self.sync = Seen(), Sync()
        self.sync.seen = self.seen

    async def on_chain_start(self, *given: Any, **more: Any) -> None:
        self.sync.on_chain_start(*given, **more)

    async def on_chat_model_start(self, *given: Any, **more: Any) -> None:
        self.sync.on_chat_model_start(*given, **more)

    async def on_tool_start(self, *given: Any, **more: Any) -> None:
        self.sync.on_tool_start(*given, **more)

    async def on_chain_end(self, *given: Any, **more: Any) -> None:
        self.sync.on_chain_end(*given, **more)

    async def on_llm_end(self, *given: Any, **more: Any) -> None:
        self.sync.on_llm_end(*given, **more)

    async def on_tool_end(self, *given: Any, **more: Any) -> None:
        self.sync.on_tool_end(*given, **more)


@pytest.mark.parametrize("kind", [Sync, Async])
def test_every_call_is_told_under_the_runs_that_asked_for_it(kind, run):
    handler = kind()
    assert run([handler])["answer"] == ANSWER
    assert handler.seen.leaves == PATHS
    assert sorted(handler.seen.ended) == sorted(handler.seen.runs)


def test_tags_and_metadata_of_the_chain_and_of_the_step_are_on_every_call(run):
    handler = Sync()
    run([handler])
    seen = handler.seen
    calls = [seen.about[run_id] for run_id, (name, _) in seen.runs.items() if name in ("model", "lookup")]
    assert len(calls) == len(PATHS)
    for tags, metadata in calls:
        assert {"outer", "inner"} <= set(tags)
        assert (metadata["user"], metadata["level"]) == ("u1", 2)


def test_no_handler_is_shown_a_word_of_the_context(run):
    """The chain's own first step had it; from the machine on it is a reference."""
    handler = Sync()
    run([handler])
    assert len(handler.seen.inputs) > len(PATHS)
    assert not [given for given in handler.seen.inputs[2:] if SECRET in given or "word " * 1000 in given]


def test_usage_handlers_sum_what_the_account_says(run):
    handler = UsageMetadataCallbackHandler()
    output = run([handler])
    both = [output["usage"]["root"], output["usage"]["sub"]]
    told = handler.usage_metadata["function"]
    assert told["input_tokens"] == sum(usage["input"] for usage in both) > 0
    assert told["output_tokens"] == sum(usage["output"] for usage in both) > 0


async def test_the_usage_of_a_block_is_told_by_its_context_manager():
    with get_usage_metadata_callback() as told:
        outputs = [chain().invoke("q"), await chain().ainvoke("q")]
    used = sum(output["usage"][who]["input"] for output in outputs for who in ("root", "sub"))
    assert told.usage_metadata["function"]["input_tokens"] == used


def test_a_batch_has_a_tree_of_runs_for_each_question():
    collector = RunCollectorCallbackHandler()
    chain().batch(["q", "r"], {"callbacks": [collector]})
    assert [len(_names(one)) for one in collector.traced_runs] == [len(_names(collector.traced_runs[0]))] * 2


def _names(one: Any) -> list[str]:
    return [one.name, *(name for child in one.child_runs for name in _names(child))]


def test_a_handler_that_stops_a_run_stops_it():
    class Stops(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            raise PermissionError("not today")

    with pytest.raises(PermissionError, match="not today"):
        chain().invoke("q", {"callbacks": [Stops()]})


def test_a_handler_that_fails_by_itself_stops_nothing(caplog):
    class Fails(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            raise KeyError("a bug of its own")

    assert chain().invoke("q", {"callbacks": [Fails()]})["answer"] == ANSWER


def test_what_fails_is_told_up_to_the_chain():
    failed: list[str] = []

    class Errors(BaseCallbackHandler):
        def on_chain_error(self, error: BaseException, **_: Any) -> None:
            failed.append(type(error).__name__)

        def on_llm_error(self, error: BaseException, **_: Any) -> None:
            failed.append(type(error).__name__)

    broken = create_rlm(FunctionModel(function=lambda _: 1 / 0), sandbox="monty")  # type: ignore[arg-type,return-value]
    with pytest.raises(Exception, match="does not answer"):
        (RunnablePassthrough() | broken).invoke("q", {"callbacks": [Errors()]})
    assert failed[0] == "ZeroDivisionError"
    assert set(failed[1:]) == {"ModelError"}


class Session:
    """LangSmith's session, kept from the network: what would be sent is noted."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def request(self, method: str, url: str, *, data: Any = None, **_: Any) -> Any:
        if data:
            self.sent.append((method, json.loads(data)))
        return Response()

    def mount(self, *_: Any) -> None: ...

    def close(self) -> None: ...


class Response:
    status_code, text, content, headers, ok = 200, "{}", b"{}", {}, True

    def raise_for_status(self) -> None: ...

    def json(self) -> dict[str, Any]:
        return {}


def test_langsmith_is_sent_the_whole_tree_and_no_context(run):
    session: Any = Session()
    client = Client(
        api_url="http://127.0.0.1:9",
        api_key="k",
        session=session,
        auto_batch_tracing=False,
        info={},  # type: ignore[arg-type]
    )
    run([LangChainTracer(client=client, project_name="p")])
    begun = {body["id"]: body for method, body in session.sent if method == "POST"}
    ended = [body for method, body in session.sent if method == "PATCH"]
    parents = {body.get("parent_run_id") for body in begun.values()}
    models = [body for body in begun.values() if body["run_type"] == "llm"]
    assert len(begun) == len(ended) > 25
    assert parents - {None} <= set(begun)
    assert len({body["trace_id"] for body in begun.values()}) == 1
    assert [_path(begun, body)[1:] for body in models] == [path[1:] for path in PATHS if path[0] == "model"]
    inside = [body for body in begun.values() if body["name"] not in ("top", "begin")]
    assert SECRET not in json.dumps([body["inputs"] for body in inside])


def _path(runs: dict[str, dict[str, Any]], body: dict[str, Any]) -> list[str]:
    parent = body.get("parent_run_id")
    return [body["name"], *(_path(runs, runs[parent]) if parent else [])]


def test_spans_of_opentelemetry_have_the_same_tree_by_langsmiths_exporter(run):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client = Client(
        api_url="http://127.0.0.1:9",
        api_key="k",
        info={},  # type: ignore[arg-type]
        tracing_mode="otel",
        otel_tracer_provider=provider,
    )
    run([LangChainTracer(client=client, project_name="p")])
    client.flush()
    client.cleanup()
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context}
    leaves = [span for span in spans.values() if (span.attributes or {}).get("langsmith.span.kind") == "llm"]
    assert len(leaves) == 4
    assert len({span.context.trace_id for span in spans.values() if span.context}) == 1
    for span in leaves:
        assert _root(spans, span) == "top"
    tokens = [(span.attributes or {}).get("gen_ai.usage.input_tokens") for span in leaves]
    assert all(isinstance(count, int) and count > 0 for count in tokens)


def _root(spans: dict[int, Any], span: Any) -> str:
    return str(span.name) if span.parent is None else _root(spans, spans[span.parent.span_id])
