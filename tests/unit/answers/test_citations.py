"""Answers with evidence: every quote is found in the context, sent back once, or dropped and counted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from rlm_langchain import Budget, create_rlm
from rlm_langchain.answers.citations import Quote, find_quotes
from rlm_langchain.context.store import ContextStore
from rlm_langchain.testing.models import FunctionModel, script

TEXT = "The lease was signed\n   by Ada Byrne in 1931.\n\nNobody else, not even Köln, signed it. 漢字 at the end.\n"


MESSAGE = ("prose:I think so.",)


def final(*quotes: Any, answer: str = "'Ada'") -> str:
    return f"FINAL({{'answer': {answer}, 'quotes': {list(quotes)!r}}})"


def ask(context: Any, *cells: str, **options: Any) -> Any:
    return create_rlm(script(*cells), citations=True, **options).completion("Who signed?", context)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_quote_comes_with_its_place(sandbox):
    output = ask(TEXT, final({"quote": "Ada Byrne in 1931", "source": "context"}), sandbox=sandbox)
    start = TEXT.index("Ada")
    assert output["answer"] == "Ada"
    assert output["citations"] == [
        {"quote": "Ada Byrne in 1931", "source": "context", "start": start, "end": start + 17, "place": {"line": 2}}
    ]
    assert output["dropped_citations"] == 0
    assert output["trajectory"][-1]["citations"] == output["citations"]
    assert output["trajectory"][-1]["answer"] == "Ada"


def test_white_space_may_differ_and_the_offsets_are_the_true_ones():
    output = ask(TEXT, final("was signed by Ada Byrne", "it. 漢字  at"))
    assert [c["quote"] for c in output["citations"]] == ["was signed\n   by Ada Byrne", "it. 漢字 at"]
    assert all(TEXT[c["start"] : c["end"]] == c["quote"] for c in output["citations"])


def test_a_quote_is_found_however_it_is_encoded(tmp_path: Path):
    text = "Fu\u0308ller. " * 200_000 + "In \u201cK\u00f6ln\u201d they \ufb01ne\u00adtuned it \u2014 twice.\n"
    (tmp_path / "long.txt").write_text(text, encoding="utf-8", newline="")
    said = ['"Ko\u0308ln" they finetuned it - twice', "F\u00fcller. F\u00fcller", "In 'K\u00f6ln'", "fine. tuned"]
    found = ["\u201cK\u00f6ln\u201d they \ufb01ne\u00adtuned it \u2014 twice", "Fu\u0308ller. Fu\u0308ller"]
    for context in (tmp_path / "long.txt", {"long": text}):
        output = ask(context, final(*said))
        assert [citation["quote"] for citation in output["citations"]] == found
        assert all(text[c["start"] : c["end"]] == c["quote"] for c in output["citations"])
        assert output["dropped_citations"] == 2


CONTEXTS = {
    "list": (["no", TEXT], "1"),
    "dict": ({"a.txt": "no", "b.txt": TEXT}, "b.txt"),
    "documents": ([Document("no"), Document(TEXT)], "1"),
    "nested": ([{"id": 7, "body": {"text": TEXT}}], "0.body.text"),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_quotes_are_found_in_any_context(name):
    context, source = CONTEXTS[name]
    for said in (source, "no such place", None):
        [citation] = ask(context, final({"quote": "not even Köln", "source": said}))["citations"]
        assert citation["source"] == source
        assert TEXT[citation["start"] : citation["end"]] == "not even Köln"


def test_of_several_places_the_one_in_the_named_source_is_meant():
    output = ask(["Ada", "Ada"], final({"quote": "Ada", "source": 1}, {"quote": "Ada", "source": "0"}, "Ada"))
    assert [c["source"] for c in output["citations"]] == ["1", "0", "0"]


def test_a_file_is_looked_into_where_it_is(tmp_path: Path):
    path = tmp_path / "long.txt"
    path.write_text("Füller. " * 100_000 + TEXT, encoding="utf-8", newline="")
    [citation] = ask(path, final("even Köln, signed it"))["citations"]
    assert path.read_text(encoding="utf-8")[citation["start"] : citation["end"]] == "even Köln, signed it"


def test_a_quote_that_is_not_there_is_sent_back_once():
    output = ask(TEXT, final("Ada Byrne", "Bob did"), final("Ada Byrne"))
    outputs = [record for record in output["trajectory"] if record["type"] == "output"]
    assert "'Bob did'" in outputs[0]["text"]
    assert "'Ada Byrne'" not in outputs[0]["text"]
    assert [c["quote"] for c in output["citations"]] == ["Ada Byrne"]
    assert (output["status"], output["dropped_citations"], output["iterations"]) == ("complete", 0, 2)


def test_what_is_still_not_there_is_dropped_and_counted():
    output = ask(TEXT, final("Bob did"), final("Ada Byrne", "Bob did", "Carl did"))
    assert [c["quote"] for c in output["citations"]] == ["Ada Byrne"]
    assert (output["status"], output["dropped_citations"], output["iterations"]) == ("complete", 2, 2)


def test_the_last_turn_sends_nothing_back():
    cell = "print(1)"
    output = ask(TEXT, cell, f"prose:```repl\n{final('Ada Byrne', 'Bob did')}\n```", budget=Budget(iterations=1))
    assert (output["stop_reason"], output["iterations"]) == ("answer", 2)
    assert (output["answer"], output["dropped_citations"]) == ("Ada", 1)


@pytest.mark.parametrize(
    "cells", [("FINAL('Ada')",), (final(),), MESSAGE + ("prose:Ada",) * 2, ("prose:Ada",) * 3], ids=str
)
def test_an_answer_without_quotes_is_sent_back_once_and_counted(cells):
    output = ask(TEXT, *cells)
    assert (output["answer"], output["citations"], output["dropped_citations"]) == ("Ada", [], 0)
    assert (output["status"], output["degraded"]) == ("complete", {"no_citations": 1})
    assert [one["unfound"] for one in output["trajectory"] if "unfound" in one] == [0]
    right = ask(TEXT, *(cells[:-1] or cells), final("Ada Byrne"))
    assert (right["degraded"], len(right["citations"])) == ({}, 1)


@pytest.mark.parametrize("context", [None, "", []])
def test_where_nothing_can_be_quoted_no_quote_is_wanted(context):
    output = ask(context, "FINAL('Ada')")
    assert (output["iterations"], output["degraded"].get("no_citations")) == (1, None)


def test_a_last_turn_without_quotes_is_counted_and_none_without_an_answer():
    assert ask(TEXT, "print(1)", "prose:Ada", budget=Budget(iterations=1))["degraded"] == {"no_citations": 1}
    assert ask(TEXT, "FINAL(None)", budget=Budget(iterations=3))["degraded"] == {}


def test_an_answer_without_quotes_is_an_answer():
    output = ask(TEXT, "FINAL('Ada')")
    assert (output["answer"], output["citations"], output["dropped_citations"]) == ("Ada", [], 0)
    output = ask(TEXT, "FINAL({'answer': 'Ada', 'why': 'x'})")
    assert output["answer"] == {"answer": "Ada", "why": "x"}
    assert ask(None, final("Ada"), final("Ada"))["dropped_citations"] == 1


@pytest.mark.parametrize("quotes", ["'Ada Byrne'", "[7, None, {'source': 'context'}, '  ', {'quote': 3}]", "{}"])
def test_what_is_no_quote_is_sent_back_and_dropped(quotes):
    output = ask(TEXT, f"FINAL({{'answer': 'Ada', 'quotes': {quotes}}})")
    assert (output["answer"], output["citations"], output["iterations"]) == ("Ada", [], 2)
    assert output["dropped_citations"] == (5 if quotes.startswith("[") else 1)


def test_a_typed_answer_may_have_quotes():
    class Signer(BaseModel):
        name: str

    wrong, right = (final("Ada Byrne", answer=answer) for answer in ("{'n': 1}", "{'name': 'Ada'}"))
    output = ask(TEXT, wrong, right, output_schema=Signer)
    assert output["answer"] == Signer(name="Ada")
    assert [c["quote"] for c in output["citations"]] == ["Ada Byrne"]


def test_without_the_option_nothing_is_different():
    output = create_rlm(script(final("Bob did"))).completion("q", TEXT)
    assert output["answer"] == {"answer": "Ada", "quotes": ["Bob did"]}
    assert "citations" not in output
    assert "quotes" not in output["trajectory"][0]["text"]


def test_the_model_is_told_how_to_cite():
    assert '"quotes": [{"quote"' in ask(TEXT, "FINAL(1)")["trajectory"][0]["text"]


CITED = {"answer": "Ada", "quotes": [{"quote": "Ada Byrne", "source": "context"}, "Bob did"]}
AS_JSON = json.dumps(CITED)
FORMS = {
    "alone": AS_JSON,
    "indented": json.dumps(CITED, indent=2),
    "fenced": f"```json\n{AS_JSON}\n```",
    "fenced without a language": f"```\n{AS_JSON}\n```",
    "fenced as code": f"```python\n{CITED!r}\n```",
    "below a sentence": f"Here is the answer [1]:\n\n```json\n{AS_JSON}\n```\nI hope {{this}} helps.",
    "in a sentence": f"The answer is {AS_JSON}.",
    "in a dict": json.dumps({"result": CITED}),
    "in a list": json.dumps([CITED]),
    "behind an example": f'As asked, {{"answer": "...", "quotes": []}}:\n{AS_JSON}',
}
WAYS = {
    "at a limit": ((), Budget(iterations=1), "iterations"),
    "as a message without code": (MESSAGE, Budget(), "prose"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_quotes_of_an_answer_in_words_are_looked_up_too(form, way):
    before, budget, reason = WAYS[way]
    said = f"prose:{FORMS[form]}"
    output = ask(TEXT, *(before or ("print(1)",)), said, said, budget=budget)
    assert (output["answer"], output["stop_reason"]) == ("Ada", reason)
    assert [c["quote"] for c in output["citations"]] == ["Ada Byrne"]
    assert output["dropped_citations"] == 1
    assert output["trajectory"][-1]["answer"] == "Ada"


@pytest.mark.parametrize("form", FORMS)
def test_quotes_in_a_text_that_code_gives_are_looked_up_too(form):
    output = ask(TEXT, f"FINAL({FORMS[form]!r})")
    assert output["answer"] == "Ada"
    assert [c["quote"] for c in output["citations"]] == ["Ada Byrne"]
    assert output["dropped_citations"] == 1


@pytest.mark.parametrize("say", ["FINAL({!r})", "import json\nFINAL(json.dumps({!r}))", "prose:{!r}"])
def test_more_keys_than_asked_for_stay_in_the_answer(say):
    said = say.format(CITED | {"confidence": 0.9})
    output = ask(TEXT, "print(1)", said, said, budget=Budget(iterations=2))
    assert (output["answer"], output["dropped_citations"]) == ({"answer": "Ada", "confidence": 0.9}, 1)


def test_a_type_may_have_quotes_of_its_own():
    class Signed(BaseModel):
        answer: str
        quotes: list[str]
        year: int

    value = {"answer": "Ada", "quotes": ["x"], "year": 1815}
    output = ask(TEXT, f"FINAL({value})", output_schema=Signed)
    assert (output["answer"], output["citations"]) == (Signed(**value), [])


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_in_words_may_be_typed_and_have_quotes(form):
    class Signer(BaseModel):
        name: str

    text = FORMS[form].replace('"Ada"', '{"name": "Ada"}').replace("'Ada'", "{'name': 'Ada'}")
    output = ask(TEXT, "print(1)", f"prose:{text}", output_schema=Signer, budget=Budget(iterations=1))
    assert (output["answer"], len(output["citations"])) == (Signer(name="Ada"), 1)


def test_quotes_in_words_that_are_not_there_are_sent_back_once():
    right = json.dumps({"answer": "Ada", "quotes": ["Ada Byrne"]})
    output = ask(TEXT, *MESSAGE, f"prose:{AS_JSON}", f"prose:{right}")
    assert (output["answer"], output["dropped_citations"], output["iterations"]) == ("Ada", 0, 3)
    [note] = [record for record in output["trajectory"] if "unfound" in record]
    assert "'Bob did'" in note["text"]


def test_words_that_are_no_answer_with_quotes_stay_words():
    for text in ('{"answer": "Ada"}', "It was {Ada}.", '{"answer": "Ada", "quotes": ["cut off'):
        output = ask(TEXT, "print(1)", f"prose:{text}", budget=Budget(iterations=1))
        assert (output["answer"], output["citations"]) == (text, [])
    cited = create_rlm(script("print(1)", f"prose:{AS_JSON}"), budget=Budget(iterations=1)).completion("q", TEXT)
    assert cited["answer"] == AS_JSON


def test_a_context_that_is_read_whole_is_answered_with_quotes_too():
    said = json.dumps({"answer": "Ada", "quotes": ["Ada Byrne"]})
    output = ask(TEXT, f"prose:{said}", strategies="direct")
    assert (output["answer"], len(output["citations"]), output["iterations"]) == ("Ada", 1, 1)


def test_child_runs_answer_as_they_were_asked():
    model = script("FINAL(rlm_query('KID', context))", children={"KID": ["FINAL('Ada')"]})
    output = create_rlm(model, citations=True, budget=Budget(depth=2)).completion("q", TEXT)
    assert output["answer"] == "Ada"


def test_a_resumed_run_remembers_that_it_sent_quotes_back():
    turns = iter([final("Bob did"), RuntimeError("down"), final("Bob did", "Ada Byrne")])

    def play(messages: Any) -> str:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return f"```repl\n{turn}\n```"

    rlm = create_rlm(FunctionModel(function=play), citations=True, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        asyncio.run(rlm.ainvoke({"query": "q", "context": TEXT}, config))
    output = asyncio.run(rlm.ainvoke(None, config))
    assert (len(output["citations"]), output["dropped_citations"]) == (1, 1)


letters = some.text("ab \n\t\u00a0\u3000é漢😀.(*", min_size=1, max_size=40)


@settings(deadline=None)
@given(before=letters, quote=letters.filter(str.strip), after=letters, ascii=some.booleans())
def test_whatever_is_in_a_text_is_found_with_its_place(tmp_path_factory, before, quote, after, ascii):
    if ascii:
        before, quote, after = (part.encode("ascii", "replace").decode() for part in (before, quote, after))
    text = before + quote + after
    store = ContextStore(tmp_path_factory.getbasetemp() / "quotes")
    for context in (text, [text]):
        for said in (quote, " ".join(quote.split())):
            if not said.strip():
                continue
            ref = store.reference(context)
            assert ref is not None
            [found] = find_quotes(store, {"context": ref}, [Quote(said, None)])
            assert found is not None
            assert text[found["start"] : found["end"]] == found["quote"]
            assert found["quote"].split() == said.split()
