"""The words of the REPL, played by a host in the same process."""

from __future__ import annotations

import json

import pytest

from rlm_langchain.sandboxes import wire
from rlm_langchain.sandboxes.worker.determinism.scheduler import CooperativePool
from rlm_langchain.sandboxes.worker.repl.answers import AnswerGiven, Answers
from rlm_langchain.sandboxes.worker.repl.json_values import dumped
from rlm_langchain.sandboxes.worker.repl.runner import SIMPLE_CALL_VALUES, batches, values_in
from rlm_langchain.sandboxes.worker.repl.vocabulary import (
    LLMError,
    Vocabulary,
    answering,
    ended,
    joined,
)


class Host:
    """Answers each call with itself; remembers what was asked together."""

    def __init__(self, failing=()):
        self.asked = []
        self.failing = set(failing)

    def __call__(self, calls):
        wave = [json.loads(call) for call in calls]
        self.asked.append(wave)
        return [[None, "no answer"] if call[1] in self.failing else [f"<{call[1]}>", None] for call in wave]


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def words(host):
    return Vocabulary(host, 1 << 16)


def test_a_query_asks_and_gives_back_the_reply(words, host):
    assert words.llm_query("p", context=["c"]) == "<p>"
    assert words.rlm_query("q") == "<q>"
    assert words.recursive_lm("r", {"k": 1}) == "<r>"
    assert words._host_call("search", "s", (10,)) == "<s>"
    assert words.budget() == "<>"
    assert host.asked == [
        [["llm", "p", ["c"]]],
        [["rlm", "q", None]],
        [["rlm", "r", {"k": 1}]],
        [["search", "s", [10]]],
        [["budget", "", None]],
    ]


def test_a_query_that_fails_raises(host, words):
    host.failing.add("p")
    with pytest.raises(LLMError, match="no answer"):
        words.llm_query("p")


def test_failed_items_of_a_batch_are_named_up_to_a_few(host, words, capsys):
    host.failing |= {str(n) for n in range(10)}
    assert words.llm_query_batched([str(n) for n in range(9, 12)]) == [None, "<10>", "<11>"]
    assert capsys.readouterr().out == "[llm_query_batched] item 0 failed: no answer\n"
    words.llm_query_batched([str(n) for n in range(10)])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 6
    assert shown[-1] == "[llm_query_batched] 5 more items failed"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda w: w.llm_query(None), TypeError, "not NoneType: perhaps an earlier batch failed"),
        (lambda w: w.llm_query(["a"]), TypeError, "not list: for several at once there is the batched function"),
        (lambda w: w.llm_query(5), TypeError, "not int: str"),
        (
            lambda w: w.llm_query("p", 5),
            TypeError,
            "context of llm_query must be a text, a list or a dict, not int",
        ),
        (lambda w: w.llm_query_batched("ab"), TypeError, "takes a list of prompts, not one str"),
        (lambda w: w.llm_query_batched(["a", None]), TypeError, "not NoneType"),
        (lambda w: w.rlm_query_batched(["a"], ["x", "y"]), ValueError, "1 queries need as many contexts, not 2"),
        (lambda w: w.llm_query("x" * (1 << 17)), ValueError, "a call of llm_query is bigger than 65,536 bytes"),
        (lambda w: w.rlm_query("q", {1}), TypeError, "a list or a dict, not set"),
        (lambda w: w.rlm_query("q", [{print}]), TypeError, "a call of rlm_query holds a value of type builtin"),
    ],
)
def test_what_cannot_be_asked_says_why(words, host, call, error, says):
    with pytest.raises(error, match=says):
        call(words)
    assert host.asked == []


def test_a_batch_of_children_takes_queries_and_contexts_in_many_forms(words, host):
    words.rlm_query_batched(["a", ("b", "x"), {"query": "c", "context": ["y"]}, {"query": "d"}])
    words.rlm_query_batched(iter(["a", "b"]), "same")
    assert host.asked == [
        [["rlm", "a", None], ["rlm", "b", "x"], ["rlm", "c", ["y"]], ["rlm", "d", None]],
        [["rlm", "a", "same"], ["rlm", "b", "same"]],
    ]


