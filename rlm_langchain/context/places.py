"""Where a part of a context stands in what the user gave: the file, page, sheet and row, message, line.

It is found out from the value itself, whose fields, keys and order are those of the file, and from the names of the
files. Numbers count from 1, as people count. `place_at` and `place_of` also run in the REPL, in both sandboxes
(`repl_code`), so they and what they need are plain functions of few features.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

from rlm_langchain.types import ContextRef

FOLDER = "./"
"""As the name of a file: a folder, or files by their paths, so that keys are names of files."""

_PLACE_KINDS = {
    "workbook": ("xlsx", "xlsm", "xls", "ods"),
    "database": ("sqlite", "sqlite3", "db", "db3"),
    "table": ("csv", "tsv", "tab", "parquet", "feather", "arrow"),
    "folder": ("zip", "tar", "tgz", "tbz2", "txz"),
    "document": ("docx", "odt", "html", "htm", "xhtml"),
}
_PLACE_NUMBERS = ("page", "slide", "chapter", "cell")


def place_at(context: Any, path: Any, start: int, files: Any) -> dict[str, Any]:
    """Return where character `start` of the value at `path` of a context stands.

    `files` has the names of the files that it was made of, as in `ContextRef`. A row of a sheet has the number that
    the sheet gives it; other rows are counted without the header. The keys are in the order in which people name
    them.
    """
    name = files.get("", "")
    kind = _place_kind(name)
    place = {"file": name} if name and name[-1:] != "/" else {}
    item, record, rest = context, False, []
    for number in range(len(path)):
        step, outer, item = path[number], item, item[path[number]]
        if record:
            rest.append(step)
            if len(rest) == 3 and rest[0] == "attachments" and step == "content":
                attached = str(outer.get("name", ""))
                inner = place_at(item, path[number + 1 :], start, {"": attached})
                inner.pop("file", None)
                return {**place, "attachment": attached, **{key: inner[key] for key in inner if key not in place}}
        elif isinstance(step, str) and number == 0 and step in files:
            kind = _place_kind(files[step])
            is_name = "." in step and step.rpartition(".")[2] == files[step].rpartition(".")[2]
            place["file" if is_name else "context"] = step
        elif isinstance(step, str) and kind == "folder":
            place["file"] = f"{place['file']}/{step}" if "file" in place else step
            kind = _place_kind(step)
        elif isinstance(step, str):
            place.update(_place_message(outer))
            if "from" in place or "key" in place or "sheet" in place or "table" in place:
                record, rest = True, [step]
            else:
                place[{"workbook": "sheet", "database": "table"}.get(kind, "key")] = step
        else:
            record = not isinstance(item, str)
            place.update(_place_item(item, step, kind))
    if rest and rest[0] == "attachments" and len(rest) > 1:
        place["attachment"] = rest[1] + 1
    elif len(rest) > 1 or (rest and ("row" in place or rest[0] != _place_main(place))):
        place["column" if "row" in place else "field"] = _place_column(rest)
    if isinstance(item, str) and not record:
        place.update(_place_line(item, start, kind, place))
    return place


def _place_kind(name: str) -> str:
    """Return what a file is by its name, or an empty text if that makes no difference here."""
    if name[-1:] == "/":
        return "folder"
    parts = name.lower().split(".")
    if len(parts) > 2 and parts[-1] in ("gz", "bz2", "xz", "zst"):
        parts.pop()
    kinds = [kind for kind in _PLACE_KINDS if parts[-1] in _PLACE_KINDS[kind]]
    return kinds[0] if kinds and len(parts) > 1 else ""


def _place_main(place: dict[str, Any]) -> str:
    """Return the field with the text of a record, which needs no mention."""
    if "cell" in place:
        return "source"
    if "document" in place:
        return "page_content"
    return "content" if "from" in place and "date" not in place else "text"


def _place_item(item: Any, index: int, kind: str) -> dict[str, Any]:
    """Return the place of an item of a list."""
    if kind == "workbook":
        return {"row": index + (1 if isinstance(item, list) else 2)}
    if kind in ("database", "table"):
        return {"row": index + 1}
    first = next(iter(item), "") if isinstance(item, dict) else ""
    if first in _PLACE_NUMBERS and isinstance(item[first], int):
        return {first: item[first]}
    message = _place_message(item)
    if message:
        return {"message": index + 1, **message}
    if not isinstance(item, dict) or "page_content" not in item or not isinstance(item.get("metadata"), dict):
        return {"item": index + 1}
    found, known = {"document": index + 1}, item["metadata"]
    if isinstance(known.get("source"), str):
        found["file"] = known["source"]
    if "page_label" in known:  # `page` is counted from 0 by some loaders, from 1 by others
        found["page"] = known["page_label"]
    return found


def _place_message(item: Any) -> dict[str, Any]:
    """Return date and sender of a mail or another message, or nothing if it is none."""
    if not isinstance(item, dict):
        return {}
    if "from" in item and "date" in item and "subject" in item:
        return {"date": item["date"], "from": item["from"]}
    if "time" in item and "sender" in item and "text" in item:
        return {"date": item["time"], "from": item["sender"]}
    return {"from": item["role"]} if "role" in item and "content" in item else {}


def _place_column(rest: list[Any]) -> str:
    """Return the name of a column or field; of a column without a name, its letters in the sheet."""
    if len(rest) == 1 and isinstance(rest[0], int):
        letters, left = "", rest[0] + 1
        while left:
            left, digit = divmod(left - 1, 26)
            letters = chr(65 + digit) + letters
        return letters
    return ".".join([str(step) for step in rest])


def _place_line(text: Any, start: int, kind: str, place: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a text, and in a document the heading above it."""
    if ("item" in place or "key" in place) and "\n" not in text:
        return {}
    found: dict[str, Any] = {}
    end = text.find("\n", start) if kind == "document" else -1
    lines = (text[:end] if end >= 0 else text).split("\n") if kind == "document" else []
    headings = [line for line in lines if line[:1] == "#" and line.lstrip("#")[:1] == " "]
    if headings:
        found["heading"] = headings[-1].lstrip("#").strip()
    return {**found, "line": text.count("\n", 0, start) + 1}


