"""A life on machines that are refused, taken back and lost, with real clients and a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import PHASES, RunConfig
from symbio_core.runner.accounts import read_ledger
from tests.cloud.setting import CLOUD, ROOT, ZONES, Setting, calm, cloud, prefect_server
from tests.conftest import tiny
from tests.flows.away import difference, end, model_of, plainly, until

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_run_lives_through_stockout_preemption_crash_and_the_death_of_its_parent(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    config = tiny(tiny_corpus, tmp_path / "here")
    near = runner.begin(calm(config), "far")
    runner.live(near)
    with prefect_server(tmp_path) as settings, cloud(tmp_path, settings) as setting:
        try:
            live_and_be_tried(setting, calm(config, **CLOUD))
            far = runner.reopen(ROOT, "far")
            assert difference(plainly(far.events), plainly(near.events)) == "", "each step once"
            assert model_of(far) == model_of(near), "bit by bit"
            # A machine under load may fall silent once more, and the phase then gets one more turn.
            turns = [setting.away.turns("far", phase) for phase in PHASES[:4]]
            assert all(taken >= due for taken, due in zip(turns, [1, 2, 2, 1], strict=True)), turns
            assert setting.gce.world.most_alive == 1, "never more than one machine"
            assert setting.orphans() == 0
            assert setting.ledger_error_s("far") == 0
            cost = json.loads(far.store.read_file("report/final-report.json"))["cost"]
            ledger = read_ledger(far.store.store, "far")
            assert cost["usd"] == ledger.usd(0.0) > 0.0
            assert [one["ended"] for one in cost["machines"]] == [a.why for a in ledger.attempts]
        except BaseException:
            print(setting.told())
            raise


def live_and_be_tried(setting: Setting, config: RunConfig) -> None:
    away, gce = setting.away, setting.gce
    gce.fail("insert", "ZONE_RESOURCE_POOL_EXHAUSTED", zone=ZONES[0])
    with away.parent(config, "far") as parent:
        until(lambda: away.mid_phase("far", "primordial"), 250)
        zone, name = setting.machine()
        assert zone == ZONES[1]
        gce.world.preempt(zone, name)
        until(lambda: away.mid_phase("far", "cambrian"), 250)
        gce.world.crash(*setting.machine())
        until(lambda: away.mid_phase("far", "oxidation"), 250)
        end(parent)
    with away.parent(config, "far") as parent:
        assert parent.wait(400) == 0
