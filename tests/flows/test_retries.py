from __future__ import annotations

import asyncio

import pytest
from prefect import flow, task

from symbio_core.errors import Diverged, Overtime, SymbioError
from tasks.gates import judge_battery, judge_overfitting, judge_plateau, write_battery
from tasks.life import decide, finish, open_run, plan_next, train_phase
from tasks.working import in_thread, is_retryable


@pytest.mark.parametrize(("error", "tries"), [(Overtime("slow"), 3), (Diverged("nan"), 1)])
def test_the_error_says_whether_a_task_is_tried_again(error: SymbioError, tries: int) -> None:
    made = []

    @task(retries=2, retry_condition_fn=is_retryable)
    async def work() -> None:
        made.append(1)
        raise error

    @flow
    async def life() -> None:
        await work()

    with pytest.raises(type(error)):
        asyncio.run(life())
    assert len(made) == tries


def test_an_error_of_no_family_is_not_tried_again() -> None:
    made = []

    @task(retries=2, retry_condition_fn=is_retryable)
    async def work() -> None:
        made.append(1)
        raise ValueError

    @flow
    async def life() -> None:
        await work()

    with pytest.raises(ValueError):  # noqa: PT011
        asyncio.run(life())
    assert len(made) == 1


def test_every_gate_has_retries_and_asks_the_error() -> None:
    for gate in (write_battery, judge_battery, judge_overfitting, judge_plateau, train_phase):
        assert gate.retries == 2
        assert gate.retry_condition_fn is is_retryable


def test_no_task_hands_out_a_result_of_an_earlier_time() -> None:
    gates = (write_battery, judge_battery, judge_overfitting, judge_plateau)
    for verb in (*gates, open_run, plan_next, train_phase, decide, finish):
        assert verb.persist_result is False


def test_cancelling_asks_the_core_to_stop_and_waits_until_it_has() -> None:
    import threading

    from symbio_core import progress

    begun, seen = threading.Event(), []

    def train() -> None:
        begun.set()
        while not progress.stop_requested():
            pass
        seen.append("saved")

    async def life() -> None:
        work = asyncio.create_task(in_thread(train))
        await asyncio.to_thread(begun.wait)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert seen == ["saved"]

    asyncio.run(life())
    assert not progress.stop_requested(), "the next run in this process begins freely"