def place_of(contexts: Any, value: Any, start: int = 0, end: Any = None) -> dict[str, Any]:
    """Return where a text, list or dict stands that is in one of the contexts, or a text within a text.

    `contexts` has the name, the value and the files of each. A tuple is a path: the keys and numbers that lead to a
    value, after the name of a further context. For a list, `start` and `end` are numbers of items. With `end`, "to"
    says where it ends. If it stands in several places, the first is returned, and "others" says how many more there
    are. Raises `ValueError` if it stands nowhere, `TypeError` for another value.
    """
    if not isinstance(value, (str, list, dict, tuple)):
        raise TypeError(f"source takes a text, a list or a dict of the context, not {type(value).__name__}")
    name, context, files, path, at, others = place_span(contexts, value)
    end = end if at is None or isinstance(value, str) or end is not None else len(value)  # of a slice
    here = _place_start(context, path, start, files, at)
    last = here if end is None else _place_start(context, path, max(start, end - 1), files, at)
    place = _place_in(name, _place_until(here, last))
    return {**place, "others": others} if others else place


def place_span(contexts: Any, value: Any) -> Any:
    """Return name, value and files of the context that a value stands in; the path to it, or to the text or list of
    which it is a part; the number of its first character or item there, None if it is all of it; and how many other
    places there are. Raises `ValueError` if it stands nowhere."""
    finders = [_place_path] if isinstance(value, tuple) else [_place_same, _place_find, _place_slice]
    for find, known in [(find, known) for find in finders for known in contexts if len(value)]:
        found = find(known[0], known[1], value)
        if found is not None:
            return (*known, *found)
    raise ValueError("source: this is not in the context, word for word: give it as it stands there")


def _place_start(context: Any, path: Any, start: int, files: Any, at: Any) -> dict[str, Any]:
    """Return the place of a character of a text, or of an item of a list, in what begins at `at`."""
    item, number = context, (at or 0) + start
    for step in path:
        item = item[step]
    if isinstance(item, list) and number < len(item) and (start or not path or at is not None):
        return place_at(context, [*path, number], 0, files)
    return place_at(context, path, number, files)


