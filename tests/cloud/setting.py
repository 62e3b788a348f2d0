"""A Prefect server, a bucket and a Compute Engine on this machine, and a run that uses them all."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from deployments.surroundings import database_url, free_port, is_healthy
from symbio_core.compute.ledger import Ledger
from symbio_core.config import RunConfig, changed
from symbio_core.runner.accounts import read_ledger
from symbio_core.storage import gcs, open_store
from tests.cloud.compute_server import ComputeServer, Timings
from tests.cloud.past import Past
from tests.cloud.storage_server import StorageServer
from tests.cloud.wire import Wire
from tests.flows.away import Away
from tests.waiting import until

ROOT = "gs://runs/here"
KEY = "pnu_correct-horse-battery"
ZONES = ("us-central1-a", "us-central1-b", "us-east1-b")
CALM = {
    "without": ["search", "final"],
    "budget.steps": 4000,
    # The last phase is tried like the others, so it has to last.
    "phases.endosymbiosis.share": 0.2,
    "phases.homeostasis.share": 0.2,
    "storage.save_every": 100,
    # What a phase takes here depends on what else the machine does.
    "gates.overtime": 1e6,
}
"""A life of the line alone."""
ON_GCE: dict[str, Any] = {
    "storage.root": ROOT,
    "compute.kind": "gce",
    "compute.threads": 1,
    "compute.gce.project": "my-project",
    "compute.gce.retry_after_s": 0.0,
}
ON_MACHINES: dict[str, Any] = ON_GCE | {
    "compute.gce.zones": ZONES[:2],
    # No worker of Prefect is asked here, so none has to find a server.
    "compute.elsewhere.prefect_api_url": "http://127.0.0.1:9/api",
}
"""A run on machines that look into the bucket for their turns, and need no Prefect."""
CLOUD: dict[str, Any] = ON_GCE | {
    "compute.gce.zones": ZONES,
    "compute.gce.tries_per_zone": 6,
    "compute.gce.notice_s": 30,
    "compute.elsewhere.beat_s": 1.0,
    "compute.elsewhere.lost_after_s": 8.0,
    "compute.elsewhere.poll_s": 0.3,
    "compute.elsewhere.pause_s": 0.1,
    "compute.elsewhere.idle_s": 60.0,
}

Stretch = tuple[float, float]
"""When a machine began to run and when it ended (Unix seconds)."""


@dataclass
class Setting:
    """The servers of one life in the cloud, and what starts its processes."""

    away: Away
    gce: ComputeServer
    bucket: StorageServer
    past: Past
    wires: ExitStack
    network: list[Wire] = field(default_factory=list)
    """What the machines that boot from now on reach bucket and Compute Engine by."""

    def connect(self) -> None:
        """Give machines that boot from now on a network of their own."""
        self.network = [self.wires.enter_context(Wire(one.url)) for one in (self.bucket, self.gce)]
        to_bucket, to_api = self.network
        with self.gce.world.lock:
            self.gce.world.env |= {
                "STORAGE_EMULATOR_HOST": to_bucket.url,
                "SYMBIO_GCE_ENDPOINT": to_api.url,
                "SYMBIO_SECRETS_ENDPOINT": to_api.url,
            }

    def cut_off(self) -> None:
        """Cut the network of the machine there is; the next one has another."""
        for wire in self.network:
            wire.cut()
        self.connect()

    def machine(self) -> tuple[str, str]:
        """Return zone and name of the one machine there is."""
        [where] = self.gce.world.vms
        return where

    def told(self) -> str:
        """Return the ends of all logs, for whoever looks for a mistake."""
        disks = sorted((self.gce.world.root / "disks").glob("*.serial"))
        serial = [f"--- {file.name}\n{file.read_text()[-6000:]}" for file in disks]
        return "\n".join([self.away.logs(), *serial])

    def orphans(self) -> list[str]:
        """Return what is left that costs money, holds a secret or is on its way."""
        world = self.gce.world
        pending = [op for op in world.operations.values() if op["status"] != "DONE"]
        return [
            *(f"machine {name}" for _, name in world.vms),
            *(f"disk {name}" for _, name in world.disks),
            *(f"secret {name}" for name in self.gce.vault.secrets),
            *(f"operation {op['operationType']}" for op in pending),
        ]

    def ledger_error_s(self, run_id: str) -> float:
        """Return by how many seconds the run's ledger differs from the service's bill."""
        return error_s(read_ledger(open_store(ROOT), run_id), self.gce.bill(), time.time())


def error_s(ledger: Ledger, bill: list[dict[str, Any]], now: float) -> float:
    """Return by how many seconds a ledger differs from a bill, stay by stay and in what is charged.

    Args:
        ledger: what a run keeps of its machines.
        bill: a row for each stretch of time that a machine ran.
        now: until when whatever has not ended counts (Unix seconds).
    """
    own: dict[str, list[Stretch]] = defaultdict(list)
    theirs: dict[str, list[Stretch]] = defaultdict(list)
    for one in ledger.attempts:
        own[one.name] += [(stay.started, stay.ended or now) for stay in one.stays]
    for row in sorted(bill, key=lambda row: row["started_ms"]):
        ended = row["ended_ms"] / 1000 if row["ended_ms"] is not None else now
        theirs[row["name"]].append((row["started_ms"] / 1000, ended))
    charged = sum(row["billed_s"] for row in bill)
    return abs(ledger.billed_s(now) - charged) + sum(
        _apart_s(stay, other)
        for name in own | theirs
        for stay, other in zip_longest(own[name], theirs[name])
    )


def _apart_s(one: Stretch | None, other: Stretch | None) -> float:
    if one is None or other is None:
        began, ended = one or other or (0.0, 0.0)
        return ended - began
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def vm_environment(bucket: StorageServer, python: str) -> dict[str, str]:
    """Return the environment of machines that reach this bucket, and take ``python`` for theirs."""
    return {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "STORAGE_EMULATOR_HOST": bucket.url,
        "SYMBIO_VM_HOME": "symbio",
        "SYMBIO_VM_PYTHON": python,
    }


@contextmanager
def machines(
    folder: Path, python: str, timings: Timings | None = None, **env: str
) -> Iterator[tuple[ComputeServer, StorageServer]]:
    """Run a bucket and a Compute Engine that this process reaches as its own.

    Args:
        folder: where disks lie.
        python: what the startup script of a machine takes for Python.
        timings: how fast the world is.
        env: more of the machines' environment.
    """
    with StorageServer() as bucket, pytest.MonkeyPatch.context() as patch:
        bucket.world.add_bucket("runs")
        patch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        patch.setattr(gcs._PACER, "interval_s", 0.0)
        vm = vm_environment(bucket, python) | env
        with ComputeServer(folder / "gce", env=vm, timings=timings) as gce:
            patch.setenv("SYMBIO_GCE_ENDPOINT", gce.url)
            yield gce, bucket


@contextmanager
def prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with pools and deployments; yield what its clients need to know."""
    port, home = free_port(), folder / "prefect"
    home.mkdir()
    api_url = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(home),
    }
    away = Away(folder, settings)
    with away.child("server", "-m", "prefect", "server", "start", "--port", str(port)):
        until(lambda: is_healthy(api_url))
        away.prepare()
        yield settings


@contextmanager
def cloud(folder: Path, settings: dict[str, str]) -> Iterator[Setting]:
    """Run a bucket and a Compute Engine, and all that a life needs besides a Prefect server."""
    with (
        StorageServer() as bucket,
        pytest.MonkeyPatch.context() as patch,
    ):
        bucket.world.add_bucket("runs")
        patch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        away = Away(folder, settings)
        away.root = ROOT
        # Goes to each machine by way of Secret Manager; this server lets in whoever has any.
        away.env["PREFECT_API_KEY"] = KEY
        vm = vm_environment(bucket, sys.executable) | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        # A second of a notice lasts a tenth of one here.
        with ComputeServer(folder / "gce", env=vm, timings=Timings(scale=0.1)) as gce:
            away.env |= {"SYMBIO_GCE_ENDPOINT": gce.url, "SYMBIO_SECRETS_ENDPOINT": gce.url}
            with ExitStack() as wires:
                setting = Setting(away, gce, bucket, Past(bucket.world), wires)
                setting.connect()
                yield setting
        assert gce.world.failures == []


def calm(config: RunConfig, **changes: Any) -> RunConfig:
    """Return a short life of the line alone, on one thread."""
    return changed(config, CALM | {"compute.threads": 1} | changes)
