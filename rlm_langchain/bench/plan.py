"""The plan of a benchmark: arms, task families, lengths, models and limits. It is stored in its folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rlm_langchain.bench.arms.arm import arm
from rlm_langchain.bench.arms.baselines import window_of
from rlm_langchain.bench.arms.fixed import SCRIPTED, fixed_model, scripted_policy
from rlm_langchain.bench.items import Item, ItemRecord, Manifest, Question, item_record, make_item, manifest
from rlm_langchain.bench.tasks import family
from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import InputError, UnknownPlugin
from rlm_langchain.models import local, pricing
from rlm_langchain.models.model import Model, Price, Role
from rlm_langchain.models.registry import resolve
from rlm_langchain.types import Usage


class Suite(NamedTuple):
    """Default arms, task families, lengths and number of items of a benchmark."""

    name: str
    about: str
    families: tuple[str, ...]
    lengths: tuple[int, ...]
    """Lengths of the contexts, in tokens."""
    n: int
    """Number of items per family and length."""
    arms: tuple[str, ...]


_ARMS = ("direct", "bm25", "map_reduce", "rlm_depth_0", "rlm_depth_1")
_ALL = (
    *("niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "variable_tracking", "count_lines"),
    *("code_where", "code_subclasses", "transactions_count", "transactions_top", "chats_count", "chats_pairs"),
)
SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke",
            "check that everything works, within minutes",
            ("niah_single", "count_lines"),
            (2_000,),
            1,
            _ARMS,
        ),
        Suite(
            "needles",
            "RULER's needles and variable tracking",
            tuple(name for name in _ALL if name.startswith("niah") or name == "variable_tracking"),
            (8_000, 128_000, 1_000_000),
            20,
            _ARMS,
        ),
        Suite("standard", "every family", _ALL, (8_000, 128_000, 1_000_000), 20, _ARMS),
    )
}


def suite(name: str) -> Suite:
    """Return a suite by name. Raises an `UnknownPlugin` that lists all suites."""
    if name not in SUITES:
        raise UnknownPlugin("suites", name, SUITES)
    return SUITES[name]


@dataclass(frozen=True, slots=True)
class Plan:
    """All options that determine the results of a benchmark."""

    model: str
    arms: tuple[str, ...]
    families: tuple[str, ...]
    lengths: tuple[int, ...]
    n: int
    seed: int = 0
    sub_model: str | None = None
    """The model for sub-calls of RLMs. None: `model`."""
    price: tuple[float, float] | None = None
    """Dollars per million input and output tokens, for models without a known price."""
    calls: int = 200
    """Maximum number of model calls per question and arm."""
    seconds: float | None = None
    """Maximum seconds per question and arm."""
    usd_each: float | None = None
    """Maximum dollars per question and arm."""

    def checked(self) -> Plan:
        """Return this plan. Raises `UnknownPlugin` for an unknown arm or family."""
        for name in self.arms:
            arm(name)
        for name in self.families:
            family(name)
        return self

    @property
    def budget(self) -> Budget:
        """Return the limits per question and arm."""
        return Budget(calls=self.calls, seconds=self.seconds, usd=self.usd_each)

    @property
    def runs(self) -> int:
        """Return the number of questions times the number of arms."""
        return len(self.arms) * len(self.families) * len(self.lengths) * self.n

    def items(self) -> Iterator[Item]:
        """Yield all items."""
        for length in self.lengths:
            for name in self.families:
                for index in range(self.n):
                    yield make_item(family(name), length, index, self.seed)

    def resolve(self, role: Role) -> Model:
        """Return the model for a role, with its price. Raises `ConfigurationError`."""
        name = self.sub_model if role == "sub" and self.sub_model else self.model
        if name == SCRIPTED:
            return scripted_policy()
        model = resolve(name, role)
        if self.price is not None and not pricing.has_price(model):
            return replace(model, price=Price(*self.price))
        return model


class Machine(TypedDict):
    """The machine on which a benchmark ran."""

    system: str
    python: str
    cores: int | None
    rlm_langchain: str


class StoredQuestion(TypedDict):
    """A question in `run.json`. Its context is in a separate file."""

    text: str
    expected: list[str]


class StoredRun(TypedDict):
    """Contents of `run.json` in the folder of a benchmark."""

    plan: dict[str, Any]
    machine: Machine
    manifest: Manifest
    questions: dict[str, StoredQuestion]
    """Questions by item id."""


PLAN_FILE, CONTEXTS, LOGS = "run.json", "contexts", "logs"


def prepare(plan: Plan, folder: Path) -> StoredRun:
    """Write a plan, its manifest, questions and contexts into a folder, and return the contents of `run.json`.

    A folder that holds the same plan is continued with its own contexts. Raises `InputError` if it holds another
    plan, or if a context is missing.
    """
    if (folder / PLAN_FILE).exists():
        return _continued(plan, folder)
    (folder / CONTEXTS).mkdir(parents=True, exist_ok=True)
    records, questions = list[ItemRecord](), dict[str, StoredQuestion]()
    for item in plan.items():
        context_path(folder, item.id).write_text(item.question.context, encoding="utf-8", newline="")
        records.append(item_record(item))
        questions[item.id] = StoredQuestion(text=item.question.text, expected=list(item.question.expected))
    found = StoredRun(
        plan=asdict(plan), machine=_machine(), manifest=manifest(records, plan.seed), questions=questions
    )
    part = folder / f"{PLAN_FILE}.part"  # renamed when complete: the process may be killed at any time
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.rename(folder / PLAN_FILE)
    return found


def _continued(plan: Plan, folder: Path) -> StoredRun:
    stored = read_run(folder)
    if (before := read_plan(stored)) != plan:
        raise InputError(
            f"{folder} holds a benchmark with different options: {_differences(before, plan)}. Give the same "
            "options, or another folder with --out"
        )
    paths = [context_path(folder, record["id"]) for record in stored["manifest"]["items"]]
    if lost := [path for path in paths if not path.exists()]:
        raise InputError(f"{lost[0]} is missing: start again in another folder with --out")
    return stored


def stored_item(stored: StoredRun, name: str) -> Item:
    """Return an item of a stored run, without its context."""
    [record] = [one for one in stored["manifest"]["items"] if one["id"] == name]
    text, expected = stored["questions"][name]["text"], stored["questions"][name]["expected"]
    question = Question(text, "", tuple(expected), record["metric"])
    return Item(record["family"], record["length"], record["index"], question)


def read_run(folder: Path) -> StoredRun:
    """Read `run.json` from a folder. Raises `InputError` if there is no benchmark in it."""
    try:
        found: StoredRun = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} does not hold a benchmark ({error}): start one with `rlm bench run --out`"
        ) from error
    return found


def read_plan(stored: StoredRun) -> Plan:
    """Return the plan of a stored run."""
    given = stored["plan"].items()
    plan: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    return Plan(**plan)


def context_path(folder: Path, item: str) -> Path:
    """Return the file that holds the context of an item."""
    return folder / CONTEXTS / f"{item}.txt"


def _machine() -> Machine:
    from importlib.metadata import version

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        cores=cpu_count(),
        rlm_langchain=version("rlm-langchain"),
    )


def _differences(old: Plan, new: Plan) -> str:
    names = [one.name for one in fields(Plan) if getattr(old, one.name) != getattr(new, one.name)]
    return ", ".join(f"{name} was {getattr(old, name)!r} and is {getattr(new, name)!r}" for name in names)


class Estimate(NamedTuple):
    """Estimated usage of an arm."""

    arm: str
    runs: int
    usage: Usage
    """The total. Its cost is None if the price of the model is unknown."""


def estimates(plan: Plan) -> list[Estimate]:
    """Estimate the usage of each arm. All calls are priced as calls of the root model.

    No model is called, and the local model is not started.
    """
    model = fixed_model(local.NAME, str, local.WINDOW) if plan.model == local.NAME else plan.resolve("root")
    return [_estimate(plan, name, model) for name in plan.arms]


def _estimate(plan: Plan, name: str, model: Model) -> Estimate:
    items, total = len(plan.families) * plan.n, Usage()
    for length in plan.lengths:
        usage = arm(name).expected(length, window_of(model))
        each = max(1, usage.calls)
        # Prices may depend on the size of a request, so the price of an average request is multiplied.
        one = pricing.cost(model, Usage(1, usage.input // each, 0, usage.output // each))
        cost = None if one is None else one * usage.calls
        for _ in range(items):
            total = total.plus(usage._replace(cost=cost))
    return Estimate(name, items * len(plan.lengths), total)
