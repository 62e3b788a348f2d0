"""A machine that breaks after the run got on: the next one comes from elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flows.autonomous import symbio
from symbio_core import progress
from symbio_core.config import RunConfig, changed
from symbio_core.errors import Interrupted
from tests.cloud.compute_server import ComputeServer
from tests.cloud.past import Past
from tests.cloud.plain_worker import python_for
from tests.cloud.setting import ON_MACHINES, ZONES, machines
from tests.conftest import tiny
from tests.flows.away import deploy
from tests.waiting import until

FAR: dict[str, Any] = ON_MACHINES | {
    "without": ["search", "final"],
    "budget.steps": 400_000,
    "storage.save_every": 20,
    "compute.elsewhere.beat_s": 0.5,
    "compute.elsewhere.poll_s": 0.3,
    "compute.elsewhere.pause_s": 0.1,
}
PHASE = "abiogenesis-1"
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]


def crash_once(gce: ComputeServer, past: Past) -> list[str]:
    """Let the run's first machine crash, and return the zones of that one and of the next."""
    zones = []
    try:
        for turn in (1, 2):
            until(lambda turn=turn: past.turn(PHASE) == turn and past.saved(PHASE))
            [(zone, name)] = gce.world.vms
            zones.append(zone)
            if turn == 1:
                gce.world.crash(zone, name)
    finally:
        progress.request_stop()
    return zones


async def live(config: RunConfig, gce: ComputeServer, past: Past) -> list[str]:
    zones, end = await asyncio.gather(
        asyncio.to_thread(crash_once, gce, past), symbio(config, "far"), return_exceptions=True
    )
    assert isinstance(end, Interrupted), end
    if isinstance(zones, BaseException):
        raise zones
    return zones


def test_the_next_machine_is_not_looked_for_where_one_has_just_crashed(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    asyncio.run(deploy())
    with machines(tmp_path, python_for(tmp_path)) as (gce, bucket):
        past = Past(bucket.world)
        zones = asyncio.run(live(changed(tiny(tiny_corpus, tmp_path), FAR), gce, past))
        assert gce.world.vms == {}
    progress.clear_stop()
    assert zones == list(ZONES[:2])
    assert past.wrong() == []