def test_waves_are_as_few_as_fit():
    assert list(batches(["aaaa", "bb", "cccc", "d"], 8)) == [["aaaa", "bb"], ["cccc", "d"]]
    assert list(batches(["ż" * 4, "b"], 10)) == [["ż" * 4], ["b"]]
    assert list(batches(["x" * 100], 10)) == [["x" * 100]], "a call that is too big was refused before"
    assert [len(wave) for wave in batches(["1"] * 25_000, 1 << 20)] == [10_000, 10_000, 5_000]
    assert list(batches([], 10)) == []


def test_frames_are_json():
    assert json.loads(joined(3, ['["llm","p",null]'])) == ["calls", 3, [["llm", "p", None]]]
    assert json.loads(ended(3, None)) == ["done", 3, None]
    assert json.loads(ended(3, 'a "\ud800"\n')) == ["done", 3, 'a "\ufffd"\n']
    assert json.loads(answering(3, '{"a":1}', "x")) == ["answer", 3, {"a": 1}, "x"]


@pytest.fixture
def names():
    return {"__name__": "__main__", "rows": [1, 2], "title": "abc", "n": 5, "f": print}


@pytest.fixture
def answers(names):
    return Answers(names, 1 << 16)


def answered(answer, value):
    """Give an answer, which ends the cell."""
    with pytest.raises(AnswerGiven):
        answer(value)


def test_the_first_answer_counts_and_is_taken_once(answers):
    answered(answers.FINAL, {"n": (1, 2)})
    answered(answers.FINAL, "two")
    assert answers.take_answer() == '{"n":[1,2]}'
    assert answers.take_answer() is None


def test_an_answer_is_copied_when_it_is_given(answers, names):
    answered(answers.FINAL, names["rows"])
    names["rows"].append(3)
    assert answers.take_answer() == "[1,2]"


def test_an_answer_of_nothing_is_an_answer(answers):
    answered(answers.FINAL, None)
    assert answers.take_answer() == "null"
    answered(answers.FINAL, "")
    assert answers.take_answer() == '""'


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("rows", "[1,2]"),
        (" 'rows' ", "[1,2]"),
        ([7], "[7]"),
        (5, "5"),
        ("not a name at all", '"not a name at all"'),
        ("42", '"42"'),
    ],
)
def test_final_var_takes_a_name_or_a_value(answers, given, taken):
    answered(answers.FINAL_VAR, given)
    assert answers.take_answer() == taken


def test_final_var_of_an_unknown_name_says_what_there_is(answers, names):
    with pytest.raises(NameError, match=r"'rwos'.*Did you mean 'rows'"):
        answers.FINAL_VAR("rwos")
    with pytest.raises(NameError, match="There are: rows, title, n, f"):
        answers.FINAL_VAR("zzz")
    names.clear()
    with pytest.raises(NameError, match="There are: none"):
        answers.FINAL_VAR("rows")


def test_a_ready_answer_is_taken_once_and_final_comes_before_it(answers, names):
    names["answer"] = {"content": 1, "ready": True}
    answered(answers.FINAL, 2)
    assert answers.take_answer() == "2"
    assert answers.take_answer() is None, "an answer that FINAL has overruled answers no later cell"
    assert names["answer"] == {"content": 1, "ready": False}
    names["answer"]["ready"] = True
    assert answers.take_answer() == "1"
    assert answers.take_answer() is None


def test_show_vars_says_what_each_is(answers, names):
    names.update(t=(1,), x=None, big=10**100)
    answers.hidden = {"f"}
    assert answers.SHOW_VARS() == "\n".join(
        [
            "rows: list, 2 items",
            "title: str, 3 characters",
            "n: int, 5",
            "t: tuple, 1 items",
            "x: NoneType, None",
            f"big: int, {'1' + '0' * 39}",
        ]
    )
    names.clear()
    assert answers.SHOW_VARS() == "(no variables yet)"


