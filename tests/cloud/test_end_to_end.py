"""A life on machines that are refused, taken back and lost, with real clients and a real server.

Its first phases are lived on this machine: each phase in the cloud takes a machine's boot.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig
from symbio_core.runner.accounts import read_ledger
from tests.cloud.past import Past
from tests.cloud.scenario import RUN, copied, live_half
from tests.cloud.setting import ROOT, ZONES, Setting, cloud, prefect_server
from tests.flows.away import difference, end, model_of, plainly
from tests.waiting import until

TRIED = ("oxidation", "endosymbiosis", "homeostasis")
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_run_lives_through_stockout_preemption_crash_and_the_death_of_its_parent(
    tmp_path: Path,
) -> None:
    lived = live_half(tmp_path, TRIED[0])
    near = lived.whole
    with prefect_server(tmp_path) as settings, cloud(tmp_path, settings) as setting:
        try:
            live_and_be_tried(setting, copied(lived.half))
            far = runner.reopen(ROOT, RUN)
            assert difference(plainly(far.events), plainly(near.events)) == "", "each step once"
            assert model_of(far) == model_of(near), "bit by bit"
            # A machine under load may fall silent once more, and the phase then gets one more turn.
            turns = [setting.away.turns(RUN, phase) for phase in TRIED]
            assert all(taken >= due for taken, due in zip(turns, [2, 2, 1], strict=True)), turns
            assert setting.gce.world.most_alive == 1, "never more than one machine"
            assert setting.orphans() == []
            assert setting.ledger_error_s(RUN) == 0.0
            goes_on_where_it_was_saved(setting.past)
            cost = json.loads(far.store.read_file("report/final-report.json"))["cost"]
            ledger = read_ledger(far.store.store, RUN)
            assert all(one.is_over for one in ledger.attempts)
            assert cost["usd"] == ledger.usd(0.0) > 0.0
            assert [one["ended"] for one in cost["machines"]] == [a.why for a in ledger.attempts]
        except BaseException:
            print(setting.told())
            raise


def live_and_be_tried(setting: Setting, config: RunConfig) -> None:
    away, gce = setting.away, setting.gce
    gce.fail("insert", "ZONE_RESOURCE_POOL_EXHAUSTED", zone=ZONES[0])
    with away.parent(config, RUN) as parent:
        mid_phase(setting, TRIED[0])
        first = setting.machine()
        assert first[0] == ZONES[1]
        assert gce.vault.secrets, "what has to be gone at the end was there"
        gce.world.preempt(*first)
        mid_phase(setting, TRIED[1])
        second = setting.machine()
        assert second[0] != first[0], "not again where it was taken back"
        turn = away.told(RUN, TRIED[0], "turn")
        assert turn is not None
        assert turn["why"] == "its machine is lost: preempted"
        gce.world.crash(*second)
        mid_phase(setting, TRIED[2])
        end(parent)
    with away.parent(config, RUN) as parent:
        assert parent.wait(400) == 0


def mid_phase(setting: Setting, phase: str) -> None:
    """Wait until a phase is under way for the first time and has saved."""
    until(lambda: setting.away.mid_phase(RUN, phase) and setting.past.saved(f"{phase}-1"))


def goes_on_where_it_was_saved(past: Past) -> None:
    assert past.wrong() == []
    preempted, *after_notice = past.starts[f"{TRIED[0]}-1"]
    crashed, *after_crash = past.starts[f"{TRIED[1]}-1"]
    assert after_notice
    assert after_crash
    # It had notice: what it told last is saved, so the next start repeats none of that.
    assert preempted.pulses[-1].state == "saved"
    assert preempted.saved[-1] >= preempted.told[-1]
    # It had none: whatever came after its last save in passing is lost, and trained again.
    assert crashed.pulses[-1].state == "running"
