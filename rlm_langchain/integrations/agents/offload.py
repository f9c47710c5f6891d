"""Offloads long text from a conversation to the context store, and leaves a context name and an excerpt in its
place.

The message keeps the reference in `response_metadata`, which is not sent to providers. So the text can be opened
wherever the messages are: after a restart, from a checkpoint, in another process with the same `RLM_HOME`.
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

MOVED_KEY, HISTORY_KEY = "rlm_moved", "rlm_history"
"""Keys in `response_metadata`: references by context name; the name of the context with the older messages."""
SHOWN_CHARS, QUESTION_CHARS = 900, 2_000
"""Most characters that are shown of an offloaded text, and of the last question in offloaded messages."""


class SplitConversation(NamedTuple):
    """A conversation that is to be shortened."""

    system: list[BaseMessage]
    """System messages, which stay."""
    before: list[BaseMessage]
    """Older messages, to be offloaded."""
    kept: list[BaseMessage]
    """The latest messages, which stay."""


@dataclass(frozen=True, slots=True)
class Offloader:
    """Offloads long text to a store. Its methods block while they write."""

    store: ContextStore
    tool: str
    """The name of the tool by which the agent asks."""
    long: int
    """Length from which a text is offloaded, in characters."""
    history: int
    """Length of all messages together from which older ones are offloaded, in characters."""

    def shorten(self, message: M) -> M:
        """Return the message with a long text replaced by the name of its context and an excerpt."""
        if isinstance(message, SystemMessage):
            return message  # the model must follow instructions, not ask about them
        if isinstance(message, AIMessage) and not isinstance(message.content, str):
            return message  # content blocks of a model may be signed, and must be sent back unchanged
        text = str(message.text)
        if len(text) < self.long or MOVED_KEY in message.response_metadata:
            return self._without_artifact(message)
        ref = self._reference(text)
        what = (
            f"what {message.name or 'the tool'} gave back" if isinstance(message, ToolMessage) else "this message"
        )
        moved = self._note_of_move(f"{len(text):,} characters of {what}", context_name(ref))
        note = f"{moved}\n\n{_head_and_tail(text)}"
        others = [b for b in _content_blocks(message) if isinstance(b, dict) and b.get("type") != "text"]
        content: Any = [{"type": "text", "text": note}, *others] if others else note
        return self._without_artifact(_replace_content(message, content, {MOVED_KEY: {context_name(ref): ref}}))

    def conversation(self, messages: Sequence[BaseMessage]) -> list[BaseMessage] | None:
        """Return the conversation with long and old messages offloaded, or None if nothing changes."""
        shortened = [self.shorten(message) for message in messages]
        split = _split(shortened, self.history)
        if split is not None:
            return [*split.system, self._history_message(split.before), *split.kept]
        return shortened if any(a is not b for a, b in zip(shortened, messages, strict=True)) else None

    def context(self, messages: Sequence[BaseMessage], names: Sequence[str]) -> Any:
        """Return the context with this name, or a dict of several.

        Raises `InputError` for a name that the conversation does not have, `JournalError` if the text is gone.
        """
        known = references(messages)
        if missing := [one for one in names if one not in known]:
            raise InputError(f"there is no context {', '.join(missing)} here, but: {', '.join(known) or 'none'}")
        refs = {one: self.store.verified(known[one]) for one in names}
        if len(refs) == 1:
            self.store.open(refs[names[0]])
            return refs[names[0]]
        return {one: self.store.load(ref) for one, ref in refs.items()}

    def _history_message(self, before: list[BaseMessage]) -> HumanMessage:
        """Return the message that replaces older messages. Its context includes those offloaded earlier."""
        earlier = next(
            (m.response_metadata[HISTORY_KEY] for m in before if HISTORY_KEY in m.response_metadata), None
        )
        known = references(before)
        messages = [message for message in before if HISTORY_KEY not in message.response_metadata]
        items, lost = cast(list[Any], self.store.load(self._reference(messages))), ""
        if earlier:
            try:
                items = [*cast(list[Any], self.store.load(self.store.verified(known.pop(earlier)))), *items]
            except (InputError, JournalError) as error:  # the agent can continue without it, but must know
                lost = f"What was said before that is no longer there: {error}"
        ref = self._reference(items)
        what = f"{ref['size']:,} bytes of the conversation so far ({len(items)} messages)"
        parts = [self._note_of_move(what, context_name(ref)), *([lost] if lost else [])]
        questions = [message for message in messages if message.type == "human"]
        if questions:
            last = _head_and_tail(questions[-1].text, QUESTION_CHARS)
            parts.append(f"The last thing that was asked in it:\n\n{last}")
        if known:
            parts.append(f"Moved earlier, and mentioned in it: {', '.join(known)}.")
        return HumanMessage(
            "\n\n".join(parts),
            response_metadata={MOVED_KEY: {**known, context_name(ref): ref}, HISTORY_KEY: context_name(ref)},
        )

    def _note_of_move(self, what: str, name: str) -> str:
        return (
            f"[{what} were moved out of this conversation. They are the context `{name}`: "
            f'ask about them with `{self.tool}(query=..., contexts=["{name}"])`.]'
        )

    def _reference(self, value: Any) -> ContextRef:
        # The result of a tool is data, even if it looks like one of our references.
        ref = self.store.reference_from_repl(value) if isinstance(value, dict) else self.store.reference(value)
        assert ref is not None  # noqa: S101 - an offloaded text is not empty
        return self.store.with_short_preview(ref, 200)

    def _without_artifact(self, message: M) -> M:
        """Return the message with a long artifact replaced by a reference: prompts have no artifacts, but
        checkpoints do."""
        artifact = getattr(message, "artifact", None)
        if not isinstance(artifact, str | list | dict) or len(repr(artifact)) < self.long:
            return message
        try:
            return message.model_copy(update={"artifact": self._reference(artifact)})
        except InputError:
            return message


def context_name(ref: ContextRef) -> str:
    """Return the name of a context in the conversation."""
    return f"ctx_{ref['sha256'][:12]}"


def references(messages: Iterable[BaseMessage]) -> dict[str, ContextRef]:
    """Return the contexts that a conversation mentions, by name. Ours are never files, so those are left out."""
    found: dict[str, ContextRef] = {}
    for message in messages:
        found.update(message.response_metadata.get(MOVED_KEY, {}))
    return {name: ref for name, ref in found.items() if not ref.get("path")}


def prompt_chars(message: BaseMessage) -> int:
    """Return the approximate length of a message in a prompt, in characters."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return len(message.text) + sum(len(str(call["args"])) for call in calls)


