"""Whatever befalls a run: one machine at a time, none left over, the ledger equal to the bill."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from symbio_core.compute.failover import PREEMPTED
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.launching import Launcher
from symbio_core.compute.machines import Machine
from symbio_core.config import GceSettings
from symbio_core.errors import NoCapacity
from symbio_core.streams import generator
from tests.cloud.compute_server import ComputeServer
from tests.cloud.compute_world import Rejected
from tests.compute.conftest import HASTY
from tests.waiting import until

PASSING = (429, 503, "reset", "lost_reply")
METHODS = ("insert", "delete", "get", "aggregatedList", "operation", "operations", "start", "stop")


class Weather:
    """Misfortunes of a machine, drawn from a seed."""

    def __init__(self, server: ComputeServer, seed: int) -> None:
        self.server = server
        self.rng = generator(seed, "weather")

    def befall(self, machine: Machine) -> None:
        kinds = (self.crash, self.preempt, self.switch_off, self.nothing)
        what = cast("Callable[[Machine], None]", kinds[self.rng.integers(len(kinds))])
        # One that had its notice before may be on its way out by now.
        with contextlib.suppress(Rejected):
            what(machine)

    def crash(self, machine: Machine) -> None:
        self.server.world.crash(machine.zone, machine.name)

    def preempt(self, machine: Machine) -> None:
        self.server.world.preempt(machine.zone, machine.name)

    def switch_off(self, machine: Machine) -> None:
        with self.server.world.lock:
            self.server.world.guest_off(machine.zone, machine.name)

    def nothing(self, machine: Machine) -> None:
        """Let the machine be."""

    def disturb(self, zones: tuple[str, ...]) -> None:
        """Let a few requests fail, and some zones be full."""
        for _ in range(int(self.rng.integers(0, 3))):
            method = METHODS[self.rng.integers(len(METHODS))]
            self.server.fail(method, PASSING[self.rng.integers(len(PASSING))])
        full = self.rng.random(len(zones)) < 0.4
        # At least one zone has room, or there would be nothing to see.
        full[self.rng.integers(len(zones))] = False
        self.server.world.stockouts = {(zone, True) for zone in np.array(zones)[full]}


@pytest.mark.parametrize("seed", range(3))
def test_no_machine_and_no_second_is_lost_in_bad_weather(
    seed: int, server: ComputeServer, settings: GceSettings
) -> None:
    server.world.timings.scale = 0.05 / 120
    weather = Weather(server, seed)
    provisioner = Provisioner(settings, endpoint=server.url, patience=HASTY)
    launcher = Launcher(provisioner, "storm", startup_script="sleep 60")
    for turn in range(6):
        weather.disturb(settings.zones)
        # Now and then the parent is a new process that knows only what was kept.
        if turn % 3 == 2:
            launcher = Launcher(
                provisioner, "storm", startup_script="sleep 60", ledger=launcher.ledger
            )
        try:
            machine = launcher.bring_up()
        except NoCapacity:
            launcher.failures.clear()
            continue
        assert machine.status == "RUNNING"
        weather.befall(machine)
        launcher.lost(machine, PREEMPTED)
        if len(launcher.failures) > 3:
            launcher.failures.clear()
    server.world.faults.clear()
    launcher.remove_all()
    assert not server.world.vms
    assert not server.world.disks
    assert server.world.most_alive == 1
    # A notice of the service's own may still be running out.
    until(lambda: all(op["status"] == "DONE" for op in server.world.operations.values()))
    assert all(one.is_over for one in launcher.ledger.attempts)
    stays = [stay for one in launcher.ledger.attempts for stay in one.stays]
    bill = sorted(server.bill(), key=lambda row: row["started_ms"])
    told = sorted((stay.started, stay.ended, stay.name) for stay in stays)
    assert told == [(r["started_ms"] / 1000, r["ended_ms"] / 1000, r["name"]) for r in bill]
    assert launcher.ledger.billed_s(time.time()) == sum(row["billed_s"] for row in bill)
