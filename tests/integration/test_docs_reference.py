"""The reference of the manual says what the code does: generated parts, the REPL, variables, drawings, links."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import rlm_langchain
from rlm_langchain import create_rlm, create_rlm_graph
from rlm_langchain.batch.questions import ROW_LIMITS
from rlm_langchain.cli.doctor import KEYS
from rlm_langchain.models.providers import PROVIDERS
from rlm_langchain.models.registry import FORMS
from rlm_langchain.testing.models import script
from rlm_langchain.types import StopReason
from tests.integration.test_docs import DOCS, PAGES, ROOT

PACKAGE = Path(rlm_langchain.__file__).parent
SANDBOXES = ("cpython", "monty")
REPL = (DOCS / "reference" / "repl.md").read_text(encoding="utf-8")
SIGNATURE = re.compile(r"^### (?P<name>\w+)\n\n```text\n(?P<signature>.*?)\n```", re.MULTILINE | re.DOTALL)


def answer(cell: str, sandbox: str) -> object:
    """What a cell answers in a sandbox, with tools and search at hand."""

    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    model = script(cell, "FINAL('the first cell gave no answer')")
    return create_rlm(model, sandbox=sandbox, retriever="bm25", tools=[double]).completion("?", "one two")["answer"]


# --- Generated parts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_what_the_code_says(generate: ModuleType) -> None:
    assert [str(path) for path, _ in generate.stale()] == [], "run: python docs/generate.py"


def test_a_stale_part_is_noticed(generate: ModuleType) -> None:
    page = "<!-- generated: limits -->\nwhat was true once\n<!-- end -->"

    assert "memory" in generate.generated(page)


def test_every_part_that_can_be_generated_is_on_a_page(generate: ModuleType) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert set(generate.PARTS) == {found["name"] for found in generate.PART.finditer(pages)}


def test_the_command_that_generates_finds_nothing_to_do() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, done.stdout) == (0, "")


def test_every_field_of_the_budget_and_of_a_cell_has_words(generate: ModuleType) -> None:
    for of in (rlm_langchain.Budget, rlm_langchain.Limits):
        assert all(field.text or field.name in generate.WORDS for field in generate.fields(of))


# --- The REPL ------------------------------------------------------------------------------------------


def test_every_name_of_the_repl_is_on_its_page() -> None:
    names = answer("FINAL(sorted(name for name in globals() if not name.startswith('__')))", "cpython")
    assert isinstance(names, list)
    documented = {found["name"] for found in SIGNATURE.finditer(REPL)}

    assert (
        set(names) - {"double", "json", "_part_to_search", "_passage_found", "_rlm_places", "_tool"} - documented
        == set()
    )
    assert documented - set(names) == {"history", "earlier"}  # there after a summary, or another question, only


def documented_parameters() -> dict[str, list[str]]:
    """The parameters of each function of the REPL, as its page has them; those with a default end in `=`."""
    found = {}
    for match in SIGNATURE.finditer(REPL):
        if "(" not in match["signature"] or match["signature"].startswith(("class", "answer")):
            continue
        [function] = ast.parse(f"def {match['signature']}: ...").body
        assert isinstance(function, ast.FunctionDef)
        names, defaults = [arg.arg for arg in function.args.args], len(function.args.defaults)
        found[match["name"]] = [
            *names[: len(names) - defaults],
            *(f"{name}=" for name in names[len(names) - defaults :]),
        ]
    return found


def test_signatures_are_those_of_cpython() -> None:
    documented = documented_parameters()
    cell = """
import inspect
def parameters(function):
    return [p.name + ("" if p.default is p.empty else "=") for p in inspect.signature(function).parameters.values()]
