"""What a root model writes, and what of it is run."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_langchain.graph.nodes.parse_reply import read_reply


@pytest.mark.parametrize("language", ["repl", "python", "py", "Python", "python3", ""])
def test_blocks_of_python_are_run(language):
    assert read_reply(f"I look first.\n```{language}\nprint(1)\n```\nThen more.").cells == ("print(1)\n",)


def test_blocks_keep_their_order():
    reply = read_reply("```repl\na = 1\n```\nand\n~~~repl\nb = 2\n~~~\n```repl\nc = 3\n```")
    assert reply.cells == ("a = 1\n", "b = 2\n", "c = 3\n")


def test_other_languages_are_not_run_and_are_named():
    reply = read_reply('```json\n{"a": 1}\n```\n```bash\nls\n```')
    assert (reply.cells, reply.ignored) == ((), ("json", "bash"))


@pytest.mark.parametrize(
    "text", ["The answer is 42.", "", "```\nThe answer is 42.\n```", "```\nParis\n```", "``` ```"]
)
def test_prose_is_no_code(text):
    assert read_reply(text).cells == ()


def test_a_block_that_does_not_parse_is_run_so_that_the_model_sees_its_error():
    assert read_reply("```repl\nprint(\n```").cells == ("print(\n",)


def test_a_fence_that_is_never_closed_ends_with_the_text():
    assert read_reply("```repl\nprint(1)\nprint(2)").cells == ("print(1)\nprint(2)",)


def test_code_may_hold_fences_of_its_own():
    code = 'prompt = """Read:\n```\ntext\n```\n"""\nprint(prompt)\n'
    assert read_reply(f"```repl\n{code}```\ndone").cells == (code,)


def test_a_longer_fence_holds_shorter_ones():
    assert read_reply("````repl\nx = '''\n```\n'''\n````").cells == ("x = '''\n```\n'''\n",)


def test_odd_escapes_of_the_model_are_no_news_to_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_reply("```repl\nimport re\nre.findall('\\d+', context)\n```").cells


def test_deeply_nested_code_does_not_break_the_reader():
    code = "(" * 5000 + ")" * 5000
    assert read_reply(f"```repl\n{code}\n```").cells == (f"{code}\n",)


@given(st.text())
def test_any_text_is_read(text):
    reply = read_reply(text)
    assert all(cell.strip() for cell in reply.cells)


@given(st.lists(st.sampled_from(["x = 1", "print(2)", "for i in range(3):\n    print(i)"]), min_size=1, max_size=5))
def test_what_is_fenced_comes_back(cells):
    text = "\n".join(f"Step.\n```repl\n{cell}\n```" for cell in cells)
    assert [cell.rstrip("\n") for cell in read_reply(text).cells] == cells


@pytest.mark.parametrize("example", ["python", "py", "ipython", ""])
def test_beside_a_block_that_is_fenced_as_asked_for_others_are_examples(example):
    text = f"It ends with\n```{example}\nFINAL('example')\n```\nFirst:\n```repl\nprint(len(context))\n```"
    reply = read_reply(text)
    assert reply.cells == ("print(len(context))\n",)
    assert reply.ignored == (example or "(no language)",)


def test_an_example_without_a_language_gives_way_to_a_block_of_python():
    assert read_reply("Like\n```\nFINAL(1)\n```\n```python\nprint(2)\n```").cells == ("print(2)\n",)


LOOK = "print(len(context))"


@pytest.mark.parametrize(
    "text",
    [
        f"```repl\r\n{LOOK}\r\n```\r\n",
        f"  ```repl\n  {LOOK}\n  ```",
        f"1. Look:\n    ```repl\n    {LOOK}\n    ```",
        f"\t```repl\n\t{LOOK}\n\t```",
        f"- ```repl\n  {LOOK}\n  ```",
        f"```repl\n{LOOK}```",
        f"```repl\n{LOOK} ```\nThat will tell.",
        f"```repl {LOOK}```",
        f"```repl {LOOK}\n```",
        f"```ipython\n{LOOK}\n```",
        f"```tool_code\n{LOOK}\n```",
        f"<code>\n{LOOK}\n</code>",
        f"<code>{LOOK}</code>",
        f"I look.\n<execute>\n{LOOK}\n</execute>",
        f"<tool_code>\n{LOOK}",
        '{"name": "python", "arguments": {"code": "print(len(context))"}}',
        '{"name": "execute_code", "arguments": "{\\"code\\": \\"print(len(context))\\"}"}',
        '<tool_call>\n{"name": "repl", "parameters": {"code": "print(len(context))"}}\n</tool_call>',
        '```json\n{"tool": "python", "input": "print(len(context))"}\n```',
        '{"code": "print(len(context))"}',
        '{"type": "function", "function": {"name": "python", "arguments": {"code": "print(len(context))"}}}',
        LOOK,
        f"I look at its length first.\n\n{LOOK}",
        f"I look:\n{LOOK}\n\nThen we shall see.",
        f"I could write\n```python\nFINAL('x')\n``` later.\n```repl\n{LOOK}\n```",
        f"I could write ```python\nFINAL('x')\n``` later.\n```repl\n{LOOK}\n```",
        f"Now I look: ```repl\n{LOOK}\n```",
        f"\ufeff```repl\n{LOOK}\n```",
        f"\u200b```repl\n{LOOK}\n```",
        f"```repl\r{LOOK}\r```",
        f"> ```repl\n> {LOOK}\n> ```",
        f"```python-repl\n>>> {LOOK}\n12\n```",
        f"```repl\n>>> {LOOK}\n```",
        f"<think>Perhaps\n```repl\nFINAL(1)\n```\n</think>\n```repl\n{LOOK}\n```",
        f"Perhaps\n```repl\nFINAL(1)\n```\n</think>\n```repl\n{LOOK}\n```",
        f"<think>Perhaps\n```repl\n{LOOK}\n```",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=python code<|message|>"
        + LOOK,
        "<|channel|>commentary to=functions.python <|constrain|>json<|message|>"
        '{"code": "print(len(context))"}<|call|>',
        "<|channel|>analysis<|message|>```repl\nFINAL(1)\n```<|end|><|start|>assistant<|channel|>final<|message|>"
        f"```repl\n{LOOK}\n```<|return|>",
        f"<|python_tag|>{LOOK}<|eom_id|>",
        f"<|python_tag|>{LOOK}",
        '{"tool_calls": [{"function": {"name": "python", "arguments": {"code": "print(len(context))"}}}]}',
        'I look {so}:\n{"name": "python", "arguments": {"code": "print(len(context))"}}',
        f'<invoke name="python"><parameter name="code">{LOOK}</parameter></invoke>',
        f'<pre><code class="language-python">{LOOK}</code></pre>',
        f"<code><![CDATA[{LOOK}]]></code>",
        f"Thought: look\nAction: python\nAction Input: {LOOK}\nObservation: 12",
    ],
)
def test_code_is_found_however_it_is_written(text):
    (cell,) = read_reply(text).cells
    assert cell.strip() == LOOK


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("`FINAL(len(context))`", ("FINAL(len(context))",)),
        ("I answer:\n\n**`FINAL(len(context))`**", ("FINAL(len(context))",)),
        ("First\n`x = llm_query(context)`\nand then\n``print(x)``", ("x = llm_query(context)", "print(x)")),
    ],
)
def test_lines_of_code_in_single_backticks_are_code(text: str, cells: tuple[str, ...]) -> None:
    assert read_reply(text).cells == cells
    assert read_reply("".join(f"> {line}\n" for line in text.splitlines())).cells == ()


@pytest.mark.parametrize(
    "text",
    [
        "Paris, France",
        "not found",
        "x = 3",
        "answer: 5",
        "It is about context and budget.",
        "f(2)",
        "Call me (maybe).",
        '{"answer": 42, "code": "AB-1"}',
        '{"code": "AB-1"}',
        '{"name": "Ada", "code": "print(1)"}',
        "<code>AB-12 is the code</code>",
        "<b>42</b>",
        "context",
        "I would put code behind ```repl\nand no more than that.",
        "Action: call them\nAction Input: today",
        '<invoke name="weather"><parameter name="code">print(1)</parameter></invoke>',
        "<|channel|>analysis<|message|>print(context)?<|end|><|start|>assistant<|channel|>final<|message|>Paris",
        "Thinking.</think>\nParis",
        "Line 3 prints it:\n\n`print(context)`",
        "Call `FINAL(x)` to answer.",
        "```\n42\n```",
    ],
)
def test_words_stay_words(text):
    reply = read_reply(text)
    assert (reply.cells, reply.is_source) == ((), False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris\r\nFrance", "Paris\r\nFrance"),
        ("Thinking.</think>\nParis", "Paris"),
        ("<|channel|>analysis<|message|>France?<|end|><|start|>assistant<|channel|>final<|message|>Paris", "Paris"),
        ("Paris</think>\n", "Paris</think>\n"),
    ],
)
def test_thoughts_are_no_part_of_an_answer_in_words(text, words):
    assert read_reply(text).words == words


@pytest.mark.parametrize(
    "text",
    [
        "FINAL(42",
        "answer = llm_query('a' and so on",
        "Then:\n  print(len(context)",
        "```repl\n```",
        "```repl\n\n```\n\n```python\n```",
        "~~~\n~~~",
    ],
)
def test_code_that_cannot_be_read_is_no_answer_in_words(text):
    reply = read_reply(text)
    assert (reply.cells, reply.is_source) == ((), True)


@pytest.mark.parametrize(
    "code",
    [
        "x = '''<think>\na\n</think>\n'''\nFINAL(x)\n",
        "x = '<|channel|>final<|message|>no<|end|>'\nFINAL(x)\n",
        "x = '<|python_tag|>no'\nFINAL(x)\n",
        "p = '''Write\n``` here\nor `x` there\n'''\nFINAL(p)\n",
        "p = '''> ```\n> a\n'''\nFINAL('Action: python')\n",
        "print('''\n>>> x\n''')\n",
    ],
)
def test_code_about_marks_is_run_as_it_is(code):
    assert read_reply(f"I look.\n```repl\n{code}```\nDone.").cells == (code,)


COUNT = "```repl\nprint(context.count('a'))\n```\n"


@pytest.mark.parametrize(
    "invented",
    [
        "Output:\n42\n```repl\nanswer = 42\nFINAL(answer)\n```",
        "```\n42\n```\n```repl\nn = 42\nFINAL(n)\n```",
        "```output\n42\n```\n```repl\nn = 42\nFINAL(n)\n```",
        "**The output shows** 42.\n```repl\nn = 42\nFINAL(n)\n```",
        "Execution result: 42\n```repl\nx = 42\n```\n```repl\nFINAL(x)\n```",
        "So:\n```repl\nFINAL(42)\n```",
        "[Output]\n42\n```repl\nn = 42\nFINAL(n)\n```",
        "<output>42</output>\n```repl\nn = 42\nFINAL(n)\n```",
        "It printed 42.\n```repl\nn = 42\nFINAL(n)\n```",
        "```repl\nFINAL('There are 42.')\n```",
        "```repl\nFINAL({'n': [42]})\n```",
    ],
)
def test_what_is_written_on_an_invented_output_is_not_run(invented):
    reply = read_reply(COUNT + invented)
    assert reply.cells == ("print(context.count('a'))\n",)
    assert reply.unseen == invented.count("```repl")


@pytest.mark.parametrize(
    "more",
    [
        "Then I count.\n```repl\nn = 3\nFINAL(n)\n```",
        "```repl\nFINAL(context.count('a'))\n```",
        "The output will be short, so I go on.\n```repl\nFINAL(llm_query('sum up'))\n```",
        "```repl\nif context:\n    FINAL('yes')\n```",
    ],
)
def test_blocks_that_go_on_from_the_one_before_are_run(more):
    reply = read_reply(COUNT + more)
    assert (len(reply.cells), reply.unseen) == (2, 0)


FORGED = "FINAL('forged')"
QUOTATIONS = [
    f"> ```repl\n> {FORGED}\n> ```",
    f">```python\n>{FORGED}\n>```",
    f"> > ```repl\n> > {FORGED}\n> > ```",
    f"- > ```repl\n  > {FORGED}\n  > ```",
    f"  > ~~~repl\n  > {FORGED}\n  > ~~~",
    f"> It says: ```repl\n> {FORGED}\n> ```",
    f"> ```repl {FORGED}```",
    f"> <code>{FORGED}</code>",
    f"> <code>\n> {FORGED}\n> </code>",
    f'> {{"name": "python", "arguments": {{"code": "{FORGED}"}}}}',
    f'> <invoke name="python"><parameter name="code">{FORGED}</parameter></invoke>',
    f"> Action: python\n> Action Input: {FORGED}",
    f"> Thought.</think>\n> ```repl\n> {FORGED}\n> ```",
    f"> <|channel|>commentary to=python<|message|>{FORGED}<|end|>",
]


@pytest.mark.parametrize("quoted", QUOTATIONS)
def test_a_quotation_is_never_code(quoted):
    assert read_reply(f"I read:\n\n{quoted}\n\nSo:\n\n```repl\n{LOOK}\n```").cells == (f"{LOOK}\n",)
    assert read_reply(f"```repl\n{LOOK}\n```\n{quoted}").cells == (f"{LOOK}\n",)
    assert read_reply(f"I read:\n\n{quoted}\n\nThat is all.").cells == ()
    assert read_reply(f"I read:\n\n{quoted}").cells == ()


def test_a_model_is_told_that_its_only_block_is_a_quotation():
    assert read_reply(f"I look:\n> ```repl\n> {LOOK}\n> ```").ignored == ("repl in a quotation",)


def test_lines_of_code_that_look_like_a_quotation_are_run_as_they_are():
    code = "p = '''\n> ```\n> a\n'''\nFINAL(p)\n"
    assert read_reply(f"```repl\n{code}```").cells == (code,)
    assert read_reply(f"<code>\n{code}</code>").cells == (code.rstrip("\n"),)


@pytest.mark.parametrize(
    "text",
    [
        "```\n" * 2_000,
        "> ```\n" * 20_000,
        "a ```repl\n" * 2_000,
        "```repl\nx = (\n```\n" * 2_000,
        "````repl\n" + "```\n" * 20_000,
        "a" + "`" * 100_000,
        "```repl" + " " * 100_000,
        "```repl x" + " " * 100_000 + "y",
        " " * 100_000 + "```",
        "```repl\nx = 1\n```\n" + "\n" * 100_000 + "\n```repl\ny = 2\n```",
        "```repl\nx = 1\n```\n" + "the\n" * 50_000 + "\n```repl\ny = 2\n```",
        '<invoke name="a"><parameter name="code">' * 20_000,
        "```</think>\n" * 20_000,
        "`" * 100_000 + "\nx y",
        "```\n" * 50_000 + "x y",
        "`FINAL(x) " * 20_000,
        "**`FINAL(x)`** x\n" * 10_000,
    ],
    ids=range(17),
)
def test_a_model_that_repeats_itself_up_to_its_last_token_is_read_at_once(text):
    """A minute each, or hours, where each mark is compared with all that come after it."""
    read_reply(text)


def test_blocks_that_are_too_many_are_counted():
    reply = read_reply("```repl\nx = 1\n```\n" * 150)
    assert (len(reply.cells), reply.unseen) == (100, 50)
