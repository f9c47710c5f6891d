"""What a root model writes, and what of it is run."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_langchain.replies import read_reply


@pytest.mark.parametrize("language", ["repl", "python", "py", "Python", "python3", ""])
def test_blocks_of_python_are_run(language):
    assert read_reply(f"I look first.\n```{language}\nprint(1)\n```\nThen more.").cells == ("print(1)\n",)


def test_blocks_keep_their_order():
    reply = read_reply("```repl\na = 1\n```\nand\n~~~py\nb = 2\n~~~\n```\nc = 3\n```")
    assert reply.cells == ("a = 1\n", "b = 2\n", "c = 3\n")


def test_other_languages_are_not_run_and_are_named():
    reply = read_reply('```json\n{"a": 1}\n```\n```bash\nls\n```')
    assert reply == ((), ("json", "bash"))


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
