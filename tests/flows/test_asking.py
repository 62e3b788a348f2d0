from __future__ import annotations

import asyncio
from uuid import UUID

from prefect import flow, get_client, runtime
from prefect.flow_runs import aresume_flow_run

from flows.asking import ask_person


@flow
async def question(timeout_s: float) -> str:
    return await ask_person("No attempts left.", timeout_s)


@flow
async def answered() -> str:
    answer = asyncio.create_task(_answer(UUID(runtime.flow_run.id), "stop"))
    choice = await ask_person("No attempts left.", 60.0)
    await answer
    return choice


async def _answer(flow_run: UUID, choice: str) -> None:
    async with get_client() as client:
        while not (await client.read_flow_run(flow_run)).state.is_paused():
            await asyncio.sleep(0.05)
    await aresume_flow_run(flow_run, run_input={"choice": choice})


def test_a_run_goes_on_when_nobody_answers_in_time() -> None:
    assert asyncio.run(question(0.2)) == "continue"


def test_a_persons_choice_reaches_the_flow() -> None:
    assert asyncio.run(answered()) == "stop"
