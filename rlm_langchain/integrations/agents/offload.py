"""Long text out of a conversation: into the store of contexts, with a handle and a few words in its place.

The reference stays with the message (in `response_metadata`, which no provider is sent), so whoever has the
messages can open it: after a restart, from a checkpoint, in another process with the same `RLM_HOME`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.types import ContextRef

M = TypeVar("M", bound=BaseMessage)

MOVED, HISTORY = "rlm_moved", "rlm_history"
"""In `response_metadata`: references by handle; the handle of what was said before."""
SHOWN, ASKED = 900, 2_000
"""Characters that are left of a long text, and of the last thing that was asked."""


class SplitConversation(NamedTuple):
    """A conversation in parts."""

    system: list[BaseMessage]
    """Instructions: they stay, wherever they were."""
    before: list[BaseMessage]
    kept: list[BaseMessage]


@dataclass(frozen=True, slots=True)
class Offloader:
    """Moves what is too long. Blocks while it writes."""

    store: ContextStore
    tool: str
    """What the agent asks with."""
    long: int
    """Characters from which on a text is moved."""
    history: int
    """Characters of all messages together from which on the older ones are moved."""

    def shorter(self, message: M) -> M:
        """The message, with a handle in place of a long text."""
        if isinstance(message, SystemMessage):
            return message  # instructions are to be followed, not to be asked about
        if isinstance(message, AIMessage) and not isinstance(message.content, str):
            return message  # blocks of a model may be signed, and have to go back as they came
        text = str(message.text)
        if len(text) < self.long or MOVED in message.response_metadata:
            return self._without_artifact(message)
        ref = self._reference(text)
        what = (
            f"what {message.name or 'the tool'} gave back" if isinstance(message, ToolMessage) else "this message"
        )
        note = f"{self._moved(f'{len(text):,} characters of {what}', context_name(ref))}\n\n{_ends(text)}"
        others = [b for b in _blocks(message) if isinstance(b, dict) and b.get("type") != "text"]
        content: Any = [{"type": "text", "text": note}, *others] if others else note
        return self._without_artifact(_with(message, content, {MOVED: {context_name(ref): ref}}))

    def conversation(self, messages: Sequence[BaseMessage]) -> list[BaseMessage] | None:
        """The conversation with what is too long moved out of it; None when nothing is."""
        shorter = [self.shorter(message) for message in messages]
        cut = _cut(shorter, self.history)
        if cut is not None:
            return [*cut.system, self._note(cut.before), *cut.kept]
        return shorter if any(a is not b for a, b in zip(shorter, messages, strict=True)) else None

    def context(self, messages: Sequence[BaseMessage], handles: Sequence[str]) -> Any:
        """What handles in a conversation stand for.

        Raises `InputError` for one that is not in it, and `JournalError` when its text is gone.
        """
        known = references(messages)
        if missing := [one for one in handles if one not in known]:
            raise InputError(f"there is no context {', '.join(missing)} here, but: {', '.join(known) or 'none'}")
        wanted = {one: self.store.verified(known[one]) for one in handles}
        if len(wanted) == 1:
            self.store.open(wanted[handles[0]])
            return wanted[handles[0]]
        return {one: self.store.load(ref) for one, ref in wanted.items()}

    def _note(self, before: list[BaseMessage]) -> HumanMessage:
        """What stands for the older messages: those that were moved earlier are among them."""
        earlier = next((m.response_metadata[HISTORY] for m in before if HISTORY in m.response_metadata), None)
        known = references(before)
        said = [message for message in before if HISTORY not in message.response_metadata]
        items, lost = cast(list[Any], self.store.load(self._reference(said))), ""
        if earlier:
            try:
                items = [*cast(list[Any], self.store.load(self.store.verified(known.pop(earlier)))), *items]
            except (InputError, JournalError) as error:  # an agent need not end with it, but has to know
                lost = f"What was said before that is no longer there: {error}"
        ref = self._reference(items)
        what = f"{ref['size']:,} bytes of the conversation so far ({len(items)} messages)"
        told = [self._moved(what, context_name(ref)), *([lost] if lost else [])]
        asked = [message for message in said if message.type == "human"]
        told += [f"The last thing that was asked in it:\n\n{_ends(asked[-1].text, ASKED)}"] if asked else []
        if known:
            told.append(f"Moved earlier, and mentioned in it: {', '.join(known)}.")
        return HumanMessage(
            "\n\n".join(told),
            response_metadata={MOVED: {**known, context_name(ref): ref}, HISTORY: context_name(ref)},
        )

    def _moved(self, what: str, name: str) -> str:
        return (
            f"[{what} were moved out of this conversation. They are the context `{name}`: "
            f'ask about them with `{self.tool}(query=..., contexts=["{name}"])`.]'
        )

    def _reference(self, value: Any) -> ContextRef:
        # What a tool gave back is data, also where it looks like a reference of ours.
        ref = self.store.reference_from_repl(value) if isinstance(value, dict) else self.store.reference(value)
        assert ref is not None  # noqa: S101 - what is moved is not empty
        return self.store.with_short_preview(ref, 200)

    def _without_artifact(self, message: M) -> M:
        """A tool's artifact enters no prompt, but every checkpoint."""
        artifact = getattr(message, "artifact", None)
        if not isinstance(artifact, str | list | dict) or len(repr(artifact)) < self.long:
            return message
        try:
            return message.model_copy(update={"artifact": self._reference(artifact)})
        except InputError:
            return message


def context_name(ref: ContextRef) -> str:
    """What a model calls a context."""
    return f"ctx_{ref['sha256'][:12]}"


def references(messages: Iterable[BaseMessage]) -> dict[str, ContextRef]:
    """The contexts that a conversation mentions. One that names a file of this machine is none of ours."""
    found: dict[str, ContextRef] = {}
    for message in messages:
        found.update(message.response_metadata.get(MOVED, {}))
    return {name: ref for name, ref in found.items() if not ref.get("path")}


def size_of(message: BaseMessage) -> int:
    """About how many characters a message is in a prompt."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return len(message.text) + sum(len(str(call["args"])) for call in calls)


def _cut(messages: Sequence[BaseMessage], most: int) -> SplitConversation | None:
    """A conversation that is too long: half of what it may be is kept, and no result without its call."""
    system: list[BaseMessage] = [m for m in messages if isinstance(m, SystemMessage)]
    messages = [message for message in messages if not isinstance(message, SystemMessage)]
    sizes, fixed = [size_of(message) for message in messages], sum(map(size_of, system))
    if not messages or sum(sizes) + fixed <= most:
        return None
    at, room = len(messages) - 1, most // 2 - fixed - sizes[-1]
    while at > 0 and sizes[at - 1] <= room:
        at -= 1
        room -= sizes[at]
    while at > 0 and isinstance(messages[at], ToolMessage):
        at -= 1
    before = messages[:at]
    fresh = [message for message in before if HISTORY not in message.response_metadata]
    return SplitConversation(system, before, messages[at:]) if fresh else None


def _with(message: M, content: Any, metadata: dict[str, Any]) -> M:
    return message.model_copy(
        update={"content": content, "response_metadata": {**message.response_metadata, **metadata}}
    )


def _blocks(message: BaseMessage) -> list[Any]:
    return message.content if isinstance(message.content, list) else []


def _ends(text: str, most: int = SHOWN) -> str:
    """How a text begins and ends."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"It begins:\n\n{text[: most - tail]}\n\nand ends:\n\n{text[-tail:]}"
