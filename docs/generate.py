"""Writes the parts of the manual that are made from the code: `python docs/generate.py`.

A page holds each of them between two comments, `<!-- generated: NAME -->` and `<!-- end -->`. They are kept in the
repository, so that the pages can be read without a build. A test fails when one of them is not what the code says;
`python docs/generate.py --check` says the same.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

import rlm_langchain
from rlm_langchain import (
    Budget,
    Limits,
    RLMInput,
    RLMOutput,
)
from rlm_langchain.batch.results import Result
from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.cli.app import app

DOCS = Path(__file__).parent
PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


class Field(NamedTuple):
    """An attribute of a class, as its source says it."""

    name: str
    type: str
    default: str
    text: str


def fields(of: type) -> list[Field]:
    """The attributes that a class declares itself, in order, with the docstrings below them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(of))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = []
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            text = _text_of(following) or ""
            found.append(
                Field(node.target.id, ast.unparse(node.annotation), _source(node.value), " ".join(text.split()))
            )
    return found


def _text_of(node: ast.stmt | None) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def _source(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


# --- Limits ------------------------------------------------------------------------------------------


def budget() -> str:
    """Limits of a run: field, flag of the command, default, meaning."""
    options = {limit.field: limit.option for limit in LIMITS}
    flags = {name: f"`{option.flag}`" for name, option in options.items() if option}
    return table(
        ("`Budget(...)`", "`rlm ask`", "default", "what it limits"),
        ((f"`{one.name}`", flags.get(one.name, ""), f"`{one.default}`", one.text) for one in fields(Budget)),
    )


def outcomes() -> str:
    """What happens at each limit of a run; those that end alike share a row."""
    order = [one.name for one in fields(Budget)]
    alike: dict[str, list[str]] = {}
    for limit in sorted(LIMITS, key=lambda limit: order.index(limit.field)):
        alike.setdefault(limit.outcome, []).append(f"`{limit.field}`")
    return table(("limit", "then"), ((", ".join(names), outcome) for outcome, names in alike.items()))


WORDS = {
    "seed": "What randomness starts from.",
}
"""For fields whose name says enough to a reader of the code."""


def limits() -> str:
    """Limits of a cell."""
    return table(
        ("`Limits(...)`", "default", "what it limits"),
        ((f"`{one.name}`", f"`{_number(one.default)}`", one.text or WORDS[one.name]) for one in fields(Limits)),
    )


def _number(source: str) -> str:
    return f"{source} ({eval(source):,})" if "<<" in source else source


# --- Records -------------------------------------------------------------------------------------------


def record_types() -> dict[str, type]:
    """The records of a trajectory by the word in their field `type`."""
    [union] = typing.get_args(typing.get_type_hints(RLMOutput)["trajectory"])
    return {typing.get_args(typing.get_type_hints(one)["type"])[0]: one for one in typing.get_args(union)}


def records() -> str:
    """All records, a table each."""
    return "\n".join(_described(f"`{kind}`", record) for kind, record in record_types().items())


def parts() -> str:
    """What records hold that is neither a number nor a text."""
    hints = typing.get_type_hints(RLMOutput)
    [question, *_] = record_types().values()
    [answer] = [one for kind, one in record_types().items() if kind == "answer"]
    [context, _] = typing.get_args(typing.get_type_hints(question)["context"])
    [citation] = typing.get_args(typing.get_type_hints(answer)["citations"])
    coverage = hints["coverage"]
    [span] = typing.get_args(typing.get_type_hints(coverage)["where"])
    usage = typing.get_args(hints["usage"])[1]
    return "\n".join(_described(f"`{one.__name__}`", one) for one in (context, usage, citation, coverage, span))


def output() -> str:
    """Input and output of a run."""
    return "\n".join(_described(f"`{one.__name__}`", one) for one in (RLMInput, RLMOutput))


def batch_results() -> str:
    """A result of a batch."""
    rows = [(f"`{one.name}`", f"`{_plain(one.type)}`", _optional(one) + one.text) for one in fields(Result)]
    return table(("field", "type", ""), rows)


def _described(title: str, of: type) -> str:
    rows = [(f"`{one.name}`", f"`{_plain(one.type)}`", _optional(one) + one.text) for one in fields(of)]
    return f"### {title}\n\n{_first_paragraph(of)}\n\n{table(('field', 'type', ''), rows)}"


def _plain(annotation: str) -> str:
    return re.sub(r"^NotRequired\[(.*)\]$", r"\1", annotation)


def _optional(field: Field) -> str:
    return "*Optional.* " if field.type.startswith("NotRequired") else ""


def _first_paragraph(of: type) -> str:
    return " ".join((inspect.getdoc(of) or "").partition("\n\n")[0].split())


# --- The command ---------------------------------------------------------------------------------------


def command(name: str) -> Any:
    """One of the commands of `rlm`."""
    return typing.cast(Any, typer.main.get_command(app)).commands[name]


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_commands(typing.cast(Any, typer.main.get_command(app)), "rlm"))


