"""The functions of the REPL: what a program can request from the host."""

from __future__ import annotations

from rlm_langchain.sandboxes.worker.lazy.contexts import place_of
from rlm_langchain.sandboxes.worker.repl.json_values import dumped, plain_form, quoted, whole

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Ask = tuple[str, Any, Any]
    """Kind, prompt and context of a call, as the program made it."""

    Exchange = Callable[[Sequence[str]], list[Any]]
    """Sends calls as JSON, and returns one `[value, error]` for each."""

BATCH = 10_000
"""Most calls that may be made at once."""

TOLD = 5
"""Failed items of a batch that the output names. Of the others it gives the number."""


class LLMError(Exception):
    """A call was not answered. The text says why."""

    __module__ = "builtins"  # for tracebacks: programs see a plain name


class Vocabulary:
    """The functions that a program calls by name. Each blocks until the host has replied."""

    def __init__(self, exchange: Exchange, room: int) -> None:
        self._exchange, self._room = exchange, room
        self.contexts: dict[str, Any] = {}
        """The texts of which a part can be passed to a child run without leaving the REPL."""

    def names(self) -> dict[str, Any]:
        """Return what the REPL defines, apart from the answer and the context."""
        words: tuple[Any, ...] = (
            self.llm_query,
            self.llm_query_batched,
            self.rlm_query,
            self.rlm_query_batched,
            self.recursive_lm,
            self.budget,
            self._host_call,
        )
        return {word.__name__: word for word in words} | {"LLMError": LLMError}

    def llm_query(self, prompt: str, context: Any = None, images: Any = None) -> str:
        """Call the sub-model once, perhaps about pictures: one handle, or a list of them. Raises LLMError if it
        does not answer."""
        return self._one(_ask_of(prompt, context, images, "llm_query"), "llm_query")  # type: ignore[no-any-return]

    def llm_query_batched(self, prompts: Iterable[str], images: Any = None) -> list[str | None]:
        """Call the sub-model with many prompts at once. Returns replies in the same order, None for those that
        failed. `images` has the handles for each prompt, or is one handle for all."""
        word = "llm_query_batched"
        listed = _listed(prompts, word)
        pairs = zip(listed, _for_each(listed, images), strict=True)
        return self._many([_ask_of(prompt, None, some, word) for prompt, some in pairs], word)

    def rlm_query(self, query: str, context: Any = None) -> Any:
        """Have a question answered by a child run. Raises LLMError if it has no answer."""
        return self._one(("rlm", query, context), "rlm_query")

    def rlm_query_batched(self, queries: Iterable[Any], contexts: Any = None) -> list[Any]:
        """Ask many questions at once: queries with contexts (one for each, or one for all), or (query, context)
        pairs."""
        asks = _paired(_listed(queries, "rlm_query_batched"), contexts)
        return self._many(asks, "rlm_query_batched")

    def recursive_lm(self, query: str, context: Any = None) -> Any:
        """Do what `rlm_query` does."""
        return self._one(("rlm", query, context), "recursive_lm")

    def budget(self) -> dict[str, Any]:
        """Return what is left of the budget."""
        return self._one(("budget", "", None), "budget")  # type: ignore[no-any-return]

    def _host_call(self, kind: str, prompt: Any, context: Any = None) -> Any:
        """Make any call to the host. Helpers use it to define more functions. A prompt that is a list is sent as
        JSON."""
        if type(prompt) is list:
            prompt = _json_of(prompt, str(kind))
        return self._one((str(kind), prompt, context), str(kind))

    def _one(self, ask: Ask, word: str) -> Any:
        [(value, error)] = self._exchange([self._encoded(ask, word)])
        if error is not None:
            raise LLMError(error)
        return value

    def _many(self, asks: list[Ask], word: str) -> list[Any]:
        if len(asks) > BATCH:
            raise ValueError(f"{word} takes at most {BATCH:,} items at once, not {len(asks):,}")
        replies = self._exchange([self._encoded(ask, word) for ask in asks])
        _tell([(n, error) for n, (_, error) in enumerate(replies) if error is not None], word)
        return [value if error is None else None for value, error in replies]

    def _encoded(self, ask: Ask, word: str) -> str:
        kind, prompt, context = ask
        if not issubclass(type(prompt), str):
            raise TypeError(_not_a_text(prompt, word))
        if kind == "rlm" and isinstance(context, str) and (place := place_of(context, self.contexts)):
            return dumped([kind, prompt, None, place], f"a call of {word}", self._room)
        if context is not None and not issubclass(type(context), str | list | tuple | dict):
            context = _as_text(context, word)
        return dumped([whole(kind), prompt, context], f"a call of {word}", self._room)


