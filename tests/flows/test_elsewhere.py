"""A life whose last phases run on a worker, which is killed; and a parent that is killed.

The first are lived here: each phase on a worker takes the start of a process.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from symbio_core import runner
from symbio_core.config import PHASES, RunConfig, changed
from tests.conftest import tiny
from tests.flows.away import Away, end, live_here_until, model_of, plainly
from tests.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.slow]
CALM = {"without": ["search", "final"], "budget.steps": 2500, "storage.save_every": 40}
TRIED = ("oxidation", "endosymbiosis", "homeostasis")
NEAR = {
    "compute.kind": "pool",
    "compute.threads": 1,
    "compute.elsewhere.beat_s": 0.1,
    "compute.elsewhere.lost_after_s": 4.0,
    "compute.elsewhere.poll_s": 0.2,
    "compute.elsewhere.pause_s": 0.1,
}


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Away:
    settings = {
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PREFECT_HOME": str(PREFECT_HOME.value()),
    }
    ready = Away(tmp_path_factory.mktemp("away"), settings)
    ready.prepare()
    return ready


def test_phases_on_a_worker_survive_the_loss_of_process_worker_and_parent(
    away: Away, tiny_corpus: Path
) -> None:
    config = changed(tiny(tiny_corpus, Path(away.root)), CALM | NEAR)
    live_here_until(config, "far", TRIED[0])
    try:
        live_and_be_killed(away, config)
    except BaseException:
        print(away.logs())
        raise
    far = runner.reopen(away.root, "far")
    assert far.is_finished
    here = changed(tiny(tiny_corpus, away.folder / "here"), CALM | {"compute.threads": 1})
    near = runner.begin(here, "far")
    runner.live(near)
    trained = [e["outcome"]["phase"] for e in far.events if e["event"] == "trained"]
    assert set(trained) == set(PHASES)
    assert [away.turns("far", phase) for phase in TRIED] == [2, 2, 1]
    assert plainly(far.events) == plainly(near.events), "every step was trained once"
    assert model_of(far) == model_of(near), "bit by bit"


def live_and_be_killed(away: Away, config: RunConfig) -> None:
    with away.worker("worker-1") as first, away.parent(config, "far") as parent:
        os.kill(until(lambda: away.mid_phase("far", TRIED[0])), signal.SIGKILL)
        until(lambda: away.mid_phase("far", TRIED[1]))
        end(first)
        end(parent)
    with away.worker("worker-2"), away.parent(config, "far") as parent:
        assert parent.wait(200) == 0