def _place_until(here: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """Return the first place with "to", where the last one is, if that is another."""
    for word in (*_PLACE_NUMBERS, "row", "message", "document", "item", "line"):
        if word in here and word in last and here[word] != last[word]:
            return {**here, "to": last[word]}
    return here


def _place_in(name: str, place: dict[str, Any]) -> dict[str, Any]:
    """Return the place with the name of a further context, such as `context_1`."""
    if name == "context":
        return place
    inner = f"{name}.{place['context']}" if "context" in place else name
    return {"context": inner, **{key: place[key] for key in place if key != "context"}}


def _place_path(name: str, context: Any, path: Any) -> Any:
    """Return what `_place_find` does for a path, or None if it leads into another context."""
    if name != "context":
        return (path[1:], None, 0) if path[0] == name else None
    return None if str(path[0]).startswith("context_") else (path, None, 0)


def _place_same(name: str, context: Any, value: Any) -> Any:
    """Return what `_place_find` does for the very same list or dict, or the whole context."""
    if context is value:
        return [], None, 0
    waiting: list[Any] = [([], context)] if isinstance(value, (list, dict)) else []
    while waiting:
        path, item = waiting.pop()
        if item is value:
            return path, None, 0
        waiting.extend(_place_inner(path, item, (list, dict)))
    return None


def _place_find(name: str, context: Any, value: Any) -> Any:
    """Return the path of a value, the first character in it, and how many other places there are, or None. A text
    that is equal comes before one that contains it."""
    is_text = isinstance(value, str)
    if isinstance(context, str):
        at = context.find(value) if is_text else -1
        return ([], at, context.count(value) - 1) if at >= 0 else None
    equal, within, repeated = [], [], 0
    waiting: list[Any] = [([], context)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, str) == is_text and item == value:
            equal.append(path)
        elif is_text and isinstance(item, str) and value in item:
            within.append((path, item.find(value)))
            repeated += item.count(value)
        waiting.extend(_place_inner(path, item, (str, list, dict)))
    if equal:
        return equal[0], None, len(equal) - 1
    return (*within[0], repeated - 1) if within else None


def _place_slice(name: str, context: Any, value: Any) -> Any:
    """Return what `_place_find` does for items of a list that follow each other. Lists and dicts must be the same
    ones, since equal rows are common."""
    waiting: list[Any] = [([], context)] if isinstance(value, list) else []
    size, found = len(value), []
    while waiting:
        path, item = waiting.pop()
        for at in range(len(item) - size + 1) if isinstance(item, list) else ():
            is_first = item[at] is value[0] if isinstance(value[0], (list, dict)) else item[at] == value[0]
            if is_first and item[at : at + size] == value:
                found.append((path, at))
        waiting.extend(_place_inner(path, item, (list, dict)))
    return (*found[0], len(found) - 1) if found else None


def _place_inner(path: Any, item: Any, kinds: Any) -> list[Any]:
    """Return the items of a list or dict that are of these types, the last first, each with its path."""
    if isinstance(item, str):
        return []
    keys = [*item] if isinstance(item, dict) else range(len(item))
    return [([*path, key], item[key]) for key in keys if isinstance(item[key], kinds)][::-1]


# --- The rest runs in the host only --------------------------------------------------------------


def with_file(ref: ContextRef, name: str) -> ContextRef:
    """Return a reference with the name of the file that it was made of; `FOLDER` for a folder."""
    clean = name.encode("utf-8", "replace").decode()
    return {**ref, "files": {"": clean}}


def in_context(name: str, place: dict[str, Any]) -> dict[str, Any]:
    """Return a place in the context of this name."""
    return _place_in(name, place)


def has_headings(files: Mapping[str, str]) -> bool:
    """Return whether a text with these files is a document, whose places have the heading above them."""
    return _place_kind(files.get("", "")) == "document"


def described(place: Mapping[str, Any]) -> str:
    """Return a place in words: `a.pdf, page 3`."""
    plain = ("file", "context", "key", "from", "date", "attachment")
    parts = [
        str(value) if word in plain and not isinstance(value, int) else f"{word} {value}"
        for word, value in place.items()
        if word != "to" and value != ""
    ]
    return ", ".join(parts)


def repl_code(contexts: Mapping[str, ContextRef | None]) -> str:
    """Return code that defines `source` in a REPL with these contexts; an empty text without any."""
    known = [f"({name!r}, {name}, {ref.get('files', {})!r})" for name, ref in contexts.items() if ref]
    return f"{_functions()}\n_rlm_places = (*_rlm_places(), [{', '.join(known)}])\n{_SOURCE}" if known else ""


@cache
def _functions() -> str:
    """Return the functions above as code of a function that returns them, without annotations and docstrings, which
    a REPL would have to compile."""
    body = list[ast.stmt]()
    for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        name = node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node).partition(" ")[0]
        if name in ("place_at", "place_of", "place_span") or name.startswith(("_place_", "_PLACE_")):
            body.append(_Plain().visit(node))
    code = indent(ast.unparse(ast.Module(body, [])), "    ")
    return f"def _rlm_places():\n{code}\n    return (place_of, place_span)"


class _Plain(ast.NodeTransformer):
    """Takes annotations and docstrings out of functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        if isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body = node.body[1:]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None  # noqa: S101 - for mypy
        return self.generic_visit(ast.Assign([node.target], node.value, lineno=node.lineno))


_SOURCE = '''
def source(value, start=0, end=None):
    """Where a text, list or dict of the context stands: file, page, sheet, row, message, line."""
    return _rlm_places[0](_rlm_places[2], value, start, end)
'''
