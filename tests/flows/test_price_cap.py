"""A run whose money ends: it ends well before the cap is passed, and tells what it cost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flows.autonomous import symbio
from symbio_core import runner
from symbio_core.config import changed
from symbio_core.report import FinalReport
from symbio_core.runner.accounts import read_ledger
from tests.cloud.plain_worker import python_for
from tests.cloud.setting import ON_MACHINES, ROOT, machines
from tests.conftest import tiny
from tests.flows.away import deploy

USD_PER_HOUR = 1000.0
# A phase and a machine take 270 s to come to their end, as they are reckoned; the rest is to train.
CAP_USD = 282.0 * USD_PER_HOUR / 3600.0
DEAR: dict[str, Any] = ON_MACHINES | {
    "without": ["search", "final"],
    "budget.steps": 400_000,
    "budget.max_usd": CAP_USD,
    "compute.gce.usd_per_hour": USD_PER_HOUR,
    "compute.elsewhere.beat_s": 0.5,
    "compute.elsewhere.poll_s": 0.3,
}
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_run_ends_well_before_its_cap_with_its_costs_told_and_no_machine_left(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    asyncio.run(deploy())
    with machines(tmp_path, python_for(tmp_path)) as (gce, _):
        report: Any = asyncio.run(symbio(changed(tiny(tiny_corpus, tmp_path), DEAR), "dear"))
        left, bill = dict(gce.world.vms), gce.bill()
        run = runner.reopen(ROOT, "dear")
        ledger = read_ledger(run.store.store, "dear")
        held = json.loads(run.store.read_file("report/final-report.json"))
        page = run.store.read_file("report/report.html").decode()
    assert isinstance(report, FinalReport)
    assert left == {}
    [attempt] = run.attempts
    assert attempt.outcome.reason == "the cap on dollars was reached"
    assert held["finished"].startswith("the cap on dollars is reached")
    assert [event["event"] for event in run.events][-1] == "finished"
    assert held["shipped"]["id"] == attempt.outcome.end.id
    assert held["cost"]["usd"] == ledger.usd(0.0) < CAP_USD
    assert held["cost"]["billed_s"] == ledger.billed_s(0.0) == sum(row["billed_s"] for row in bill)
    assert "What it cost" in page
