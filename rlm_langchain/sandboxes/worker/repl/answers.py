"""How a cell answers, and how a program can look at its own variables."""

from __future__ import annotations

from rlm_langchain.sandboxes.worker.repl.json_values import dumped

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Namespace = dict[str, Any]


ANSWER_GIVEN = "__answer_given__"
"""Built-in name of `AnswerGiven`, for the handlers that `cell.py` adds."""


class AnswerGiven(SystemExit):
    """Ends a cell that has given its answer. Threads and event loops end with it, and `except Exception` does
    not catch it. Broader handlers are made to raise it again, see `cell.py`."""

    __module__ = "builtins"  # programs see a plain name


class Answers:
    """The first answer of the running cell. It is copied when it is given, so that later changes have no effect."""

    def __init__(self, names: Namespace, room: int) -> None:
        self._names, self._room = names, room
        self.when_given: Callable[[], None] = lambda: None
        """Called once, when the cell has its answer."""
        self.hidden: set[str] = set()
        """Names that do not belong to the program."""
        self._answer: str | None = None

    def FINAL(self, value: Any) -> None:  # noqa: N802 - the field's word
        """Answer with a value: text, a number, or lists and dicts of them. Ends the cell."""
        self.check()
        if value is self._names.get("answer") and _is_answer_dict(value):
            value = _content_of(value)
        self._answer = dumped(value, "the answer", self._room)
        self.when_given()
        self.check()

    def check(self) -> None:
        """Raise `AnswerGiven` if the cell has its answer: it may not make calls or answer again."""
        if self._answer is not None:
            raise AnswerGiven

    def FINAL_VAR(self, name: Any) -> None:  # noqa: N802
        """Answer with a variable, given by its name."""
        self.FINAL(self._variable(name) if issubclass(type(name), str) else name)

    def SHOW_VARS(self) -> str:  # noqa: N802
        """Return the variables of the REPL, one per line."""
        lines = [f"{name}: {_describe(self._names[name])}" for name in self._own()]
        return "\n".join(lines) or "(no variables yet)"

    def names(self) -> Namespace:
        """Return the names that the REPL defines for answering."""
        return {"FINAL": self.FINAL, "FINAL_VAR": self.FINAL_VAR, "SHOW_VARS": self.SHOW_VARS}

    def take_answer(self) -> str | None:
        """Return the cell's answer as JSON, once: the argument of FINAL, or a ready `answer`."""
        given, self._answer = self._answer, None
        answer = self._names.get("answer")
        if type(answer) is not dict or not answer.get("ready") or "content" not in answer:
            return given
        answer["ready"] = False  # also when FINAL has won: it must not be the answer of a later cell
        return given or dumped(answer["content"], 'answer["content"]', self._room)

    def _variable(self, name: str) -> Any:
        bare = name.strip().strip("'\"")
        if bare in self._names:
            return self._names[bare]
        if not bare.isidentifier():
            return name
        raise NameError(self._unknown(bare))

    def _unknown(self, name: str) -> str:
        import difflib

        own = self._own()
        near = difflib.get_close_matches(name, own, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(own) or 'none'}."
        return f"there is no variable called {name!r}; FINAL_VAR takes a name, FINAL a value.{meant}"

    def _own(self) -> list[str]:
        return [name for name in self._names if not name.startswith("__") and name not in self.hidden]


def _is_answer_dict(value: Any) -> bool:
    """Return whether this is the dict in which a program may leave its answer, and not another dict of that
    name."""
    return type(value) is dict and "ready" in value and value.keys() <= {"content", "ready"}


def _content_of(form: Any) -> Any:
    if "content" not in form:
        raise ValueError("`answer` has no content yet: call FINAL with the value that you found.")
    form["ready"] = False
    return form["content"]


def _describe(value: Any) -> str:
    """Describe a variable in a few words."""
    kind = type(value).__name__
    if issubclass(type(value), str):
        return f"{kind}, {len(value):,} characters"
    if issubclass(type(value), list | tuple | dict | set):
        return f"{kind}, {len(value):,} items"
    if issubclass(type(value), int | float | type(None)):
        return f"{kind}, {repr(value)[:40]}"
    return kind


def silence_answers_in_threads(threading: Any) -> None:
    """Make a thread that gives the answer end silently, like one that exits."""
    report = threading.excepthook

    def excepthook(args: Any) -> None:
        if not issubclass(args.exc_type, AnswerGiven):
            report(args)

    threading.excepthook = excepthook
