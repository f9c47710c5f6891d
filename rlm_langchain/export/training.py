"""Training data from finished runs, for supervised fine-tuning and for reward models.

An *example* is one reply with everything that the model read before it: a turn of a root model, or a sub-call. A
*rollout* is the whole conversation of a run. A hash of the question assigns all of its examples to one split,
training or held out, so no question is in both.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from langchain_core.messages import BaseMessage
from typing_extensions import TypedDict

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError, InputError, JournalError
from rlm_langchain.records import AnswerRecord, CallRecord, Record, TurnRecord
from rlm_langchain.trajectory.messages import conversation, stored_prompts
from rlm_langchain.trajectory.tree import Trajectory, flatten

Split = Literal["train", "held_out"]
Kind = Literal["turns", "sub_calls", "rollouts"]
Form = Literal["openai", "neutral"]
ROLES = {"system": "system", "human": "user", "ai": "assistant"}
BUCKETS = 10_000


class Message(TypedDict):
    """A chat message in the format of most fine-tuning APIs."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Example(TypedDict):
    """One line of a data set in the `neutral` format."""

    id: str
    """SHA-256 of the messages, so equal examples have equal ids."""
    messages: list[Message]
    """The conversation. The reply to learn is the last message; in a rollout, every assistant message."""
    question: str
    """Question of the root run."""
    path: str
    """Path of the run in the tree; "" for the root run."""
    model: str
    status: str
    """Status of the root run: `complete`, `partial` or `failed`."""
    cost_usd: float | None
    """Dollars of the whole run tree. None if a price is unknown."""
    reward: float | None
    """Reward of the root run's answer. None without a scorer."""


class FinishedRun(NamedTuple):
    """A run from which to make training data."""

    records: Sequence[Record]
    """The trajectory of an output, or the records of a trace."""
    profile: str = "default"
    """Prompt profile of its root model: `default`, or `compact` for a small model."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Criteria for the runs in a data set."""

    only_complete: bool = True
    """Leave out runs whose answer is not `complete`."""
    max_usd: float | None = None
    """Leave out runs that cost more, or whose cost is unknown."""
    min_reward: float | None = None
    """Leave out runs whose answer has a lower reward."""


Score = Callable[[str, AnswerRecord], float]
"""Function from a question and its answer to a reward."""


@dataclass(slots=True)
class DataSet:
    """Distinct examples by kind and split, and the number of those left out, by reason."""

    held_out: float = 0.1
    """Share of the questions that is held out."""
    lines: dict[tuple[Kind, Split], dict[str, Example]] = field(default_factory=dict)
    """Examples by id, for each kind and split."""
    left_out: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def split_of(self, question: str) -> Split:
        """Return the split of a question."""
        digest = hashlib.sha256(" ".join(question.split()).casefold().encode("utf-8", "replace")).hexdigest()
        return "held_out" if int(digest, 16) % BUCKETS < self.held_out * BUCKETS else "train"

    def add(self, kind: Kind, example: Example) -> None:
        """Add an example, unless it is a duplicate."""
        known = self.lines.setdefault((kind, self.split_of(example["question"])), {})
        if example["id"] in known:
            self.left_out[f"{kind}: duplicate"] += 1
        else:
            known[example["id"]] = example
            self.models[example["model"]] += 1


def data_set(
    runs: Iterable[FinishedRun],
    *,
    store: ContextStore | None = None,
    filters: Filters = Filters(),
    score: Score | None = None,
    held_out: float = 0.1,
) -> DataSet:
    """Return the training data of these runs.

    `store` holds texts that records only refer to: long questions, long prompts of sub-calls, and short contexts
    that the model read whole. Examples with a missing text are left out and counted, never shortened. `score`
    returns the reward of the root run's answer. `held_out` is a share from 0 to 1. Raises `ConfigurationError` for
    any other share, or for `min_reward` without a scorer.
    """
    if not 0 <= held_out <= 1:
        raise ConfigurationError(f"held_out={held_out} is not a share: give a number from 0 to 1")
    if filters.min_reward is not None and score is None:
        raise ConfigurationError("min_reward needs a scorer: pass score=, or --answers FILE")
    data = DataSet(held_out)
    for run in runs:
        _Maker(run, store, data).add(filters, score)
    return data


