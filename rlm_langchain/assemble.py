"""From options to a machine: names become models, sandboxes and strategies, checked before anything is paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_langchain.context import ContextStore
from rlm_langchain.machine import Machine
from rlm_langchain.models import Model, resolve
from rlm_langchain.sandboxes.choice import choose
from rlm_langchain.schema import AnswerSchema
from rlm_langchain.skills import AUTO, strategies_of
from rlm_langchain.tools import tools_of

if TYPE_CHECKING:
    from rlm_langchain.runnable import RLMRunnable


def assemble(options: RLMRunnable) -> Machine:
    """The parts that the options name. Raises `ConfigurationError` or `SandboxError`."""
    root = resolve(options.root_model, "root")
    return Machine(
        root=root,
        subs=_subs(options.recursive_model or options.root_model),
        sandbox=choose(options.sandbox),
        strategies=None if options.strategies == AUTO else strategies_of(options.strategies),
        budget=options.budget,
        limits=options.limits,
        store=ContextStore(options.home),
        memo=options.memo,
        tools=(
            tools_of(options.tools),
            tools_of(options.tools if options.sub_tools is None else options.sub_tools),
        ),
        schema=None if options.answer_schema is None else AnswerSchema(options.answer_schema),
    )


def _subs(models: Any) -> tuple[Model, ...]:
    several = models if isinstance(models, list | tuple) else [models]
    return tuple(resolve(model, "sub") for model in several)
