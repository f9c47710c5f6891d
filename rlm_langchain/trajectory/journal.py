"""Reads the records of one run: its turns, cells, calls and outputs.

A trajectory holds the records of a run in the order in which they happened. Everything the graph needs to know
about the past is read from it here. A REPL is only a cache of the journal: `Repl.advance` brings any session to the
end of the journal and gives recorded replies to replayed calls, so that nothing is paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import JournalError
from rlm_langchain.records import (
    AnswerRecord,
    CallRecord,
    CellRecord,
    NoteRecord,
    OutputRecord,
    QuestionRecord,
    Record,
    TurnRecord,
    WaveRecord,
    depth_of,
)
from rlm_langchain.trajectory.checksum import is_intact
from rlm_langchain.trajectory.messages import transcript
from rlm_langchain.types import (
    Call,
    ContextRef,
    Excerpt,
    Flaw,
    Plain,
    Reply,
    Usage,
    total_usage,
)

_ANSWER_FIELDS = ("answer", "status", "stop_reason")
"""Fields that both the answer record and the state hold."""


def check_state(values: Mapping[str, Any]) -> None:
    """Raise `JournalError` if the state that a checkpointer returned is not the state that was written."""
    journal, records = Journal(values.get("trajectory", [])), values.get("trajectory", [])
    journal.check()
    if not records and values.get("path") is not None:  # every started run has a question
        raise JournalError(DAMAGED)
    last = records[-1] if records else None
    if last and last["type"] == "answer" and any(values.get(key) != last[key] for key in _ANSWER_FIELDS):
        raise JournalError(DAMAGED)


DAMAGED = (
    "the checkpoint of this run is damaged: records were changed, or are missing; go back to an earlier one with "
    "`rlm fork`, or ask again on a new thread"
)


def fingerprint(call: Call) -> str:
    """Return the SHA-256 of everything that decides the answer to a call: kind, prompt and context."""
    context: Any = call.context
    if isinstance(context, Excerpt):
        context = [context.file.sha256, context.start, context.stop]
    parts = json.dumps([call.kind, call.prompt, context], ensure_ascii=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class Journal:
    """The records of one run, indexed."""

    def __init__(self, records: Sequence[Record], store: ContextStore | None = None) -> None:
        self._store = store
        """Holds the long replies that records only refer to. None: replies will not be requested."""
        self.turns: list[TurnRecord] = []
        self.cells: list[CellRecord] = []
        self.outputs: dict[int, OutputRecord] = {}
        """Outputs by number of the cell."""
        self.calls: dict[int, CallRecord] = {}
        """Calls by number. Of a call that was made again, the last answer."""
        self.contexts: dict[str, ContextRef] = {}
        """Contexts by their names in the REPL: `context`, `context_1`, ..."""
        self.questions: list[tuple[QuestionRecord, AnswerRecord | None]] = []
        """Questions of the thread, each with its answer; an abandoned question has none."""
        self.earlier: list[ContextRef] = []
        """Questions and answers before the last question; each is a dict in the store."""
        self._earlier_name: str | None = None
        self._setups: dict[int, str] = {}
        self.sandbox: str | None = None
        """Name of the sandbox in which the cells ran."""
        self.strategies: list[str] = []
        """Names of the strategies whose helper functions the cells may use."""
        self.whole = False
        """Whether the root model read the whole context with the question."""
        self._wave = -1
        self.failed_waves = 0
        """Batches of the last cell since one of its calls was answered."""
        self.largest_batch = 0
        """Most calls that the last cell made at once."""
        self.flawed: dict[str, set[int]] = {}
        """Batches of the last cell in which a call had a flawed reply, by fingerprint of the call."""
        self._begin_question()
        self._records: list[Record] = []
        self.extend(records)

    def extend(self, records: Sequence[Record]) -> bool:
        """Read the new records at the end. Return False if `records` does not extend what was read.

        Without this, a run of many calls would read its whole past again at each of them.
        """
        read = len(self._records)
        if len(records) < read or (read and records[read - 1].get("seal") != self._records[-1].get("seal")):
            return False
        try:
            for record in records[read:]:
                self.add(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise JournalError(DAMAGED) from error
        return True

    def _begin_question(self) -> None:
        """Begin a new question on the same thread. REPL and conversation stay; usage is counted from zero."""
        self._turns_before_question = len(self.turns)
        self.account: list[TurnRecord | CallRecord | NoteRecord] = []
        """Turns and calls since the question, and notes on turns that have no record but were paid for."""
        self._root, self._sub, self._seconds, self._waited = Usage(), dict[int, Usage](), 0.0, 0.0
        self.has_empty_context = False
        """Whether the question came with an empty context."""
        self.quotes_rejected = False
        """Whether an answer was sent back because of its quotes."""
        self.sent_back_blank = False
        """Whether a blank answer was sent back."""

    @property
    def can_be_quoted(self) -> bool:
        """Return whether there is a context that is not empty."""
        return bool(self.contexts) and not self.has_empty_context

    def add(self, record: Record) -> None:
        """Read the next record."""
        self._records.append(record)
        match record["type"]:
            case "question":
                self._begin_question()
                self.questions.append((record, None))
                if earlier := record.get("earlier"):
                    self._earlier_name = self.earlier_name
                    self.earlier.append(earlier)
                    names = ", ".join(earlier_names(self.earlier))
                    self._setups[len(self.cells)] = f"{self._earlier_name} = [{names}]"
                self.has_empty_context = record.get("empty", False)
                self.sandbox = self.sandbox or record.get("sandbox")
                self._add_strategies(record)
                self.whole = record.get("whole", False)
                if (context := record.get("context")) and not self.has_context(context):
                    self.contexts[self.next_name] = context
            case "note":
                self._add_strategies(record)
                if "usage" in record:
                    self.account.append(record)
                    self._root = self._root.plus(Usage(**record["usage"]))
                self.quotes_rejected = self.quotes_rejected or "unfound" in record
            case "turn":
                self.turns.append(record)
                self.account.append(record)
                self._root = self._root.plus(Usage(**record["usage"]))
                self._seconds += record["seconds"]
            case "cell":
                self.cells.append(record)
                self.failed_waves, self.flawed, self.largest_batch = 0, {}, 0
            case "wave":
                self._waited = 0.0
                self._count_batch(record)
            case "call":
                self.failed_waves = self.failed_waves if record["error"] else 0
                if "flaw" in record:
                    self.flawed.setdefault(record["prompt_sha256"], set()).add(self._wave)
                self.calls[record["call"]] = record
                self.account.append(record)
                self._sub[record["call"]] = Usage(**record["usage"])  # includes that of the same call made before
                # The calls of a batch start together. `time` is not used: that clock may be changed meanwhile.
                self._seconds += max(0.0, record["seconds"] - self._waited)
                self._waited = max(self._waited, record["seconds"])
            case "output":
                self.outputs[record["cell"]] = record
                self.quotes_rejected = self.quotes_rejected or "unfound" in record
                self.sent_back_blank = self.sent_back_blank or "blank" in record
                self._seconds += record["seconds"]
            case "answer":
                self.questions[-1:] = [(question, record) for question, _ in self.questions[-1:]]

    def _add_strategies(self, record: QuestionRecord | NoteRecord) -> None:
        self.strategies += [name for name in record.get("strategies", ()) if name not in self.strategies]

    def _count_batch(self, wave: WaveRecord) -> None:
        """Count one more batch, unless it is the last one, repeated after a crash."""
        self.largest_batch = max(self.largest_batch, wave["count"])
        if wave["first"] != self._wave:
            self.failed_waves += 1
        self._wave = wave["first"]

    def reply(self, number: int, call: Call) -> Reply | None:
        """Return the recorded reply to call `number`, or None if there is none or a different call was recorded."""
        record = self.calls.get(number)
        if record is None or record["prompt_sha256"] != fingerprint(call):
            return None
        if call.kind == "history":
            return Reply(self.history(record))
        return Reply(self._value(record), record["error"])

    def _value(self, record: CallRecord) -> Plain:
        """Return the whole reply to a call. Raises `JournalError` when a long one is missing from the store."""
        if (ref := record.get("value_ref")) is None:
            return record["value"]
        assert self._store is not None  # noqa: S101 - where replies are asked for there is one
        return self._store.load(ref)

    def history(self, until: CallRecord | None = None) -> str:
        """Return the transcript up to the call `until`. It is derived from the records, not stored twice."""
        end = next((i for i, record in enumerate(self._records) if record is until), None)
        return transcript(self._records[:end])

    def has_context(self, context: ContextRef) -> bool:
        """Return whether the REPL has this context already."""
        known_contexts = self.contexts.values()
        return any(
            context["sha256"] == known["sha256"] and context["kind"] == known["kind"] for known in known_contexts
        )

    @property
    def next_name(self) -> str:
        """Return the REPL's name for the next context: one that no cell uses for something else."""
        if not self.contexts:
            return "context"
        names = (f"context_{number}" for number in count(len(self.contexts)))
        return next(name for name in names if not any(name in cell["code"] for cell in self.cells))

    @property
    def earlier_name(self) -> str:
        """Return the REPL's name for the list of earlier questions and answers. It stays the same on a thread."""
        if self._earlier_name is not None:
            return self._earlier_name
        names = chain(["earlier"], (f"earlier_{number}" for number in count(1)))
        return next(name for name in names if not any(name in cell["code"] for cell in self.cells))

    def setup(self, cell: int) -> str:
        """Return the code that the REPL must have run before this cell. Cells of earlier questions saw less."""
        return next((code for first, code in reversed(self._setups.items()) if first <= cell), "")

    @property
    def unfinished_cell(self) -> CellRecord | None:
        """Return the last cell if it has not ended, else None."""
        return self.cells[-1] if self.cells and not self.finished(self.cells[-1]["cell"]) else None

    def confirms_answer(self, answer: Any) -> bool:
        """Return whether `answer` matches the last cell's recorded answer. True if that cell gave none."""
        last = self.answered
        return last is None or bool(last.get("value") == answer)

    @property
    def answered(self) -> OutputRecord | None:
        """Return the output of the last turn's last cell if it gave an answer, or None."""
        last = self.outputs.get(self.cells[-1]["cell"]) if self.cells else None
        given = last is not None and last["outcome"] == "answered"
        return last if given and self.cells[-1]["turn"] == len(self.turns) - 1 else None

    @property
    def answered_at_once(self) -> bool:
        """Return whether the only turn since the question answers it in words, after reading everything."""
        first = len(self.turns) == self._turns_before_question + 1
        return first and not self.turns[-1]["cells"] and (self.whole or not any(self.contexts.values()))

    @property
    def flaw_of_answer(self) -> Flaw | None:
        """Return the defect of the last turn, whose words or code gave the answer."""
        return self.turns[-1].get("flaw") if self.turns else None

    @property
    def last_outputs(self) -> list[str]:
        """Return what code printed last since the question, and the last error after it, if any."""
        cells = [cell["cell"] for cell in self.cells if cell["turn"] >= self._turns_before_question]
        outputs = [self.outputs[cell] for cell in cells if cell in self.outputs]
        shown = [i for i, output in enumerate(outputs) if output["chars"]][-1:]
        raised = [i for i, output in enumerate(outputs) if output["error"] and "misfit" not in output][-1:]
        wanted = sorted({*shown, *(i for i in raised if not shown or i > shown[0])})
        return [outputs[i]["text"] for i in wanted]

    def finished(self, cell: int) -> bool:
        """Return whether a cell has ended."""
        return cell in self.outputs

    def next_code(self) -> str | None:
        """Return the last turn's next code block, or None if all have run, or an error or an answer came first."""
        if not self.turns:
            return None
        turn = self.turns[-1]
        started = [c for c in self.cells if c["turn"] == turn["turn"]]
        if any(self._stopped(c["cell"]) for c in started) or len(started) >= len(turn["cells"]):
            return None
        return turn["cells"][len(started)]

    def calls_before(self, cell: int) -> int:
        """Return the number of calls made by the cells up to and including this one."""
        numbers = [n for n, record in self.calls.items() if record["cell"] <= cell]
        return max(numbers) + 1 if numbers else 0

    def answers(self) -> dict[str, str]:
        """Return the replies to model calls, by model and fingerprint, for reuse by identical calls."""
        return {
            f"{call['model']} {call['prompt_sha256']}": call["value"]
            for call in self.calls.values()
            if call["model"] and isinstance(call["value"], str) and call["value"].strip() and "flaw" not in call
        }

    def runs(self) -> dict[str, str]:
        """Return the answers of child runs, by depth and fingerprint, for reuse by identical calls."""
        return {
            child_run_key(depth_of(call["path"]) + 1, call["prompt_sha256"]): str(self._value(call))
            for call in self.calls.values()
            if isinstance(call["value"], str) and call.get("child") and _answers(call["child"][-1])
        }

    def check(self) -> None:
        """Raise `JournalError` if records were changed on disk, or some are missing."""
        if not all(is_intact(record) for record in self._records):
            raise JournalError(DAMAGED)
        gaps = [
            [turn["turn"] for turn in self.turns] != list(range(len(self.turns))),
            [cell["cell"] for cell in self.cells] != list(range(len(self.cells))),
            any(cell["cell"] not in self.outputs for cell in self.cells[:-1]),
        ]
        if any(gaps):
            raise JournalError(DAMAGED)

    @property
    def steps_since_summary(self) -> int:
        """Return the number of turns since the history was last summarised."""
        last = max((i for i, turn in enumerate(self.turns) if turn.get("summary")), default=-1)
        return len(self.turns) - 1 - last

    @property
    def calls_since_question(self) -> list[CallRecord]:
        """Return the calls made for the last question."""
        return [record for record in self.account if record["type"] == "call"]

    @property
    def turns_since_question(self) -> list[TurnRecord]:
        """Return the turns made for the last question."""
        return self.turns[self._turns_before_question :]

    @property
    def iterations(self) -> int:
        """Return the number of turns since the question."""
        return len(self.turns) - self._turns_before_question

    @property
    def usage(self) -> tuple[Usage, Usage]:
        """Return the usage since the question: of the root turns, and of everything below them."""
        return self._root, total_usage(self._sub.values())

    @property
    def seconds(self) -> float:
        """Return the seconds that the run worked on turns, cells and batches, without pauses."""
        return self._seconds

    def _stopped(self, cell: int) -> bool:
        output = self.outputs.get(cell)
        return output is not None and (output["error"] or output["outcome"] != "completed")


def _answers(end: AnswerRecord) -> bool:
    """Return whether a child run's answer may be reused for identical calls."""
    return end["status"] == "complete" and end["answer"] not in (None, "")


def turn_path(path: str, turn: int) -> str:
    """Return the call path of a root turn of the run at `path`."""
    return f"{path} turn {turn}"


def earlier_names(earlier: Sequence[ContextRef]) -> list[str]:
    """Return the names under which the REPL gets the earlier questions and answers, one name for each."""
    return [f"_earlier_{number}" for number in range(len(earlier))]


def child_run_key(depth: int, sha256: str) -> str:
    """Return the key under which the answer of a child run at this depth, to a call of this fingerprint, is
    kept."""
    return f"{depth} {sha256}"