def _split(messages: Sequence[BaseMessage], most: int) -> SplitConversation | None:
    """Split a conversation that is longer than `most` characters; None if it is not.

    The latest messages stay, up to half of `most`. A tool's result never stays without its call.
    """
    system: list[BaseMessage] = [m for m in messages if isinstance(m, SystemMessage)]
    messages = [message for message in messages if not isinstance(message, SystemMessage)]
    sizes, fixed = [prompt_chars(message) for message in messages], sum(map(prompt_chars, system))
    if not messages or sum(sizes) + fixed <= most:
        return None
    at, room = len(messages) - 1, most // 2 - fixed - sizes[-1]
    while at > 0 and sizes[at - 1] <= room:
        at -= 1
        room -= sizes[at]
    while at > 0 and isinstance(messages[at], ToolMessage):
        at -= 1
    before = messages[:at]
    fresh = [message for message in before if HISTORY_KEY not in message.response_metadata]
    return SplitConversation(system, before, messages[at:]) if fresh else None


def _replace_content(message: M, content: Any, metadata: dict[str, Any]) -> M:
    return message.model_copy(
        update={"content": content, "response_metadata": {**message.response_metadata, **metadata}}
    )


def _content_blocks(message: BaseMessage) -> list[Any]:
    return message.content if isinstance(message.content, list) else []


def _head_and_tail(text: str, most: int = SHOWN_CHARS) -> str:
    """Return the beginning and the end of a text, for the agent's model."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"It begins:\n\n{text[: most - tail]}\n\nand ends:\n\n{text[-tail:]}"
