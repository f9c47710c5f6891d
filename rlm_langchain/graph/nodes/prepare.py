"""The node `prepare`: starts a run, or a follow-up question on its thread, by recording the question."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, cast

from rlm_langchain.context.decoding import describe_unstorable, replace_unstorable
from rlm_langchain.context.describe import count
from rlm_langchain.context.long_text import CODE_QUESTION_CHARS, USER_QUESTION_CHARS, load_text, shorten, store_text
from rlm_langchain.errors import InputError
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.nodes.earlier import exchanges
from rlm_langchain.graph.nodes.question_prompt import examples_for, question_prompt
from rlm_langchain.prompts.render import render
from rlm_langchain.records import CellRecord, QuestionRecord
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


ENDING_FIELDS = ("answer", "status", "stop_reason", "approval", "degraded", "found", "misfit")
"""Fields of the state that say how the last question ended. A new one starts without them."""


def prepare_run(components: Components, state: RLMState) -> dict[str, Any]:
    """Record the question, and store its context. Raises `InputError` for an empty question."""
    query, path = load_text(components.store, state.get("query", "")), state.get("path", "")
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"the query is {query!r}; ask a question, as text")
    query, replaced = replace_unstorable(query)
    context = components.store.reference(state.get("context"), seconds=components.budget.seconds)
    journal, recorder = Journal(state.get("trajectory", [])), Recorder()
    is_empty = context is None and state.get("context") is not None
    if context is not None and journal.has_context(context):
        context = None
    if (cell := journal.unfinished_cell) is not None:
        _give_up(components, cell, recorder)
    if journal.turns:
        note_new_strategies(components, journal, path, recorder)
    question = _question_record(components, journal, path, query, context, is_empty=is_empty)
    recorder.record(question)
    if replaced:
        recorder.note(path, "model", f"In the question, U+FFFD stands for {describe_unstorable(replaced)}.")
    model = components.sub_model(path)
    if context is not None and "images" in context and model.sees is False and not path:
        text = (
            f"nobody sees the {count(context['images'], 'picture')} of the context: {model.name} reads only text; "
            "give a model that sees with recursive_model= or --sub-model"
        )
        recorder.note(path, "reader", text)
    return {
        "query": question["query"],
        "context": None,
        "run": state.get("run") or uuid.uuid4().hex,
        "path": path,
        **recorder.written(),
        **{key: None for key in ENDING_FIELDS if state.get(key) is not None},  # others stay unwritten
    }


def note_new_strategies(components: Components, journal: Journal, path: str, recorder: Recorder) -> None:
    """Record notes to the model about strategies that were added to this RLM since the run began."""
    every = components.strategies_for(journal.contexts.get("context"), path)
    # For a strategy that puts the context into the first prompt it is too late.
    new = [one for one in every if one.name not in journal.strategies and not one.whole]
    if not new:
        return
    guidance = "\n\n".join(strategy.guidance.strip() for strategy in new)
    text = render(components.root_model(path).profile, "more_ways", guidance=guidance)
    recorder.note(path, "model", text, strategies=[strategy.name for strategy in new])


def _question_record(
    components: Components, journal: Journal, path: str, query: str, context: ContextRef | None, *, is_empty: bool
) -> QuestionRecord:
    """Build the record of a question.

    `context` is None if there is none, or if the REPL already has it. `is_empty`: a context was given, and is
    empty.
    """
    strategies = components.strategies_for(journal.contexts.get("context", context), path)

    def prompt(query: str) -> str:
        return question_prompt(components, journal, path, query, context, strategies, is_empty=is_empty)

    is_long = len(query) > (CODE_QUESTION_CHARS if path else USER_QUESTION_CHARS)
    short = shorten(query) if is_long else query
    record = QuestionRecord(
        type="question",
        path=path,
        query=short,
        text=prompt(short),
        time=time.time(),
        context=context,
        sandbox=components.sandbox.name,
        strategies=[strategy.name for strategy in strategies],
    )
    if is_long:
        record["query_ref"] = store_text(components.store, query)
        record["text_ref"] = store_text(components.store, prompt(query))
    if examples := examples_for(components, journal, path, context):
        record["examples"] = examples
    if components.auto:
        record["chosen"] = True
    for exchange in exchanges(journal, components.store)[-1:]:
        record["earlier"] = cast(ContextRef, components.store.reference_from_repl(exchange))
    if is_empty:
        record["empty"] = True
    if context is None and any(journal.contexts.values()):
        record["follows"] = True
    if context is not None and not journal.turns and any(strategy.whole for strategy in strategies):
        record["whole"] = True
    return record


def _give_up(components: Components, cell: CellRecord, recorder: Recorder) -> None:
    """Record the end of a cell that was abandoned because of a new question. It is never run again."""
    text = render(components.root_model(cell["path"]).profile, "given_up")
    recorder.output((cell["path"], cell["cell"]), "died", text, is_error=True)
