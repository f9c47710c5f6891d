"""Input and output of an RLM as pydantic models: for tools, servers and generated forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional, cast

from pydantic import BaseModel, Field, create_model
from typing_extensions import NotRequired, get_args, get_origin, get_type_hints

from rlm_langchain.answers.schema import with_typing_extensions
from rlm_langchain.records import RLMOutput


def input_model() -> type[BaseModel]:
    """Return the model of a question and its context."""
    return create_model(
        "RLMInput",
        query=(str, Field(description="The question, complete in itself.")),
        context=(Any, Field(None, description="What the question is about, of any length: a text, a list, ...")),
    )


def output_model(answer: Any) -> type[BaseModel]:
    """Return the model of an `RLMOutput` whose answer has the type `answer`, if that is a type."""
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(RLMOutput, include_extras=True).items():
        optional: bool = get_origin(hint) is cast(Any, NotRequired)
        fields[name] = (get_args(hint)[0], None) if optional else (hint, ...)
    if answer is not None and not isinstance(answer, Mapping):
        fields["answer"] = (Optional[with_typing_extensions(answer)], ...)  # noqa: UP045 - any type, not only a class
    return create_model("RLMOutput", **fields)


def add_chunks(parts: Iterable[Any]) -> Any:
    """Add up the parts that a chain's step yields, as LangChain does. If they cannot be added, return the last
    one."""
    total: Any = None
    for part in parts:
        try:
            total = part if total is None else total + part
        except TypeError:
            total = part
    return total
