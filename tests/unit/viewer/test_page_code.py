"""Tokens, call lines and titles of code."""

from __future__ import annotations

import pytest

from rlm_langchain.viewer.code import KINDS, Batch, Lines, title, tokens

LLM, MANY, CHILD = Batch("llm", 1, ""), Batch("llm", 62, ""), Batch("rlm", 3, "")


@pytest.mark.parametrize(
    ("code", "batch", "lines"),
    [
        ("x = 1\nllm_query_batched(prompts)", MANY, [2]),
        ("llm_query('a')\nllm_query_batched(p)", MANY, [2]),
        ("llm_query('a')\nrlm_query_batched(p)", CHILD, [2]),
        (
            "llm_query(f'Classify this: {x}')\nllm_query(f'Summarise it: {x}')",
            Batch("llm", 1, "Summarise it: a"),
            [2],
        ),
        (
            "p = [f'Classify {x}' for x in y]\nllm_query_batched(p)\nllm_query_batched(q)",
            Batch("llm", 9, "Classify a"),
            [2],
        ),
        ("for x in y:\n    llm_query(x)\nllm_query(z)", LLM, [2, 3]),
        ("def ask(x):\n    return llm_query(x)\nask(1)", LLM, [2]),
        ("answers = map_reduce(context, 'What?')", MANY, [1]),
        ("print(len(context))", LLM, []),
        ("this is no Python", LLM, []),
        ("search('x')\nllm_query('y')", Batch("search", 1, "x"), [1]),
    ],
)
def test_lines_that_may_have_made_a_batch(code: str, batch: Batch, lines: list[int]) -> None:
    assert Lines().of(code, [batch]) == [lines]


def test_a_function_of_an_earlier_cell_counts_where_it_is_called() -> None:
    lines = Lines()
    lines.of("def ask(x):\n    return llm_query_batched(x)", [])
    assert lines.of("y = 1\nz = ask(y)\nprint(z)", [MANY]) == [[2]]


def test_token_lengths_add_up_to_the_code() -> None:
    code = "# why\ndef f(x):\n    return 'text' + str(12)  # ö\n\n\n"
    found = tokens(code)
    assert sum(found[::2]) == len(code)
    at, kinds = 0, {}
    for length, kind in zip(found[::2], found[1::2], strict=True):
        kinds[code[at : at + length].strip()] = KINDS[kind]
        at += length
    assert (kinds["# why"], kinds["'text'"], kinds["12"], kinds["str"]) == ("comment", "string", "number", "name")


@pytest.mark.parametrize(
    ("cells", "text", "expected"),
    [
        (["# look at the head\nprint(1)"], "", "Look at the head"),
        (["x = llm_query_batched(p)\nFINAL(x)"], "", "Asks models, gives the answer"),
        (["def f():\n    pass"], "", "Defines f"),
        (["x = 1"], "", "X = 1"),
        ([], "It is *done*.\nReally.", "It is *done*."),
        ([], "", "(an empty reply)"),
        (["x" * 200], "", f"{'X' + 'x' * 70}…"),
    ],
)
def test_a_turn_has_a_title(cells: list[str], text: str, expected: str) -> None:
    assert title(cells, text) == expected