@dataclass(slots=True)
class _Maker:
    run: FinishedRun
    store: ContextStore | None
    data: DataSet
    tree: Trajectory = field(init=False)
    by_path: dict[str, list[Record]] = field(default_factory=dict)
    common: dict[str, object] = field(default_factory=dict)
    """Fields shared by all examples of the run."""

    def __post_init__(self) -> None:
        self.tree = Trajectory.of(self.run.records)
        for record in flatten(self.run.records):
            self.by_path.setdefault(record["path"], []).append(record)

    def add(self, filters: Filters, score: Score | None) -> None:
        top = self.tree.runs.get("")
        answer = top.answer if top else None
        if top is None or top.question is None or answer is None:
            self.data.left_out["runs: no answer"] += 1
            return
        question, cost = self._last_question(), self.tree.spent.total.cost
        reward = None if score is None else score(question, answer)
        if why := _left_out(answer, cost, reward, filters):
            self.data.left_out[f"runs: {why}"] += 1
            return
        self.data.runs += 1
        self.common = {"question": question, "status": answer["status"], "cost_usd": cost, "reward": reward}
        for path, records in self.by_path.items():
            self._add_turns(path, records)
        for path, view in self.tree.runs.items():
            for cell in view.cells.values():
                prompts = {
                    number: prompt
                    for wave in cell.waves
                    for number, prompt in enumerate(stored_prompts(self.store, wave) or (), wave["first"])
                }
                for number, call in cell.calls.items():
                    if call.record is None:
                        continue
                    if call.record["kind"] == "llm":
                        self._add_sub_call(path, call.record, prompts.get(number))
                    elif call.record["kind"] == "vision":
                        self.data.left_out["sub_calls: about pictures, which no record has"] += 1

    def _last_question(self) -> str:
        return [record["query"] for record in self.by_path[""] if record["type"] == "question"][-1]

    def _add_turns(self, path: str, records: list[Record]) -> None:
        """Add the turns of a run, and its conversation as a rollout."""
        last: tuple[TurnRecord, list[Message]] | None = None
        for number, record in enumerate(records):
            if record["type"] != "turn":
                continue
            if record.get("flaw") or record.get("summary"):
                self.data.left_out["turns: empty, cut off, filtered, or a summary"] += 1
                continue
            messages = self._messages(records[:number])
            if messages is None:
                self.data.left_out["turns: a text that they refer to is missing"] += 1
                continue
            last = record, [*messages, Message(role="assistant", content=record["text"])]
            self._add("turns", path, record["model"], last[1])
        if last is not None:
            self._add("rollouts", path, last[0]["model"], last[1])

    def _messages(self, records: Sequence[Record]) -> list[Message] | None:
        """Return the messages before a turn, or None if some of their text is missing."""
        questions = [record for record in records if record["type"] == "question"]
        if self.store is None and any("text_ref" in record or record.get("whole") for record in questions):
            return None
        try:
            return [_message(one) for one in conversation(records, self.run.profile, self.store)]
        except JournalError:
            return None

    def _add_sub_call(self, path: str, record: CallRecord, prompt: str | None) -> None:
        if record["error"] is not None or record.get("flaw") or "value_ref" in record:
            self.data.left_out["sub_calls: failed, refused, empty or cut off"] += 1
            return
        if record.get("memo"):
            self.data.left_out["sub_calls: duplicate"] += 1
            return
        if prompt is None:
            if record["prompt_chars"] > len(record["preview"]):
                self.data.left_out["sub_calls: the full prompt is missing"] += 1
                return
            prompt = record["preview"]
        messages = [Message(role="user", content=prompt), Message(role="assistant", content=str(record["value"]))]
        self._add("sub_calls", path, record["model"], messages)

    def _add(self, kind: Kind, path: str, model: str, messages: list[Message]) -> None:
        text = json.dumps(messages, ensure_ascii=True, sort_keys=True)
        example = {
            "id": hashlib.sha256(text.encode()).hexdigest(),
            "messages": messages,
            "path": path,
            "model": model,
            **self.common,
        }
        self.data.add(kind, example)  # type: ignore[arg-type]


def _left_out(answer: AnswerRecord, cost: float | None, reward: float | None, filters: Filters) -> str:
    if answer["status"] == "failed":
        return "no answer"
    if filters.only_complete and answer["status"] != "complete":
        return "not complete"
    if filters.max_usd is not None and (cost is None or cost > filters.max_usd):
        return "too expensive, or cost unknown"
    if filters.min_reward is not None and (reward is None or reward < filters.min_reward):
        return "reward too low"
    return ""


def _message(message: BaseMessage) -> Message:
    return Message(role=ROLES[message.type], content=str(message.content))


def write(data: DataSet, folder: Path, form: Form = "openai") -> list[Path]:
    """Write a data set: a JSON Lines file for each kind and split, and a data card. Return the files.

    `openai` lines contain only `messages`, as in the chat format for fine-tuning; `neutral` lines are `Example`s.
    Raises `InputError` if the folder is not empty or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: give another folder")
        files = []
        for (kind, side), examples in sorted(data.lines.items()):
            files.append(folder / f"{kind}.{side}.jsonl")
            lines = (_line(example, form) for example in examples.values())
            files[-1].write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
        card = folder / "README.md"
        card.write_text(data_card(data, form), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}): give another folder") from error
    return [*files, card]


def _line(example: Example, form: Form) -> str:
    return f"{json.dumps({'messages': example['messages']} if form == 'openai' else example, ensure_ascii=False)}\n"


def data_card(data: DataSet, form: Form) -> str:
    """Return the data card in Markdown: contents, selection, and what was left out."""
    rows = [f"| {kind} | {side} | {len(found):,} |" for (kind, side), found in sorted(data.lines.items())]
    rewards = [
        one["reward"] for found in data.lines.values() for one in found.values() if one["reward"] is not None
    ]
    left = [f"- {count:,} {what}" for what, count in sorted(data.left_out.items())] or ["- nothing"]
    models = ", ".join(f"{name} ({count:,})" for name, count in data.models.most_common()) or "none"
    return "\n".join(
        [
            "# Training data from runs of a Recursive Language Model",
            "",
            f"From {data.runs:,} run{'s' * (data.runs != 1)}, in the {form} format. Written by rlm_langchain.",
            "",
            "| kind | split | examples |",
            "|---|---|---|",
            *rows,
            "",
            "`turns`: a reply of a root model, with everything it read before. `sub_calls`: a reply to a prompt "
            "written by its code. `rollouts`: the whole conversation of a run.",
            "",
            f"- Replies are by: {models}",
            f"- Held out: {data.held_out:.0%} of the questions, chosen by a hash, so none is in both splits",
            f"- Rewards: {'none' if not rewards else f'{min(rewards):g} to {max(rewards):g}'}",
            "",
            "Left out:",
            "",
            *left,
            "",
            "The prompts and replies contain text of the contexts, so check the licences and the personal "
            "data of the contexts. A provider's terms may forbid training on the replies of its models.",
            "",
        ]
    )
