"""Single flight: one works, those who ask the same have its answer; failures are asked again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rlm_langchain.run.single_flight import SingleFlight


def test_who_waits_has_the_answer_of_the_first_and_it_is_remembered_under_its_key() -> None:
    async def run() -> None:
        flights = SingleFlight[str]()
        assert await flights.ajoin("a") is None
        waiting = [asyncio.create_task(flights.ajoin("a")) for _ in range(3)]
        await asyncio.sleep(0)
        assert flights.known("a") is None
        flights.finish("a", "yes", remember_as="a")
        assert await asyncio.gather(*waiting) == ["yes"] * 3
        assert (flights.known("a"), await flights.ajoin("a")) == ("yes", "yes")

    asyncio.run(run())


def test_an_answer_that_is_not_remembered_is_only_for_those_who_wait() -> None:
    async def run() -> None:
        flights = SingleFlight[str]()
        assert await flights.ajoin("a") is None
        waiting = asyncio.create_task(flights.ajoin("a"))
        await asyncio.sleep(0)
        flights.finish("a", "it failed")
        assert await waiting == "it failed"
        assert await flights.ajoin("a") is None, "who comes later is the first again"

    asyncio.run(run())


def test_an_answer_under_another_key_is_found_by_those_who_fall_back_on_it() -> None:
    flights = SingleFlight[str]()
    assert flights.join("a", "a in wave 1") is None
    flights.finish("a", "flawed", remember_as="a in wave 1")
    assert flights.join("a", "a in wave 1") == "flawed"
    assert flights.join("a", "a in wave 2") is None


def test_who_waits_for_a_call_that_was_broken_off_becomes_the_first() -> None:
    async def run() -> None:
        flights = SingleFlight[str]()
        assert await flights.ajoin("a") is None
        waiting = [asyncio.create_task(flights.ajoin("a")) for _ in range(2)]
        await asyncio.sleep(0)
        flights.finish("a", None, remember_as="a")
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [None]
        flights.finish("a", "second", remember_as="a")
        assert [await task for task in others] == ["second"]

    asyncio.run(run())


def test_a_waiter_that_is_cancelled_cancels_nobody_else() -> None:
    async def run() -> None:
        flights = SingleFlight[str]()
        assert await flights.ajoin("a") is None
        impatient, patient = (asyncio.create_task(flights.ajoin("a")) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        flights.finish("a", "yes", remember_as="a")
        assert await patient == "yes"

    asyncio.run(run())


def test_threads_and_tasks_wait_for_each_other() -> None:
    flights, answers = SingleFlight[str](), []
    assert flights.join("a") is None
    begun = threading.Barrier(3)

    def wait() -> None:
        begun.wait()
        answers.append(flights.join("a"))

    def wait_in_a_loop() -> None:
        begun.wait()
        answers.append(asyncio.run(flights.ajoin("a")))

    threads = [threading.Thread(target=wait), threading.Thread(target=wait_in_a_loop)]
    for thread in threads:
        thread.start()
    begun.wait()
    flights.finish("a", "yes", remember_as="a")
    for thread in threads:
        thread.join()
    assert answers == ["yes", "yes"]


def test_what_earlier_processes_were_answered_does_not_replace_what_is_known() -> None:
    flights = SingleFlight[str]()
    flights.remember({"a": "old"})
    flights.remember({"a": "older", "b": "new"})
    assert (flights.known("a"), flights.join("b")) == ("old", "new")
