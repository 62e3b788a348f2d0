"""A life on machines that are refused, taken back and lost, with real clients and a real server."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.surroundings import database_url, free_port, is_healthy
from symbio_core import runner
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.runner.machines import read_ledger
from symbio_core.storage import open_store
from tests.cloud.compute_server import ComputeServer, Timings
from tests.cloud.guard import only_loopback
from tests.cloud.storage_server import StorageServer
from tests.conftest import tiny
from tests.flows.away import Away, end, plainly, until

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROOT = "gs://runs/here"
ZONES = ("us-central1-a", "us-central1-b", "us-east1-b")
CALM = {"without": ["search", "final"], "budget.steps": 2000, "storage.save_every": 50}
CLOUD: dict[str, Any] = {
    "storage.root": ROOT,
    "compute.kind": "gce",
    "compute.threads": 1,
    "compute.gce.project": "my-project",
    "compute.gce.zones": ZONES,
    "compute.gce.retry_after_s": 0.0,
    "compute.gce.notice_s": 30,
    "compute.elsewhere.beat_s": 1.0,
    "compute.elsewhere.lost_after_s": 8.0,
    "compute.elsewhere.poll_s": 0.3,
    "compute.elsewhere.pause_s": 0.1,
    "compute.elsewhere.idle_s": 60.0,
}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Away, ComputeServer]]:
    """A Prefect server, a bucket and a Compute Engine, all on this machine."""
    port = free_port()
    api_url, home = f"http://127.0.0.1:{port}/api", tmp_path / "prefect"
    home.mkdir()
    settings = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(home),
    }
    with only_loopback(), StorageServer() as bucket:
        bucket.world.add_bucket("runs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        away = Away(tmp_path, settings)
        away.root = ROOT
        vm = {name: away.env[name] for name in ("PATH", "OMP_NUM_THREADS", "STORAGE_EMULATOR_HOST")}
        vm |= {
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "SYMBIO_VM_HOME": "symbio",
            "SYMBIO_VM_PYTHON": sys.executable,
        }
        # A second of a notice lasts a tenth of one here.
        with (
            ComputeServer(tmp_path / "gce", env=vm, timings=Timings(scale=0.1)) as gce,
            away.child("server", "-m", "prefect", "server", "start", "--port", str(port)),
        ):
            away.env["SYMBIO_GCE_ENDPOINT"] = gce.url
            until(lambda: is_healthy(api_url))
            away.prepare()
            yield away, gce
        assert gce.world.failures == []


def test_a_run_lives_through_stockout_preemption_crash_and_the_death_of_its_parent(
    cloud: tuple[Away, ComputeServer], tiny_corpus: Path, tmp_path: Path
) -> None:
    away, gce = cloud
    config = changed(tiny(tiny_corpus, tmp_path), CALM | CLOUD)
    try:
        live_and_be_tried(away, gce, config)
    except BaseException:
        print(away.logs(), *[gce.world.serial(vm).decode() for vm in gce.world.vms.values()])
        raise
    far = runner.reopen(ROOT, "far")
    here = {"storage.root": str(tmp_path / "here"), "compute.threads": 1}
    near = runner.begin(changed(tiny(tiny_corpus, tmp_path), CALM | here), "far")
    runner.live(near)
    assert plainly(far.events) == plainly(near.events), "each step once, bit by bit"
    assert [away.turns("far", phase) for phase in PHASES[:4]] == [1, 2, 2, 1]
    assert gce.world.most_alive == 1, "never more than one machine"
    assert gce.world.vms == {}
    assert all(op["status"] == "DONE" for op in gce.world.operations.values())
    ledger = read_ledger(open_store(ROOT), "far")
    billed = Counter({one.name: one.billed_s(0.0) for one in ledger.attempts if not one.refused})
    assert billed == Counter({row["name"]: row["billed_s"] for row in gce.bill()})


def live_and_be_tried(away: Away, gce: ComputeServer, config: RunConfig) -> None:
    gce.fail("insert", "ZONE_RESOURCE_POOL_EXHAUSTED", zone=ZONES[0])
    with away.parent(config, "far") as parent:
        until(lambda: away.mid_phase("far", "primordial"), 250)
        [(zone, name)] = gce.world.vms
        assert zone == ZONES[1]
        gce.world.preempt(zone, name)
        until(lambda: away.mid_phase("far", "cambrian"), 250)
        [(zone, name)] = gce.world.vms
        gce.world.crash(zone, name)
        until(lambda: away.mid_phase("far", "oxidation"), 250)
        end(parent)
    with away.parent(config, "far") as parent:
        assert parent.wait(400) == 0