FINAL({name: parameters(globals()[name]) for name in %r})
"""

    assert answer(cell % list(documented), "cpython") == documented


CALLS = {
    "llm_query": "llm_query(prompt='q', context=None)",
    "llm_query_batched": "llm_query_batched(prompts=['q'])",
    "rlm_query": "rlm_query(query='q', context=None)",
    "rlm_query_batched": "rlm_query_batched(queries=['q'], contexts=None)",
    "recursive_lm": "recursive_lm(query='q', context=None)",
    "budget": "budget()",
    "search": "search(query='q', k=1, within=None)",
    "source": "source(value=context, start=0, end=None)",
    "SHOW_VARS": "SHOW_VARS()",
    "_host_call": "_host_call(kind='budget', prompt='', context=None)",
    "FINAL": "FINAL(value=1)",
    "FINAL_VAR": "FINAL_VAR(name=1)",
}


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_each_function_takes_the_arguments_of_its_page_by_name(sandbox: str) -> None:
    assert set(CALLS) == set(documented_parameters())

    ends = ("FINAL", "FINAL_VAR")
    others = [call for name, call in CALLS.items() if name not in ends]
    assert answer("\n".join([*others, "FINAL('all of them')"]), sandbox) == "all of them"
    for name in ends:  # each ends its cell
        assert answer(CALLS[name], sandbox) == 1


@pytest.mark.parametrize("name", [name for name, names in documented_parameters().items() if "context=" in names])
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_context_may_be_left_out_where_its_page_says_so(sandbox: str, name: str) -> None:
    first = "'budget', ''" if name == "_host_call" else "'q'"

    assert answer(f"{name}({first})\nFINAL('taken')", sandbox) == "taken"


RAISED = {
    "llm_query(3)": "TypeError",
    "llm_query(None)": "TypeError",
    "llm_query('q', {1})": "TypeError",
    "llm_query_batched('one')": "TypeError",
    "llm_query_batched([1])": "TypeError",
    "llm_query_batched(['q'] * 10_001)": "ValueError",
    "rlm_query(3)": "TypeError",
    "rlm_query_batched('one')": "TypeError",
    "rlm_query_batched(['a', 'b'], ['c'])": "ValueError",
    "recursive_lm(3)": "TypeError",
    "search(3)": "TypeError",
    "search('q', within='nowhere to be found')": "ValueError",
    "source(3)": "TypeError",
    "source('nowhere to be found')": "ValueError",
    "double('three')": "LLMError",
    "double(1, 2)": "LLMError",
    "_host_call('unknown', '')": "LLMError",
    "FINAL(print)": "TypeError",
    "FINAL({1: 2})": "TypeError",
    "FINAL(10**30)": "ValueError",
    "FINAL(float('nan'))": "ValueError",
    "FINAL([[]] * 200_000)": "ValueError",
    "FINAL(eval('[' * 40 + ']' * 40))": "ValueError",
    "FINAL_VAR('nobody')": "NameError",
}


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_what_the_functions_raise_is_what_their_page_says(sandbox: str) -> None:
    lines = ["raised = {}"]
    for n, (call, kind) in enumerate(RAISED.items()):
        lines += ["try:", f"    {call}", f"except {kind} as error:", f"    raised[{n}] = str(error)"]
        lines += ["except Exception as error:", f"    raised[{n}] = None"]
    cell = "\n".join([*lines, f"FINAL([raised.get(n) for n in range({len(RAISED)})])"])
    found = answer(cell, sandbox)
    assert isinstance(found, list)

    assert [call for call, sentence in zip(RAISED, found, strict=True) if not sentence] == []


# --- Python API -----------------------------------------------------------------------------------------


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\.\. auto\w+:: (\w+)", page, re.MULTILINE))

    assert names == {*rlm_langchain.__all__, "script", "FunctionModel"}


def test_the_version_is_that_of_the_installed_package() -> None:
    assert rlm_langchain.__version__ == version("rlm-langchain")


# --- The environment ----------------------------------------------------------------------------------


def test_every_variable_of_the_environment_is_on_its_page() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    families = re.compile(rf"({'|'.join(['RLM', 'HF', *map(str.upper, PROVIDERS)])})_[A-Z_]+")
    used = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and families.fullmatch(node.value)
    } - {"RLM_CANARY_KEY"}

    assert used == {match[0] for match in families.finditer(page)}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_is_in_each_list_of_providers(provider: str) -> None:
    lists = {
        "docs/how-to/models.md": (DOCS / "how-to" / "models.md").read_text(encoding="utf-8"),
        "docs/reference/environment.md": (DOCS / "reference" / "environment.md").read_text(encoding="utf-8"),
        "README.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "FORMS in models/registry.py": FORMS,
        "KEYS in cli/doctor.py": "".join(KEYS.values()),
    }

    assert [name for name, text in lists.items() if provider not in text.lower()] == []


def test_the_limits_of_a_row_are_on_the_page_of_batches() -> None:
    page = (DOCS / "how-to" / "batch.md").read_text(encoding="utf-8")
    [listed] = re.findall(r"^\| `budget` \| limits of this row alone: (.*?) \|$", page, re.MULTILINE)

    assert listed == ", ".join(f"`{name}`" for name in ROW_LIMITS)


def test_every_stop_reason_is_on_the_page_of_answers() -> None:
    page = (DOCS / "how-to" / "answers.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| `stop_reason` \| (.*?) \|$", page, re.MULTILINE)

    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(get_args(StopReason))


# --- Drawings and links -------------------------------------------------------------------------------


def test_the_drawing_has_the_nodes_of_the_graph() -> None:
    drawing = (DOCS / "assets" / "graph.svg").read_text(encoding="utf-8")
    drawn = {name.partition(" ")[0] for name in re.findall(r'class="name"[^>]*>([^<]+)<', drawing)}

    assert drawn == set(create_rlm_graph(script("FINAL(1)")).nodes)


def test_drawings_need_no_network_and_no_script() -> None:
    for drawing in (DOCS / "assets").glob("*.svg"):
        text = drawing.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert re.search("http|<script", text) is None, drawing.name


def anchors(page: Path) -> set[str]:
    """The headings of a page, as a link names them."""
    text = re.sub(r"^(`{3,}).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_heading_that_is_linked_is_there() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def test_every_verb_of_make_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    named = {verb for text in pages.values() for verb in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)}

    assert {"docs", "test"} <= named <= targets


def test_every_page_is_in_the_table_of_contents() -> None:
    entries = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if DOCS in page.parents}

    assert {page for page in pages if "decisions/0" not in page} - {"index"} <= set(entries)
