"""The Python that every session starts with: the vocabulary, and built-ins and modules that Monty lacks.

Its files are in `prelude/globals` and `prelude/modules`. Each becomes a function whose built-in names are
parameters, so that nothing a cell assigns can change what it does.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from rlm_langchain.sandboxes.reserved import bindings

MODULE = """
class _rlm_Module:
    def __init__(self, name, names):
        self.__name__ = name
        for key in names:
            setattr(self, key, names[key])
    def __repr__(self):
        return f"<module {self.__name__!r}>"
"""


@cache
def library() -> str:
    """All of it as one program, whose value is a dict of the modules. It needs `__rlm_most__`."""
    made = "".join(_function(name, tree, _tuple(tree)) for name, tree in _trees("globals"))
    made += "".join(f"{', '.join(_exports(tree))}, = _rlm_make_{name}()\n" for name, tree in _trees("globals"))
    made += "".join(_function(name, tree, _module(name, tree)) for name, tree in _trees("modules"))
    modules = ", ".join(f"{name!r}: _rlm_make_{name}()" for name, _ in _trees("modules"))
    return f"{MODULE}{made}_rlm_modules = {{{modules}}}\n_rlm_modules\n"


@cache
def global_names() -> tuple[str, ...]:
    """What it defines for cells."""
    return tuple(name for _, tree in _trees("globals") for name in _exports(tree) if not name.startswith("_"))


@cache
def _trees(folder: str) -> tuple[tuple[str, ast.Module], ...]:
    found = files(__package__).joinpath("prelude", folder).iterdir()
    sources = {file.name[:-3]: file.read_text("utf-8") for file in found if file.name.endswith(".py")}
    return tuple((name, ast.parse(sources[name])) for name in sorted(sources))


def _exports(tree: ast.Module) -> list[str]:
    """The names that a file offers: public ones, and those that only the host knows."""
    own = {alias.asname or alias.name for alias in ast.walk(tree) if isinstance(alias, ast.alias)}
    names = dict.fromkeys(name for _, name in sorted(bindings(tree)) if name not in own)
    return [name for name in names if not name.startswith("_") or name.startswith(("_rlm_", "_host_"))]


def _tuple(tree: ast.Module) -> str:
    return f"({', '.join(_exports(tree))},)"


def _module(name: str, tree: ast.Module) -> str:
    return f"_rlm_Module({name!r}, {{{', '.join(f'{key!r}: {key}' for key in _exports(tree))}}})"


def _function(name: str, tree: ast.Module, returned: str) -> str:
    """The file as a function that returns what it offers. Comments and docstrings are left out."""
    body = "\n".join(ast.unparse(node) for node in _without_docstrings(tree).body)
    parameters = ", ".join(f"{used}={used}" for used in sorted(_built_in(tree)))
    indented = "\n".join("    " + line for line in body.split("\n"))
    return f"def _rlm_make_{name}({parameters}):\n{indented}\n    return {returned}\n"


def _built_in(tree: ast.Module) -> set[str]:
    """The built-in names that a file uses."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return (used & set(dir(builtins))) - {name for _, name in bindings(tree)}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in [tree, *_definitions(tree)]:
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]
    return tree


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
