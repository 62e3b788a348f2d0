"""A machine that breaks after the run got on: the next one comes from elsewhere."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client

from flows.autonomous import symbio
from symbio_core import progress
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import Interrupted
from symbio_core.storage import gcs
from tasks.elsewhere import DEPLOYMENT
from tests.cloud.compute_server import ComputeServer
from tests.cloud.past import Past
from tests.cloud.plain_worker import python_for
from tests.cloud.storage_server import StorageServer
from tests.conftest import tiny
from tests.waiting import until

ZONES = ("us-central1-a", "us-central1-b")
FAR: dict[str, Any] = {
    "without": ["search", "final"],
    "budget.steps": 400_000,
    "storage.root": "gs://runs/here",
    "storage.save_every": 20,
    "compute.kind": "gce",
    "compute.threads": 1,
    "compute.gce.project": "my-project",
    "compute.gce.zones": ZONES,
    "compute.gce.retry_after_s": 0.0,
    "compute.elsewhere.beat_s": 0.5,
    "compute.elsewhere.poll_s": 0.3,
    "compute.elsewhere.pause_s": 0.1,
    "compute.elsewhere.prefect_api_url": "http://127.0.0.1:9/api",
}
PHASE = "abiogenesis-1"
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]


async def deploy() -> None:
    """Make the deployments that the parent starts; the machine here looks into the bucket."""
    async with get_client() as client:
        for phase in PHASES:
            await client.create_deployment(await client.create_flow_from_name(phase), DEPLOYMENT)


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
    tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(deploy())
    with StorageServer() as bucket:
        bucket.world.add_bucket("runs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        monkeypatch.setattr(gcs._PACER, "interval_s", 0.0)
        env = {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "STORAGE_EMULATOR_HOST": bucket.url,
            "SYMBIO_VM_HOME": "symbio",
            "SYMBIO_VM_PYTHON": python_for(tmp_path),
        }
        with ComputeServer(tmp_path / "gce", env=env) as gce:
            monkeypatch.setenv("SYMBIO_GCE_ENDPOINT", gce.url)
            past = Past(bucket.world)
            zones = asyncio.run(live(changed(tiny(tiny_corpus, tmp_path), FAR), gce, past))
            assert gce.world.vms == {}
    progress.clear_stop()
    assert zones == list(ZONES)
    assert past.wrong() == []
