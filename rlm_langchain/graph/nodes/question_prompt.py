"""The prompt of a question: guidance, the context described, the question."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_langchain.context.describe import find_table, without_size
from rlm_langchain.context.sanitize import quotable, shown
from rlm_langchain.graph.calls.table import HANDLERS
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.earlier import describe_earlier, exchanges
from rlm_langchain.prompts.render import has, render
from rlm_langchain.protocols import Strategy
from rlm_langchain.records import depth_of
from rlm_langchain.retrieval.external import describe_corpus_size
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import ContextRef

GLIMPSE = 160
"""Characters of a context that a small model is shown."""


def question_prompt(
    components: Components,
    journal: Journal,
    path: str,
    query: str,
    context: ContextRef | None,
    ways: Sequence[Strategy],
    *,
    is_empty: bool = False,
) -> str:
    """What the root model reads. `is_empty`: a context was given, and holds nothing."""
    profile = components.root_model(depth_of(path)).profile
    query = quotable(query) if path else query  # code has put it together, out of who knows what
    if schema := components.answer_schema(path):
        query = render(profile, "schema", question=query, schema=schema.json)
    if components.wants_citations(path):
        query = render(profile, "citations", question=query)
    about = "" if context is None else _about(profile, journal.next_name, context)
    if is_empty:
        about = _empty(components, profile)
    if before := exchanges(journal, components.store):
        about = "\n\n".join(
            text for text in (about, describe_earlier(profile, journal.earlier_name, before)) if text
        )
    if journal.turns:
        return render(profile, "follow_up", question=query, context=about).strip()
    guidance = [components.sandbox.guidance, *(way.guidance for way in ways)]
    guidance += [handler.guidance(components, path, context) for handler in HANDLERS.values()]
    said = "\n\n".join(text.strip() for text in guidance if text.strip())
    about = about or render(profile, "no_context")
    return render(profile, "question", guidance=f"{said}\n\n" if said else "", question=query, context=about)


def examples_for(components: Components, journal: Journal, path: str, context: ContextRef | None) -> str | None:
    """The examples that a conversation begins with, where a profile has some for this kind of context."""
    if journal.turns or context is None:
        return None
    profile = components.root_model(depth_of(path)).profile
    own = f"examples_{_kind(profile, context)}"
    return own if has(profile, own) else None


def _kind(profile: str, context: ContextRef) -> str:
    """What a profile calls the type of a context: to some, a table is a str like any other."""
    kind = context["type"]
    return "str" if kind == "table" and not has(profile, "context_table") else kind


def _empty(components: Components, profile: str) -> str:
    """What is said of a context that holds nothing: that of a hybrid RLM is what its retriever has found."""
    if components.search is None or components.search.external is None:
        return render(profile, "empty_context")
    return render(profile, "nothing_retrieved", corpus=describe_corpus_size(components.search.external))


def _about(profile: str, name: str, context: ContextRef) -> str:
    """What is said of a context: in a profile's own words for its type, where it has some."""
    kind = _kind(profile, context)
    preview, line = quotable(context["preview"]), quotable(context["about"])
    found = find_table(preview) if kind == "table" else None
    own = f"context_{kind}"
    return render(
        profile,
        own if has(profile, own) else "context",
        called=name,
        about=line,
        kind=without_size(line),
        preview=shown(preview, 2_000),
        glimpse=preview[:GLIMPSE].removeprefix("["),
        **(found.words() if found else {}),
    )
