"""What users get wrong is told in a sentence that says what to do, and harms nothing of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlm_langchain import (
    Budget,
    ConfigurationError,
    InputError,
    RLMRunnable,
    create_rlm,
)
from rlm_langchain.runnable.create import RLMOptions
from rlm_langchain.testing.models import script
from rlm_langchain.trajectory.jsonl import Trace, read_trace, write_trace

MODEL = script("FINAL(1)")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bugdet": Budget()}, "no option 'bugdet'; did you mean 'budget'"),
        ({"qqq": 5}, "no option 'qqq'; there are .*checkpointer.*output_schema"),
        ({"budget": -1}, "budget=-1 cannot be used"),
        ({"strategies": 5}, "strategies=5 cannot be used"),
    ],
)
def test_an_option_that_cannot_be_is_told_in_a_sentence(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as raised:
        create_rlm(MODEL, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sandbox": 5}, "sandbox=5 cannot be used"),
        ({"sandbox": "cpyhton"}, "no sandbox is called 'cpyhton'; installed: cpython, monty"),
        ({"checkpointer": "memory"}, "checkpointer='memory' cannot be used"),
        ({"output_schema": 5}, "output_schema is 5"),
    ],
)
def test_what_cannot_be_made_of_options_is_told_before_anything_is_asked(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_rlm(MODEL, **options).invoke("q")


@pytest.mark.parametrize("wrong", [{"calls": "a"}, {"calls": 1.5}, {"usd": "0.5"}, {"depth": None, "tokens": "1"}])
def test_a_limit_is_a_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"is a (whole )?number"):
        Budget(**wrong)


def test_a_misspelt_key_of_the_input_is_told_before_anything_is_paid() -> None:
    with pytest.raises(InputError, match="no 'context', but 'contxt'"):
        create_rlm(MODEL, sandbox="monty").invoke({"query": "q", "contxt": "text"})  # type: ignore[typeddict-item]
    more: Any = {"query": "q", "context": "text", "language": "en"}
    assert create_rlm(MODEL, sandbox="monty").invoke(more)["answer"] == 1, "other keys may be for other steps"


def test_a_text_that_names_a_file_is_asked_about_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("all of it")
    name = str(tmp_path / "notes.txt")
    rlm = create_rlm(script("FINAL(len(context))"), sandbox="monty")
    with pytest.warns(UserWarning, match=r"for the file, give Path\("):
        assert rlm.completion("q", name)["answer"] == len(name)
    assert rlm.completion("q", Path(name))["answer"] == len("all of it")


def test_a_trace_takes_the_place_of_a_trace_only(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("precious\n")
    with pytest.raises(InputError, match="no record of a trajectory"):
        Trace(path)
    assert path.read_text() == "precious\n"


def test_an_earlier_trace_is_kept_until_there_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    write_trace(path, create_rlm(MODEL, sandbox="monty").invoke("q")["trajectory"])
    before = read_trace(path)
    Trace(path).close()
    assert read_trace(path) == before
    write_trace(path, before[:1])
    assert read_trace(path) == before[:1]


def test_a_typed_run_that_failed_has_no_answer_of_another_type() -> None:
    rlm = create_rlm(
        script("x = 1\nprint(x)"), sandbox="monty", budget=Budget(calls=1), output_schema={"type": "array"}
    )
    output = rlm.invoke("q")
    assert (output["status"], output["answer"]) == ("failed", None)


def test_an_answer_is_not_lost_when_there_is_no_folder_to_keep_anything_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rlm = create_rlm(MODEL, home=tmp_path / "file")
    assert rlm.invoke("q")["answer"] == 1


def bare(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"root_model": None}, "a model is a name or a LangChain chat model, not NoneType"),
        ({"root_model": "gpt"}, "'gpt' is no model name"),
        ({"recursive_model": 5}, "not int"),
        ({"recursive_model": []}, "names no model: leave it out"),
        ({"recursive_model": ["a/b", "gpt"]}, "'gpt' is no model name"),
        ({"tools": ["x"]}, "a tool is a LangChain tool or a function, not str"),
        ({"tools": [bare]}, "'bare' cannot be a tool: it needs a docstring"),
        ({"sub_tools": [lambda: 1]}, "cannot be a tool"),
        ({"citations": "yes"}, "citations='yes' cannot be used"),
        ({"memo": 1}, "memo=1 cannot be used"),
    ],
)
def test_what_is_no_option_at_sight_is_told_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_rlm(**{"root_model": MODEL, **options})


def test_the_keywords_of_create_rlm_are_the_fields_of_the_runnable() -> None:
    fields = {field.alias or name for name, field in RLMRunnable.model_fields.items()}
    assert set(RLMOptions.__annotations__) == fields - {"root_model"}


def test_a_stream_mode_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"no stream mode 'tokens'; there are .*custom"):
        list(create_rlm(MODEL, sandbox="monty").stream("q", stream_mode=["custom", "tokens"]))


def test_a_fork_needs_something_to_go_back_in() -> None:
    with pytest.raises(ConfigurationError, match="a fork goes back in what a checkpointer keeps"):
        create_rlm(MODEL).fork({"configurable": {"thread_id": "a"}})
