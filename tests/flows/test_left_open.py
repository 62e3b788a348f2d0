"""What a phase elsewhere leaves on the Prefect server: nothing that stays open holds the pool."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from deployments.surroundings import PROJECT
from flows.autonomous import symbio
from symbio_core import runner
from symbio_core.config import changed
from symbio_core.errors import PhaseLost, PriceCapReached
from symbio_core.runner.accounts import read_ledger
from symbio_core.storage.post import Post
from tasks import elsewhere
from tasks.machines import _machines
from tests.cloud.compute_server import ComputeServer
from tests.cloud.setting import ON_MACHINES, ROOT, machines
from tests.conftest import tiny
from tests.flows.away import deploy

CALM: dict[str, Any] = {
    "without": ["search", "final"],
    "compute.threads": 1,
    "compute.elsewhere.poll_s": 0.1,
    "compute.elsewhere.pause_s": 0.0,
}
ON_GCE = (
    ON_MACHINES
    | CALM
    | {
        "budget.max_usd": 100.0,
        "compute.elsewhere.beat_s": 0.5,
        "compute.elsewhere.max_fruitless": 2,
    }
)
# The real watchdog, and a worker that never takes anything.
HANGING = """
import sys
from deployments.vm import watchdog
watchdog.WORKER = ["sleep", "600"]
sys.exit(watchdog.main())
"""
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


@pytest.fixture
def gce(tmp_path: Path) -> Iterator[ComputeServer]:
    program, python = tmp_path / "hanging.py", tmp_path / "python-of-the-machine"
    program.write_text(HANGING, encoding="ascii")
    words = f'PYTHONPATH={PROJECT}:$PYTHONPATH exec {sys.executable} {program} --home "$4"'
    python.write_text(f"#!/bin/sh\n{words}\n", encoding="ascii")
    python.chmod(0o755)
    with machines(tmp_path, str(python)) as (server, _):
        yield server


async def phases_of(run_id: str) -> list[FlowRun]:
    """Return the flow runs of phases that the parent of a run has started, oldest first."""
    async with get_client() as client:
        found = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[run_id]))
        )
    return sorted(found, key=lambda run: str(run.created))


async def taken(run_id: str) -> FlowRun:
    """Wait for the first phase of a run and say, as a worker does, that it is running."""
    while not (found := await phases_of(run_id)):
        await asyncio.sleep(0.05)
    async with get_client() as client:
        await client.set_flow_run_state(found[0].id, Running(), force=True)
    return found[0]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.02)


async def lived(flow: Coroutine[Any, Any, Any], then: Coroutine[Any, Any, None]) -> BaseException:
    """Live a run beside ``then`` and return the error it ends with."""
    ended, _ = await asyncio.gather(asyncio.create_task(flow), then, return_exceptions=True)
    assert isinstance(ended, BaseException), ended
    return ended


def test_a_phase_that_the_cap_on_dollars_ends_does_not_stay_running(
    gce: ComputeServer, tmp_path: Path, tiny_corpus: Path
) -> None:
    config = changed(tiny(tiny_corpus, tmp_path), ON_GCE)

    async def spend_all() -> None:
        await taken("spent")
        machine = _machines[ROOT, "spent"]
        machine.config = changed(config, {"budget.max_usd": 0.001})

    async def life() -> BaseException:
        await deploy()
        return await lived(symbio(config, "spent", return_state=False), spend_all())

    ended = asyncio.run(life())
    assert isinstance(ended, PriceCapReached), ended
    assert str(ended).endswith(
        "go on with: symbio resume spent --storage gs://runs/here --max-cost MORE"
    )
    [phase] = asyncio.run(phases_of("spent"))
    assert phase.state is not None
    assert phase.state.is_crashed(), phase.state
    assert "cap on dollars" in str(phase.state.message)
    assert gce.world.vms == {}


def test_a_phase_that_does_not_save_in_time_does_not_stay_running(
    tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "SAVE_S", 0.3)
    config = changed(tiny(tiny_corpus, tmp_path), CALM | {"compute.kind": "pool"})

    async def life() -> None:
        await deploy()
        parent = asyncio.create_task(symbio(config, "slow"))
        await taken("slow")
        run = runner.reopen(str(tmp_path), "slow")
        assert run.under_way is not None
        Post(run.store, run.under_way).take(1, "the GPU box")
        parent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await parent

    asyncio.run(life())
    [phase] = asyncio.run(phases_of("slow"))
    assert phase.state is not None
    assert phase.state.is_cancelled(), phase.state
    assert "had not saved" in str(phase.state.message)


def test_a_machine_whose_worker_takes_nothing_is_replaced_from_elsewhere(
    gce: ComputeServer, tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "UNTAKEN_S", 0.3)

    async def life() -> Any:
        await deploy()
        return await symbio(changed(tiny(tiny_corpus, tmp_path), ON_GCE), "hangs")

    with pytest.raises(PhaseLost, match="takes no phase"):
        asyncio.run(life())
    ledger = read_ledger(runner.reopen(ROOT, "hangs").store.store, "hangs")
    assert [one.zone for one in ledger.attempts] == ["us-central1-a", "us-central1-b"]
    phases = asyncio.run(phases_of("hangs"))
    assert [phase.state.is_crashed() for phase in phases if phase.state] == [True, True]
    assert gce.world.vms == {}
