"""Two flow runs of one process want to live one run: exactly one goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.autonomous import symbio
from symbio_core import progress, runner
from symbio_core.config import RunConfig
from symbio_core.errors import LeaseHeld
from tasks.working import claimed
from tests.conftest import tiny


@pytest.fixture(autouse=True)
def nobody_asked_to_stop() -> Iterator[None]:
    yield
    progress.clear_stop()


async def both(config: RunConfig) -> list[State[Any]]:
    """Live a run twice at once; whichever is left when the other ends saves and stops."""

    async def one() -> State[Any]:
        ended: State[Any] = await symbio(config, "twins", return_state=True)
        return ended

    lives = [asyncio.create_task(one()) for _ in range(2)]
    await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
    progress.request_stop()
    return await asyncio.gather(*lives)


@pytest.mark.slow
def test_a_second_flow_run_of_the_same_process_is_refused_and_the_first_goes_on(
    tiny_config: RunConfig,
) -> None:
    refused, stopped = sorted(asyncio.run(both(tiny_config)), key=lambda s: s.is_cancelled())
    assert refused.is_failed()
    assert stopped.is_cancelled()
    assert refused.message is not None
    assert f"run 'twins' is being worked on by process {os.getpid()} on" in refused.message
    assert "symbio resume twins --take-over" in refused.message
    # Given back, so that the next one need not wait.
    again = runner.reopen(tiny_config.storage.root, "twins")
    assert [event["event"] for event in again.events].count("opened") == 1
    again.claim()
    again.release()


def test_one_that_was_cancelled_while_it_opened_keeps_nobody_from_the_run(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    config = tiny(tiny_corpus, tmp_path)
    held = claimed(config, "alone")
    with pytest.raises(LeaseHeld):
        claimed(config, "alone")
    del held
    claimed(config, "alone").release()
