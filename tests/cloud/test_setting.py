"""What lives in the cloud are measured by: the ledger against the bill, and what is left over."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.ledger import Ledger, MachineAttempt
from symbio_core.compute.machines import Stay
from symbio_core.compute.prices import price
from symbio_core.compute.secret_manager import SecretKeeper
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer
from tests.cloud.past import Past
from tests.cloud.setting import Setting, error_s
from tests.cloud.storage_server import StorageServer
from tests.compute.conftest import HASTY, ZONE, order
from tests.flows.away import Away

BEGAN = 1_700_000_000.0
SETTINGS = GceSettings(project="my-project")


def ledger(*stays: tuple[float, float | None], name: str = "one", why: str = "delete") -> Ledger:
    """Return a ledger of one machine that ran at these times after the beginning (s)."""
    kept = tuple(
        Stay(
            name=name, zone=ZONE, started=BEGAN + a, ended=None if b is None else BEGAN + b, why=why
        )
        for a, b in stays
    )
    attempt = MachineAttempt(
        name=name, zone=ZONE, machine_type="g2-standard-4", spot=True, ordered=BEGAN,
        price=price(SETTINGS, ZONE, spot=True), stays=kept,
    )  # fmt: skip
    return Ledger(attempts=(attempt,))


def row(began: float, ended: float | None, charged: int, name: str = "one") -> dict[str, Any]:
    ends = None if ended is None else round(1000 * (BEGAN + ended))
    started = round(1000 * (BEGAN + began))
    return {"name": name, "started_ms": started, "ended_ms": ends, "billed_s": charged}


def test_a_ledger_that_is_the_bill_has_no_error() -> None:
    rows = [row(100.0, 190.25, 91), row(0.125, 12.5, 60)]
    assert error_s(ledger((0.125, 12.5), (100.0, 190.25)), rows, BEGAN + 500) == 0.0
    assert error_s(ledger((0.0, None)), [row(0.0, None, 500)], BEGAN + 500) == 0.0


@pytest.mark.parametrize(
    ("own", "error"),
    [
        # All of them cost the same minute.
        (ledger((0.0, 12.5)), 0.125),
        (ledger((0.125, 12.0)), 0.5),
        (ledger((0.125, None)), 487.5 + 440),
        # What is missing or too much counts in full, beside what is charged for it.
        (Ledger(), 12.375 + 60),
        (ledger((0.125, 12.5), (20.0, 21.0)), 1.0 + 60),
        (ledger((0.125, 12.5), name="another"), 2 * 12.375),
        # Taken back within a minute, it would cost nothing.
        (ledger((0.125, 12.5), why="preempted"), 60.0),
    ],
)
def test_a_ledger_is_held_against_the_bill_stay_by_stay(own: Ledger, error: float) -> None:
    found = error_s(own, [row(0.125, 12.5, 60)], BEGAN + 500)
    assert found == pytest.approx(error, abs=1e-6)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_machines_disks_secrets_and_operations_that_are_left_are_orphans(tmp_path: Path) -> None:
    with (
        ComputeServer(tmp_path / "gce") as gce,
        StorageServer() as bucket,
        ExitStack() as wires,
    ):
        setting = Setting(Away(tmp_path, {}), gce, bucket, Past(bucket.world), wires)
        assert setting.orphans() == []
        provisioner = Provisioner(SETTINGS, endpoint=gce.url, patience=HASTY)
        SecretKeeper(provisioner, "tree").keep("PREFECT_API_KEY", "pnu_battery")
        machine = provisioner.launch(order())
        [secret] = gce.vault.secrets
        left = [f"machine {machine.name}", f"disk {machine.name}", f"secret {secret}"]
        assert setting.orphans() == left
        gce.world.preempt(machine.zone, machine.name)
        assert setting.orphans() == [*left, "operation compute.instances.preempted"]
