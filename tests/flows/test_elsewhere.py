"""A life whose phases run on a worker, which is killed; and a parent that is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from symbio_core import runner
from symbio_core.config import PHASES, RunConfig, changed
from tests.conftest import tiny
from tests.flows.away import Away, end, until

pytestmark = [pytest.mark.server, pytest.mark.slow]
CALM = {"without": ["search", "final"], "budget.steps": 2500, "storage.save_every": 40}
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


def plainly(value: Any) -> Any:
    """Leave out of a journal what differs by the clock or by where a run lives."""
    clock = {"at", "seconds", "tokens_per_s", "seconds_per_step", "config", "seconds_spent"}
    if isinstance(value, dict):
        return {k: plainly(v) for k, v in value.items() if k not in clock}
    if isinstance(value, list | tuple):
        return [plainly(item) for item in value if not str(item).startswith("throughput")]
    return value


def steps_past(away: Away, phase: str, step: int) -> int | None:
    """Return the phase's process once it has trained that many steps, and not yet ended."""
    pulse = away.pulse("far", phase)
    if pulse is None or pulse["state"] != "running" or pulse["step"] < step:
        return None
    return int(pulse["pid"])


def test_phases_on_a_worker_survive_the_loss_of_process_worker_and_parent(
    away: Away, tiny_corpus: Path
) -> None:
    config = changed(tiny(tiny_corpus, away.root), CALM | NEAR)
    try:
        live_and_be_killed(away, config)
    except BaseException:
        print(away.logs())
        raise
    far = runner.reopen(str(away.root), "far")
    assert far.is_finished
    here = changed(tiny(tiny_corpus, away.folder / "here"), CALM | {"compute.threads": 1})
    near = runner.begin(here, "far")
    runner.live(near)
    trained = [e["outcome"]["phase"] for e in far.events if e["event"] == "trained"]
    assert set(trained) == set(PHASES)
    assert turns(away, "primordial") == turns(away, "cambrian") == 2
    assert turns(away, "abiogenesis") == 1
    assert plainly(far.events) == plainly(near.events), "every step was trained once, bit by bit"


def turns(away: Away, phase: str) -> int:
    file = away.root / "runs" / "far" / "elsewhere" / f"{phase}-1" / "turn.json"
    return int(json.loads(file.read_text())["number"])


def live_and_be_killed(away: Away, config: RunConfig) -> None:
    with away.worker("worker-1") as first, away.parent(config, "far") as parent:
        os.kill(until(lambda: steps_past(away, "primordial", 200)), signal.SIGKILL)
        until(lambda: steps_past(away, "cambrian", 700))
        end(first)
        end(parent)
    with away.worker("worker-2"), away.parent(config, "far") as parent:
        assert parent.wait(200) == 0