# --- Thread pools, in step -----------------------------------------------------------------------------


@pytest.fixture
def pool(host):
    from rlm_langchain.sandboxes.worker.determinism.thread_pool import Pool

    return type("Pool", (Pool,), {"pool": CooperativePool(host, lambda: None)})


def asking(pool, prompt):
    return pool.pool.exchange([json.dumps(["llm", prompt, None])])[0][0]


def prompts(host):
    return [[call[1] for call in wave] for wave in host.asked]


def test_tasks_ask_together_and_go_on_in_order(pool, host):
    order = []

    def twice(prompt):
        first = asking(pool, prompt)
        order.append(prompt)
        return asking(pool, first)

    with pool(max_workers=2) as workers:
        assert list(workers.map(twice, "abc")) == ["<<a>>", "<<b>>", "<<c>>"]
    assert prompts(host) == [["a", "b"], ["<a>", "<b>"], ["c"], ["<c>"]]
    assert order == ["a", "b", "c"]
    assert pool.pool.refill == []


def test_a_pool_raises_what_its_task_raised(pool):
    task = pool().submit(lambda: 1 / 0)
    assert isinstance(task.exception(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        task.result()


def test_a_pool_that_is_shut_takes_nothing_more(pool, host):
    workers = pool(1)
    tasks = [workers.submit(asking, pool, prompt) for prompt in "abc"]
    workers.shutdown(cancel_futures=True)
    assert [task.cancelled() for task in tasks] == [False, True, True]
    assert prompts(host) == [["a"]]
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(print)
    with pytest.raises(ValueError, match="greater than 0"):
        pool(0)


def test_an_initializer_runs_before_each_task(pool):
    ran = []
    with pool(2, initializer=ran.append, initargs=("first",)) as workers:
        assert workers.submit(lambda: list(ran)).result() == ["first"]


def test_waiting_for_futures_sends_what_they_ask(pool, host):
    from types import SimpleNamespace

    from rlm_langchain.sandboxes.worker.determinism.thread_pool import install_waiting

    module = SimpleNamespace()
    install_waiting(module, pool.pool)
    workers = pool(4)
    tasks = [workers.submit(asking, pool, prompt) for prompt in "ab"]
    assert [task.result() for task in module.as_completed(tasks)] == ["<a>", "<b>"]
    done, rest = module.wait([*tasks, workers.submit(asking, pool, "c")], return_when="FIRST_COMPLETED")
    assert (len(done), len(rest)) == (2, 1)
    assert len(module.wait([*tasks, *rest]).done) == 3
    assert prompts(host) == [["a", "b"], ["c"]]
    failing = [workers.submit(lambda: 1 / 0), workers.submit(asking, pool, "d")]
    assert len(module.wait(failing, return_when="FIRST_EXCEPTION").not_done) == 1


def test_a_future_that_nobody_will_fulfil_is_not_waited_for(pool):
    from concurrent.futures import Future
    from types import SimpleNamespace

    from rlm_langchain.sandboxes.worker.determinism.thread_pool import install_waiting

    module = SimpleNamespace()
    install_waiting(module, pool.pool)
    with pytest.raises(TimeoutError, match="1 futures will never be done"):
        list(module.as_completed([Future()]))


def test_a_wave_is_no_crowd():
    call = dumped(["rlm", "q,[{", [[0], {"a,": '["'}] * 10_000], "a call", 1 << 20)
    assert values_in(call) == wire._values(wire._STRING.sub(b"", call.encode())) + 1
    assert values_in(dumped(["llm", "a,b,[]", '],["'], "a call", 100)) == SIMPLE_CALL_VALUES
    frame = [joined(1, wave).encode() for wave in batches([call] * 5, 1 << 24)]
    assert [len(wire.parsed(wave).calls) for wave in frame] == [2, 2, 1]
