"""Loads the Python code that every session starts with: the functions of the REPL, and built-ins and modules
that Monty lacks.

Its files are in `prelude/`. `globals` is loaded when a session opens, a module when a cell first imports it.
Each file becomes a function whose parameters are the built-in names, so that no assignment in a cell can change
its behaviour.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from rlm_langchain.sandboxes.monty.rewrite.expressions import tables
from rlm_langchain.sandboxes.reserved_names import bindings, parse

NATIVE = "_native_"
"""Prefix in the prelude for a built-in function that the prelude replaces."""

_MODULE = """
class _rlm_Module:
    def __init__(self, name, names):
        self.__name__ = name
        for key in names:
            setattr(self, key, names[key])
    def __repr__(self):
        return f"<module {self.__name__!r}>"
"""


@cache
def session_prelude() -> str:
    """Return the code that a session starts with. It uses `__rlm_most__`, the most bytes that may leave at once."""
    code, known = [tables(), _MODULE], {"_rlm_makers", "_rlm_owned"}
    for name in sorted(_sources("globals")):
        exports = _exports(_tree("globals", name))
        code.append(_function("globals", name, f"({', '.join(exports)},)", known))
        code.append(f"{', '.join(exports)}, = _rlm_make_{name}()\n")
        known |= {export for export in exports if export.startswith("_rlm_")}
    return "".join(code) + "None\n"


@cache
def global_names() -> tuple[str, ...]:
    """Return the names that it defines for cells."""
    exports = (name for file in sorted(_sources("globals")) for name in _exports(_tree("globals", file)))
    return tuple(name for name in exports if not name.startswith("_"))


@cache
def modules() -> frozenset[str]:
    """Return the modules that cells import from here and not from Monty."""
    return frozenset(_sources("modules"))


@cache
def module_code(module: str) -> str:
    """Return code that defines `_rlm_module_x`, the module `x`."""
    names = ", ".join(f"{name!r}: {name}" for name in _exports(_tree("modules", module)))
    made = _function("modules", module, f"_rlm_Module({module!r}, {{{names}}})", {"_rlm_method"})
    return f"{made}_rlm_module_{module} = _rlm_make_{module}()\nNone\n"


@cache
def _sources(folder: str) -> dict[str, Traversable]:
    found = files(__package__).joinpath("prelude", folder).iterdir()
    return {file.name[:-3]: file for file in found if file.name.endswith(".py")}


@cache
def _tree(folder: str, name: str) -> ast.Module:
    return parse(_sources(folder)[name].read_text("utf-8"))


def _exports(tree: ast.Module) -> list[str]:
    """Return the names that a file exports: public names, internal names for the host, and its `from` imports."""
    own = {name.asname or name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    names = dict.fromkeys(name for _, name in sorted(bindings(tree)) if name not in own)
    return [name for name in names if not name.startswith("_") or name.startswith(("_rlm_", "_host_"))]


def _function(folder: str, name: str, returned: str, known: set[str]) -> str:
    """Return a file as a function that returns its exports. `known` are names of ours that it may use.

    Comments and docstrings are removed.
    """
    tree = _tree(folder, name)
    body = "\n".join(ast.unparse(node) for node in _without_docstrings(tree).body)
    used = _names_used(tree)
    parameters = [f"{name}={name}" for name in sorted(used & {*dir(builtins), *known})]
    parameters += [f"{NATIVE}{name}={name}" for name in sorted(_native(used))]
    indented = "\n".join("    " + line for line in body.split("\n"))
    return f"def _rlm_make_{name}({', '.join(parameters)}):\n{indented}\n    return {returned}\n"


def _names_used(tree: ast.Module) -> set[str]:
    """Return the names that a file uses and does not define."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {name for _, name in bindings(tree)}


def _native(used: set[str]) -> set[str]:
    """Return the built-in functions that a file calls by another name, because it defines one of the same name."""
    return {name.removeprefix(NATIVE) for name in used if name.startswith(NATIVE)}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in [tree, *_definitions(tree)]:
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]
    return tree


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
