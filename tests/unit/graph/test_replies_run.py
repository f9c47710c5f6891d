"""How a reply is written decides nothing about how a run ends."""

from __future__ import annotations

import pytest

from rlm_langchain import RLMOutput, create_rlm
from rlm_langchain.testing.models import script


def ran(*replies: str) -> RLMOutput:
    model = script(*(f"prose:{reply}" for reply in replies))
    return create_rlm(model).invoke({"query": "q", "context": "abc"})


def shown(output: RLMOutput) -> str:
    return "\n".join(r["text"] for r in output["trajectory"] if r["type"] in ("output", "note"))


def test_an_example_in_the_thought_ends_nothing():
    output = ran("I shall end with\n```python\nFINAL('example')\n```\n```repl\nFINAL(len(context))\n```")
    assert (output["answer"], output["iterations"]) == (3, 1)
    assert "Blocks marked python were not run" in shown(output)


@pytest.mark.parametrize(
    "reply",
    [
        "FINAL(len(context))",
        "That is it.\n\nFINAL(len(context))",
        "<code>\nFINAL(len(context))\n</code>",
        "```repl\nFINAL(len(context))```",
        "```repl\r\nFINAL(len(context))\r\n```",
        '{"name": "python", "arguments": {"code": "FINAL(len(context))"}}',
    ],
)
def test_code_in_any_form_is_run_and_never_the_answer(reply):
    output = ran(reply)
    assert (output["answer"], output["status"], output["iterations"]) == (3, "complete", 1)


def test_code_that_cannot_be_read_is_never_the_answer():
    output = ran("FINAL(len(context)", "FINAL(len(context)", "```repl\nFINAL(len(context))\n```")
    assert (output["answer"], output["status"]) == (3, "complete")


def test_an_answer_from_an_invented_output_waits_for_the_real_one():
    eager = "```repl\nprint(len(context))\n```\nOutput:\n```\n42\n```\n```repl\nFINAL(42)\n```"
    output = ran(eager, "```repl\nFINAL(3)\n```")
    assert (output["answer"], output["iterations"]) == (3, 2)
    assert "Your last 1 block(s) were not run" in shown(output)
