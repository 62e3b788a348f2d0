"""Three layers against machines that outlive their run: each holds where the other two break.

The layers are the machine's own watchdog, the service's cap on its life, and the parent with its
sweep. The watchdog's turn, with the real one, is in tests/deployments/test_vm.py.
"""

from __future__ import annotations

import time

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.launching import Launcher
from symbio_core.compute.sweep import find_orphans, sweep
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer
from tests.compute.conftest import HASTY
from tests.waiting import until

DEAF = "trap '' TERM INT HUP; while :; do sleep 1; done"
"""A machine whose watchdog hangs: nothing on it ever ends it."""


def test_the_services_cap_ends_a_machine_whose_watchdog_hangs_and_whose_parent_is_gone(
    server: ComputeServer, settings: GceSettings
) -> None:
    server.world.timings.scale, server.world.timings.grace_s = 0.01, 0.1
    # Whoever asks for its deletion is refused: the parent, a sweep, the machine itself.
    server.fail("delete", 403, count=1000)
    short = settings.model_copy(update={"max_run_hours": 0.01})
    provisioner = Provisioner(short, endpoint=server.url, patience=HASTY)
    machine = Launcher(provisioner, "tree", startup_script=DEAF).bring_up()
    found = find_orphans(provisioner, live_runs=set(), clock=time.time, grace_s=0.0)
    assert not any(one.removed for one in sweep(provisioner, found))
    until(lambda: provisioner.get(machine.zone, machine.name) is None)
    assert not server.world.disks


def test_the_parent_ends_a_machine_whose_watchdog_hangs_and_whose_cap_does_not_hold(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.timings.grace_s, server.world.keeps_caps = 0.1, False
    launcher = Launcher(provisioner, "tree", startup_script=DEAF)
    launcher.bring_up()
    launcher.remove_all()
    assert not server.world.vms
    assert not server.world.disks
    assert launcher.ledger.billed_s(time.time()) == sum(row["billed_s"] for row in server.bill())


def test_the_sweep_ends_what_a_parent_left_that_never_came_back(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.timings.grace_s, server.world.keeps_caps = 0.1, False
    Launcher(provisioner, "tree", startup_script=DEAF).bring_up()

    def later() -> float:
        return time.time() + 3600.0

    swept = sweep(provisioner, find_orphans(provisioner, live_runs=set(), clock=later))
    assert [(one.orphan.kind, one.removed) for one in swept] == [("machine", True)]
    assert not server.world.vms
    assert not server.world.disks
