"""Cells as root models write them, over small contexts, and what plain CPython makes of them.

`ordinary_cells.txt` holds the cells; `python tests/data/ordinary_cells.py` runs each in plain CPython and writes
`ordinary_cells.json`: what every sandbox should print and answer. A second run must write the same bytes.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXT, EXPECTED = HERE / "ordinary_cells.txt", HERE / "ordinary_cells.json"


class LLMError(Exception):
    """What a failed call raises in a cell."""


def reply(kind: str, prompt: str, context: Any) -> tuple[Any, str | None]:
    """The value and the error that the host of these cells replies: a function of the call alone."""
    if kind == "budget":
        return {"calls": 90, "usd": None, "seconds": 100.0}, None
    if prompt.startswith("fail"):
        return None, "the provider did not answer"
    if "yes or no" in prompt:
        return ("yes" if "model" in prompt else "no"), None
    if "JSON" in prompt:
        return '{"label": "good", "score": 0.5}', None
    about = "" if context is None else f" over {type(context).__name__} of {len(context)}"
    return f"{kind} reply to {len(prompt)} characters{about}", None


def contexts() -> dict[str, Any]:
    """The contexts that cells are about."""
    return {
        "log": _log(),
        "prose": _PROSE,
        "csv": _csv(),
        "records": _records(),
        "docs": _docs(),
        "files": _FILES,
        "chat": _CHAT,
    }


def _log() -> str:
    lines, at = [], 0
    levels, modules, users = ["INFO", "INFO", "WARN", "INFO", "ERROR"], ["db", "api", "auth"], ["ana", "bo", "cy"]
    for n in range(120):
        at += 37 + (n * 53) % 160
        stamp = f"2024-03-01 {7 + at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}"
        user, ms = users[(n * 7) % 11 % 3], 20 + (n * 97) % 1000
        what = "timeout waiting for lock" if n % 23 == 22 else "request done"
        lines.append(f"{stamp} {levels[(n * 3) % 13 % 5]} [{modules[n % 3]}] {what} user={user} ms={ms}")
    return "\n".join(lines) + "\n"


def _csv() -> str:
    cities, kinds = ["Porto", "Lima", "Oslo", "Turku"], ["sale", "refund", "sale"]
    rows = ["id,city,kind,date,amount"]
    for n in range(40):
        day = f"2024-{1 + n % 5:02d}-{1 + (n * 11) % 28:02d}"
        rows.append(f"T{n:03d},{cities[(n * 5) % 7 % 4]},{kinds[n % 3]},{day},{(n * 7919) % 50000 / 100:.2f}")
    return "\n".join(rows) + "\n"


def _records() -> list[dict[str, Any]]:
    names = ["Ana", "Bo", "Cy", "Dee", "Eli", "Fay", "Gus", "Hal", "Ida", "Jo", "Kit", "Lea"]
    tags = ["red", "blue", "green", "old"]
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(names):
        row: dict[str, Any] = {
            "name": name,
            "age": 21 + (n * 17) % 45,
            "team": "abc"[n % 3],
            "score": 40 + (n * 37) % 60 + 0.5 * (n % 2),
            "active": n % 4 != 1,
            "tags": [tags[n % 4], tags[(n * 3 + 1) % 4]],
        }
        if n % 2 == 0:
            row["address"] = {"city": "Porto", "zip": f"4{n:03d}"}
        rows.append(row)
    return rows


def _docs() -> list[str]:
    subjects = ["The cost of the model", "A small model", "Our garden", "The harbour office", "Version two"]
    verbs = ["grew by", "was cut by", "stayed near", "fell under"]
    ends = ["as the team had planned.", "which nobody expected!", "and the model was retrained.", "by spring."]
    return [
        f"{subjects[n % 5]} {verbs[n % 4]} {10 + n * 3} percent {ends[(n * 3) % 4]} "
        f"Note {n}: {subjects[(n + 2) % 5].lower()} {verbs[(n + 1) % 4]} {n} points."
        for n in range(12)
    ]


_PROSE = """The harbour lay quiet when Mara came down the hill, and the light on the far pier was still burning. She
had counted the boats every morning since the winter: eleven, then ten, then eleven again.

"You are early," said Tomas. He did not look up from the net. "The level of the water is not."

