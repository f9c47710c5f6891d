"""JSON, JSON Lines and notebooks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rlm_langchain.context.describe import count, list_counts, list_keys, quoted
from rlm_langchain.context.formats.parsed import AsText, Parsed, SourceFile, Text
from rlm_langchain.context.sources.json_values import why_not_json
from rlm_langchain.errors import InputError

_MAX_LINES = 5
"""Number of bad lines that are named."""
_MAX_OUTPUT = 20_000
"""Most characters of one output of a notebook's cell."""


class _Decoder:
    """Parses JSON, and counts what Python accepts and JSON cannot hold."""

    def __init__(self) -> None:
        self.repeated = self.constants = 0
        self._decoder = json.JSONDecoder(object_pairs_hook=self._dict, parse_constant=self._none)

    def value(self, text: str) -> Any:
        """Return the value. Raises `ValueError`."""
        try:
            value = self._decoder.decode(text)
            wrong = why_not_json(value)
        except (RecursionError, InputError) as error:
            raise ValueError("it is nested too deeply") from error
        if wrong:
            raise ValueError(f"it{wrong}")
        return value

    def notes(self) -> list[str]:
        """Return what was replaced or left out."""
        constants = f"replaced: {count(self.constants, 'NaN or Infinity')} by None" if self.constants else ""
        repeated = f"left out: {count(self.repeated, 'value')} whose key comes again" if self.repeated else ""
        return [*filter(None, (constants, repeated))]

    def _dict(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.repeated += len(pairs) - len(found)
        return found

    def _none(self, _: str) -> None:
        self.constants += 1


def read_json(file: SourceFile) -> Parsed | AsText:
    """Read a list or an object; anything else stays a text."""
    text, decoder = Text(file), _Decoder()
    try:
        value = decoder.value(text.whole())
    except ValueError as error:
        return AsText(f"it is no JSON ({_short(error)}), so it is read as text")
    if not isinstance(value, list | dict) or not value:
        return AsText()
    shape = "dict" if isinstance(value, dict) else "list"
    return Parsed("JSON", shape, value, "item", _fields(value), [*text.notes(), *decoder.notes()])  # type: ignore[arg-type]


def _fields(value: list[Any] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        return f"keys: {list_keys(value)}"
    kinds = Counter(type(item).__name__.replace("NoneType", "None") for item in value)
    keys = f"; keys of the first: {list_keys(value[0])}" if isinstance(value[0], dict) else ""
    return f"{list_counts(kinds)}{keys}"


def read_lines(file: SourceFile) -> Parsed | AsText:
    """Read JSON Lines: a list of what the lines hold. Lines that are not JSON are left out, and counted."""
    text, decoder = Text(file), _Decoder()
    keys, notes = dict[str, None](), list[str]()

    def items() -> Iterator[Any]:
        bad = list[int]()
        for number, line in enumerate(text.lines(), 1):
            if not line.strip():
                continue
            try:
                value = decoder.value(line)
            except ValueError:
                bad.append(number)
                continue
            if isinstance(value, dict) and len(keys) < 50:
                keys.update(dict.fromkeys(value))
            yield value
        if bad:
            more = ", ..." if len(bad) > _MAX_LINES else ""
            where = ", ".join(f"{number:,}" for number in bad[:_MAX_LINES])
            notes.append(f"left out: {count(len(bad), 'line')} that {_are(bad)} no JSON (line {where}{more})")
        notes.extend((*text.notes(), *decoder.notes()))

    return Parsed("JSON Lines", "list", items(), "item", lambda: f"keys: {list_keys(keys)}" if keys else "", notes)


def _are(items: list[int]) -> str:
    return "is" if len(items) == 1 else "are"


def read_notebook(file: SourceFile) -> Parsed | AsText:
    """Read a Jupyter notebook: a list of its cells. Pictures in outputs are left out, and counted."""
    text = Text(file)
    try:
        found = json.loads(text.whole())
        cells = (
            found["cells"] if "cells" in found else [one for sheet in found["worksheets"] for one in sheet["cells"]]
        )
        pictures = Counter[str]()
        value = [_cell(number, one, pictures) for number, one in enumerate(cells, 1)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return AsText(f"it is no notebook ({_short(error)}), so it is read as text")
    kinds = list_counts(Counter(one["type"] for one in value))
    notes = text.notes()
    if pictures:
        notes.append(f"left out: {list_counts(pictures)} in outputs")
    return Parsed(
        "notebook", "list", value, "cell", f"{kinds}; keys: {list_keys(value[0]) if value else 'none'}", notes
    )


def _cell(number: int, cell: dict[str, Any], pictures: Counter[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "cell": number,
        "type": str(cell["cell_type"]),
        "source": _joined(cell.get("source", cell.get("input", ""))),
    }
    if cell["cell_type"] == "code":
        made["output"] = "".join(_output(one, pictures) for one in cell.get("outputs", []))
    return made


def _output(output: dict[str, Any], pictures: Counter[str]) -> str:
    data = output.get("data", output)
    pictures.update(kind for kind in data if kind.startswith("image/"))
    if output.get("output_type") in ("error", "pyerr"):
        return f"{output.get('ename', '')}: {output.get('evalue', '')}\n"
    for key in ("text/markdown", "text/plain", "text", "text/html"):
        if key in data:
            return _joined(data[key])
    return ""


def _joined(text: Any) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text)


def _short(error: Exception) -> str:
    return quoted(str(error))[1:-1]
