"""Builds the prompt of a question: guidance, a description of the context, the question."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_langchain.context.describe import count, find_table, without_size
from rlm_langchain.context.images import MAX_IMAGES
from rlm_langchain.context.sanitize import fence, quotable
from rlm_langchain.graph.calls.table import HANDLERS
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.earlier import describe_earlier, exchanges
from rlm_langchain.prompts.render import has, render
from rlm_langchain.protocols import Strategy
from rlm_langchain.retrieval.external import describe_corpus_size
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import ContextRef

GLIMPSE = 160
"""Characters of the context that the prompt of a small model shows."""


def question_prompt(
    components: Components,
    journal: Journal,
    path: str,
    query: str,
    context: ContextRef | None,
    strategies: Sequence[Strategy],
    *,
    is_empty: bool = False,
) -> str:
    """Return the prompt of a question. `is_empty`: a context was given, and is empty."""
    profile = components.root_model(path).profile
    query = quotable(query) if path else query  # code composed it, perhaps of text of the context
    if schema := components.answer_schema(path):
        query = render(profile, "schema", question=query, schema=schema.json)
    if components.wants_citations(path):
        query = render(profile, "citations", question=query)
    about = "" if context is None else _describe_context(profile, journal.next_name, context)
    if context is not None and "images" in context:
        about += f"\n\n{_describe_images(components, path, context['images'])}"
    if is_empty:
        about = _describe_empty_context(components, profile)
    if before := exchanges(journal, components.store):
        about = "\n\n".join(
            text for text in (about, describe_earlier(profile, journal.earlier_name, before)) if text
        )
    if journal.turns:
        return render(profile, "follow_up", question=query, context=about).strip()
    guidance = [components.sandbox.guidance, *(strategy.guidance for strategy in strategies)]
    guidance += [handler.guidance(components, path, context) for handler in HANDLERS.values()]
    if context is not None and context["kind"] == "json" and "files" in context and has(profile, "source"):
        guidance.append(render(profile, "source"))
    advice = "\n\n".join(text.strip() for text in guidance if text.strip())
    about = about or render(profile, "no_context")
    return render(profile, "question", guidance=f"{advice}\n\n" if advice else "", question=query, context=about)


def examples_for(components: Components, journal: Journal, path: str, context: ContextRef | None) -> str | None:
    """Return the name of the examples at the start of a conversation, if the profile has any for this context."""
    if journal.turns or context is None:
        return None
    profile = components.root_model(path).profile
    own = f"examples_{_context_type(profile, context)}"
    return own if has(profile, own) else None


def _context_type(profile: str, context: ContextRef) -> str:
    """Return the type of a context. A table is a `str` to a profile without a prompt for tables."""
    kind = context["type"]
    return "str" if kind == "table" and not has(profile, "context_table") else kind


def _describe_empty_context(components: Components, profile: str) -> str:
    """Return the description of an empty context. That of a hybrid RLM says that its retriever found nothing."""
    if components.search is None or components.search.external is None:
        return render(profile, "empty_context")
    return render(profile, "nothing_retrieved", corpus=describe_corpus_size(components.search.external))


def _describe_images(components: Components, path: str, number: int) -> str:
    """Return how to ask about the pictures of a context, or that no model here sees them."""
    model, profile = components.sub_model(path), components.root_model(path).profile
    pictures = count(number, "picture")
    if model.sees is False:
        return render(profile, "images_unseen", count=pictures, model=model.name)
    return render(profile, "images", count=pictures, most=MAX_IMAGES)


def _describe_context(profile: str, name: str, context: ContextRef) -> str:
    """Return the description of a context, by the profile's prompt for its type if there is one."""
    kind = _context_type(profile, context)
    preview, line = quotable(context["preview"]), quotable(context["about"])
    found = find_table(preview) if kind == "table" else None
    own = f"context_{kind}"
    return render(
        profile,
        own if has(profile, own) else "context",
        called=name,
        about=line,
        kind=without_size(line),
        preview=fence(preview, 2_000),
        glimpse=preview[:GLIMPSE].removeprefix("["),
        **(found.words() if found else {}),
    )