def _ask_of(prompt: Any, context: Any, images: Any, word: str) -> Ask:
    """Return a question to a model. With pictures, it is a call of another kind, whose context holds both."""
    if images is None:
        return ("llm", prompt, context)
    handles = [images] if isinstance(images, dict) else images
    if not isinstance(handles, list | tuple):
        raise TypeError(f"images of {word} must be a list of handles, not {type(images).__name__}")
    if context is not None and not issubclass(type(context), str | list | tuple | dict):
        context = _as_text(context, word)
    return ("vision", prompt, {"images": [*handles], "context": context})


def _for_each(prompts: list[Any], images: Any) -> list[Any]:
    """Return the pictures of each prompt."""
    if images is None or isinstance(images, dict):
        return [images] * len(prompts)
    pictures = list(images)
    if len(pictures) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many images, or lists of them, not {len(pictures)}")
    return pictures


def _json_of(prompt: list[Any], word: str) -> str:
    """Return arguments as JSON. The host's own functions may take what no answer can hold, such as huge numbers."""
    import json

    def plain(value: Any) -> Any:
        try:
            return plain_form(value)
        except TypeError as error:
            raise TypeError(f"an argument of a call of {word} holds {error}") from None

    text = json.dumps(prompt, default=plain)
    if "\\ud" in text:  # perhaps half of a surrogate pair
        text = json.dumps(json.loads(whole(json.dumps(prompt, default=plain, ensure_ascii=False))))
    return text


def _as_text(context: Any, word: str) -> str:
    """Return a lazy text as a `str` if it is small enough; anything else raises."""
    if isinstance(context, str):
        return str(context)
    raise TypeError(f"the context of {word} must be a text, a list or a dict, not {type(context).__name__}")


def _not_a_text(prompt: Any, word: str) -> str:
    hint = "str(...) makes one"
    if isinstance(prompt, list | tuple):
        hint = "for several at once there is the batched function, or join them into one"
    elif isinstance(prompt, str):
        hint = "this is a lazy text: take a slice of it"
    elif prompt is None:
        hint = "perhaps an earlier batch failed in this place"
    return f"{word} takes a text (str) as its prompt, not {type(prompt).__name__}: {hint}"


def _listed(items: Iterable[Any], word: str) -> list[Any]:
    if isinstance(items, str | bytes | dict):
        raise TypeError(f"{word} takes a list of prompts, not one {type(items).__name__}")
    return list(items)


def _paired(queries: list[Any], contexts: Any) -> list[Ask]:
    """Return queries and contexts as calls. `contexts` may be one for all, or one for each."""
    if contexts is None:
        return [_unpacked(query) for query in queries]
    if not isinstance(contexts, list | tuple):
        contexts = [contexts] * len(queries)
    if len(contexts) != len(queries):
        raise ValueError(f"{len(queries)} queries need as many contexts, not {len(contexts)}")
    return [("rlm", query, context) for query, context in zip(queries, contexts, strict=True)]


def _unpacked(item: Any) -> Ask:
    """Return a query, a (query, context) pair, or a dict of both as a call."""
    match item:
        case {"query": query, **rest}:
            return ("rlm", query, rest.get("context"))
        case (query, context):
            return ("rlm", query, context)
    return ("rlm", item, None)


def _tell(failed: list[tuple[int, str]], word: str) -> None:
    """Print which items of a batch failed, and why."""
    for n, error in failed[:TOLD]:
        print(f"[{word}] item {n} failed: {error}")
    if len(failed) > TOLD:
        print(f"[{word}] {len(failed) - TOLD} more items failed")


def joined(turn: int, calls: Sequence[str]) -> str:
    """Return a frame that makes these calls."""
    return f'["calls",{turn},[{",".join(calls)}]]'


def ended(turn: int, error: str | None) -> str:
    """Return a frame that says how a cell ended without an answer."""
    return f'["done",{turn},{_or_null(error)}]'


def answering(turn: int, value: str, error: str | None) -> str:
    """Return a frame with the answer of a cell, which is JSON already."""
    return f'["answer",{turn},{value},{_or_null(error)}]'


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(whole(text))