def _commands(group: Any, prefix: str) -> Iterator[str]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, f"{prefix} {name}")
        else:
            yield _command(one, f"{prefix} {name}")


def _command(one: Any, name: str) -> str:
    arguments = [param for param in one.params if param.param_type_name == "argument"]
    options = [param for param in one.params if param.param_type_name == "option"]
    usage = " ".join([name, *(_argument(param) for param in arguments), *(["[options]"] if options else [])])
    rows = [(f"`{_argument(param)}`", _help(param)) for param in arguments]
    rows += [(f"`{_option(param)}`", _help(param)) for param in options if param.name != "help"]
    about = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(one.help or "")).strip()
    return f"## `{name}`\n\n```text\n{usage}\n```\n\n{about}\n" + (
        f"\n{table(('takes', ''), rows)}" if rows else ""
    )


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    name = f"{name}..." if param.nargs == -1 else name
    return name if param.required else f"[{name}]"


def _option(param: Any) -> str:
    names = ", ".join(sorted(param.opts, key=len, reverse=True))
    return names if param.is_flag else f"{names} {param.metavar or param.type.name.upper()}"


def _help(param: Any) -> str:
    default = param.default if isinstance(param.default, str | int | float) and not param.is_flag else None
    return (param.help or "") + (f" Default: `{default}`." if default not in (None, "") else "")


# --- Prompts -------------------------------------------------------------------------------------------


def prompts(profile: str) -> str:
    """Every prompt of a profile, word for word; the system prompt first."""
    folder = Path(rlm_langchain.__file__).parent / "prompts" / profile
    files = sorted(folder.glob("*.md"), key=lambda path: (path.stem != "system", path.stem))
    texts = {path.name: path.read_text(encoding="utf-8").rstrip() for path in files}
    return "\n".join(f"### `{profile}/{name}`\n\n````md\n{text}\n````\n" for name, text in texts.items())


PARTS: dict[str, Callable[[], str]] = {
    "budget": budget,
    "budget-outcomes": outcomes,
    "limits": limits,
    "records": records,
    "record-parts": parts,
    "input-output": output,
    "batch-results": batch_results,
    "commands": commands,
    "prompts-default": lambda: prompts("default"),
    "prompts-compact": lambda: prompts("compact"),
}


def generated(page: str) -> str:
    """The text of a page with all of its generated parts as the code has them now."""
    return PART.sub(lambda found: f"{found['begin']}\n{PARTS[found['name']]()}\n{found['end']}", page)


def stale() -> Iterator[tuple[Path, str]]:
    """The pages that are not what the code says, and what they should be."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if text != (new := generated(text)):
            yield path, new


def main() -> int:
    """Write them, or with `--check` name them."""
    check = "--check" in sys.argv[1:]
    for path, new in stale():
        print(f"{path}: {'not what the code says; run python docs/generate.py' if check else 'written'}")
        if not check:
            path.write_text(new, encoding="utf-8")
    return int(check and any(stale()))


if __name__ == "__main__":
    sys.exit(main())