Mara laughed. It was an old joke between them, older than the lighthouse, and nobody else found it funny. She
sat down on the stones. The stones were cold; the air smelled of tar, of rope and of the eve of a storm.

By noon the wind had turned. Lights went on in the harbour office, one after another, and the harbour master rang
the bell twice. What did that mean? Tomas knew, and Mara knew, and so they ran.

Later she would say that the lightning came first. He would say it was the bell. In the end the boats were eleven,
and nobody asked again.
"""

_FILES = {
    "README.md": "# Store\n\nKeeps things on disk.\n\n## Use\n\nCall load, then save.\n\n"
    "| key | value |\n|-----|-------|\n| size | 10 |\n| mode | fast |\n\n## Licence\n\nMIT\n",
    "src/store.py": "import json\nfrom pathlib import Path\n\n\ndef load(path):\n    # TODO: cache this\n"
    "    return json.loads(Path(path).read_text())\n\n\ndef save(path, data):\n"
    "    Path(path).write_text(json.dumps(data))\n",
    "src/main.py": "import sys\n\nfrom store import load\n\n\ndef main():\n"
    "    print(load(sys.argv[1]))  # TODO: errors\n\n\n"
    "if __name__ == '__main__':\n    main()\n",
    "tests/test_store.py": "import json\n\nfrom store import save\n\n\ndef test_save(tmp_path):\n"
    "    save(tmp_path / 'x', {'a': 1})\n",
}

_CHAT = """User: Where did I leave the keys?
Assistant: You said that they were in the blue bowl.
User: And the passport?
Assistant: In the drawer of the desk, under the maps.
User: Thanks. Remind me to buy bread.
Assistant: I will remind you at five.
User: Who called yesterday?
Assistant: Your sister called twice, about the boat.
"""


def cells() -> list[dict[str, str]]:
    """The cells of the text file: name, context, code."""
    found = []
    for block in TEXT.read_text("utf-8").split("### ")[1:]:
        heading, _, code = block.partition("\n")
        name, _, context = heading.partition(" | ")
        found.append({"name": name, "context": context.strip(), "code": code.strip() + "\n"})
    return found


def plain(code: str, context: Any) -> dict[str, Any]:
    """What a cell prints and answers in plain CPython, with the vocabulary of the REPL around it."""
    answers: list[Any] = []
    names = _vocabulary(answers)
    names |= {"context": json.loads(json.dumps(context)), "__name__": "__main__"}
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
            if value is not None:
                print(repr(value))
    given = names.get("answer")
    if isinstance(given, dict) and given.get("ready"):
        answers.append(given["content"])
    return {"stdout": out.getvalue(), "answer": answers[-1] if answers else None}


def _vocabulary(answers: list[Any]) -> dict[str, Any]:
    def one(kind: str, prompt: str, context: Any = None) -> Any:
        value, error = reply(kind, prompt, context)
        if error is not None:
            raise LLMError(error)
        return value

    def many(word: str, kind: str, asked: list[tuple[str, Any]]) -> list[Any]:
        replies = [reply(kind, prompt, context) for prompt, context in asked]
        for n, (_, error) in enumerate(replies):
            if error is not None:
                print(f"[{word}] item {n} failed: {error}")
        return [value for value, _ in replies]

    names: dict[str, Any] = {
        "LLMError": LLMError,
        "llm_query": lambda prompt, context=None: one("llm", prompt, context),
        "rlm_query": lambda query, context=None: one("rlm", query, context),
        "llm_query_batched": lambda ps: many("llm_query_batched", "llm", [(p, None) for p in ps]),
        "rlm_query_batched": lambda pairs: many("rlm_query_batched", "rlm", list(pairs)),
        "budget": lambda: one("budget", ""),
        "FINAL": answers.append,
    }
    names["FINAL_VAR"] = lambda v: answers.append(names[v] if isinstance(v, str) else v)
    return names


def main() -> None:
    """Write what plain CPython makes of every cell."""
    held = contexts()
    done = [cell | {"expect": plain(cell["code"], held[cell["context"]])} for cell in cells()]
    EXPECTED.write_text(json.dumps({"contexts": held, "cells": done}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(done)} cells, {len({cell['name'] for cell in done})} names")


if __name__ == "__main__":
    main()
