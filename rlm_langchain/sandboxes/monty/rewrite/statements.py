"""Rewrites statements that Monty would interpret differently."""

from __future__ import annotations

import ast

from rlm_langchain.sandboxes.monty.prelude_loader import modules
from rlm_langchain.sandboxes.monty.rewrite.edits import Edits


def imported(node: ast.Import | ast.ImportFrom, edits: Edits) -> frozenset[str]:
    """Replace imports from our prelude by assignments. Return the modules that they need."""
    if isinstance(node, ast.ImportFrom):
        made, needed = _imported_from(node), {(node.module or "").partition(".")[0]}
        ours = not node.level and needed <= modules() and "*" not in {name.name for name in node.names}
    else:
        tops = {name.name: name.name.partition(".")[0] for name in node.names}
        ours = any(top in modules() for top in tops.values())
        made, needed = [_imported(name) for name in node.names], {*tops.values()} & modules()
    if not ours:
        return frozenset()
    edits.replace(*edits.tree.span(node), "; ".join(made))
    return frozenset(needed)


def _imported(name: ast.alias) -> str:
    """Rewrite `import a`, `import a.b`, `import a.b as c`. Imports of other modules are unchanged."""
    top, _, rest = name.name.partition(".")
    if top not in modules():
        return f"import {name.name}" + (f" as {name.asname}" if name.asname else "")
    whole = f"_rlm_import(_rlm_module_{top}, {rest!r})" if rest else f"_rlm_module_{top}"
    if rest and not name.asname:
        return f"{whole}; {top} = _rlm_module_{top}"
    return f"{name.asname or top} = {whole}"


def _imported_from(node: ast.ImportFrom) -> list[str]:
    top, _, rest = (node.module or "").partition(".")
    path = f"{rest}." if rest else ""
    return [
        f"{name.asname or name.name} = _rlm_import(_rlm_module_{top}, {path + name.name!r})" for name in node.names
    ]


def deleted(node: ast.Delete, edits: Edits) -> None:
    """Replace `del d[k]` by a function call, and `del x` by the one statement of Monty that unbinds a name."""
    start, end = edits.tree.span(node)
    code = [_deletion(target, edits) for target in node.targets]
    several = any("\n" in part for part in code if part is not None)
    if None in code or (several and not edits.tree.has_line_to_itself(start, end)):
        return  # Monty will say that it has no `del`
    indent = "\n" + " " * (start - edits.tree.line_start(start))
    separator = "\n" if several else "; "
    edits.replace(start, end, separator.join(part or "" for part in code).replace("\n", indent))


def caught(node: ast.Try, edits: Edits) -> None:
    """Let handlers that catch everything pass the end of an answered cell: `FINAL` raises `KeyboardInterrupt`."""
    if not any(handler.type is None or _names_all(handler.type) for handler in node.handlers):
        return
    first = node.handlers[0]
    at = edits.tree.span(first)[0]
    indent = edits.tree.code[edits.tree.line_start(at) : at]
    edits.replace(at, at, f"except KeyboardInterrupt: raise\n{indent}")


def _names_all(kind: ast.expr) -> bool:
    return any(isinstance(name, ast.Name) and name.id in _WIDE for name in ast.walk(kind))


_WIDE = ("BaseException", "KeyboardInterrupt")


def _deletion(target: ast.expr, edits: Edits) -> str | None:
    match target:
        case ast.Name(id=name) if "ValueError" not in edits.tree.names:
            return f"try: {name}; raise ValueError\nexcept ValueError as {name}: pass"
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            ends = [edits.tree.text(part) if part else "None" for part in (lower, upper, step)]
            return f"_rlm_delete({edits.tree.text(value)}, slice({', '.join(ends)}))"
        case ast.Subscript(value=value, slice=key):
            return f"_rlm_delete({edits.tree.text(value)}, {edits.tree.text(key)})"
    return None


def defined(node: ast.ClassDef, edits: Edits) -> None:
    """Record the fields of a dataclass for the prelude, and create static and class methods after the class."""
    fields = [item.target.id for item in node.body if _is_field(item)]  # type: ignore[attr-defined]
    for decorator in node.decorator_list:
        if _is_dataclass(decorator):
            edits.around(decorator, f"_rlm_fields({fields!r}, ", ")")
    made = [line for item in node.body if (line := _made_after(node, item, edits)) is not None]
    indent = "\n" + " " * node.col_offset
    end = edits.tree.span(node)[1]
    edits.replace(end, end, "".join(indent + line for line in made))


def _made_after(node: ast.ClassDef, item: ast.stmt, edits: Edits) -> str | None:
    """Return the statement that makes a method a static or class method. Its decorator becomes a comment."""
    match item:
        case ast.FunctionDef(
            name=name, decorator_list=[ast.Name(id="staticmethod" | "classmethod" as kind) as how]
        ):
            start, end = edits.tree.span(how)
            edits.replace(edits.tree.code.rfind("@", 0, start), end, f"# {kind}")
            return f"{node.name}.{name} = _rlm_{kind}({node.name}, {node.name}.{name})"
    return None


def _is_field(item: ast.stmt) -> bool:
    return isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)


def _is_dataclass(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (isinstance(called, ast.Name) and called.id == "dataclass") or (
        isinstance(called, ast.Attribute) and called.attr == "dataclass"
    )
