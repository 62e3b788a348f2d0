"""A small Compute Engine on this machine, and Google's own client pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symbio_core.compute.calling import Patience
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import Order, machine_name
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer

PROJECT = "my-project"
ZONE = "us-central1-a"
HASTY = Patience(
    pause_s=0.01, longest_pause_s=0.05, tries=5, poll_s=0.01, operation_s=20.0, request_s=10.0
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComputeServer]:
    with ComputeServer(tmp_path / "gce") as running:
        yield running
    assert running.world.failures == []


@pytest.fixture
def settings() -> GceSettings:
    zones = ("us-central1-a", "us-central1-b", "us-east1-b")
    return GceSettings(project=PROJECT, zones=zones, retry_after_s=0.0)


@pytest.fixture
def provisioner(server: ComputeServer, settings: GceSettings) -> Provisioner:
    return Provisioner(settings, endpoint=server.url, patience=HASTY)


def order(
    script: str = "sleep 60", *, number: int = 1, zone: str = ZONE, spot: bool = True
) -> Order:
    """Return an order of a run called `tree`."""
    return Order(
        run_id="tree",
        name=machine_name("tree", number, "symbio"),
        zone=zone,
        spot=spot,
        startup_script=script,
    )
