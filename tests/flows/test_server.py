"""As a person starts it: a real server, a worker, a run by hand, a run on schedule."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.surroundings import PROJECT
from symbio_core.benches.arms import SMALL_BATTERY
from symbio_core.config import changed
from symbio_core.profiles import profile
from tests.waiting import until

pytestmark = [pytest.mark.server, pytest.mark.slow]
SHORT: dict[str, Any] = SMALL_BATTERY | {"without": ("search", "final"), "budget.steps": 300}


class Up:
    """`symbio up` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.home = folder / "prefect"
        self.storage = folder / "storage"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.env |= {"PREFECT_HOME": str(self.home)}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deployments.up", "--port", port],
            cwd=PROJECT,
            env=self.env,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Prefect is up" in line:
                return
        pytest.fail("".join(said))

    def prefect(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            cwd=PROJECT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        answer = self.api.post("/flow_runs/filter", json={"flow_runs": filters})
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found

    def config(self, **changes: Any) -> str:
        small = changed(profile("smoke"), SHORT | {"storage.root": str(self.storage)} | changes)
        return small.model_dump_json(exclude_defaults=True)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    server = Up(tmp_path_factory.mktemp("up"))
    try:
        server.wait()
        yield server
    finally:
        server.process.send_signal(signal.SIGINT)
        server.process.communicate(timeout=60)
        server.api.close()


def ended(run: dict[str, Any]) -> bool:
    return run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def test_a_bad_setting_is_refused_before_a_run_exists(up: Up) -> None:
    for config in ({"seed": -1}, {"sed": 1}, {"optimiser": {"name": "sgd"}}):
        done = up.prefect("deployment", "run", "symbio/smoke", "-p", f"config={json.dumps(config)}")
        assert done.returncode == 1, done.stdout
        assert "Validation failed" in done.stdout + done.stderr
    assert up.runs() == []


def test_two_runs_by_hand_take_turns(up: Up) -> None:
    for name in ("by-hand", "behind"):
        config = ("-p", f"config={up.config()}", "-p", f"run_id={name}")
        done = up.prefect("deployment", "run", "symbio/autonomous", *config)
        assert done.returncode == 0, done.stdout + done.stderr
    whole = {"parent_task_run_id": {"is_null_": True}}
    runs = until(lambda: [run for run in up.runs(**whole) if ended(run)][1:] and up.runs(**whole))
    assert [run["state_type"] for run in runs] == ["COMPLETED", "COMPLETED"], runs
    assert {run["name"] for run in runs} == {"by-hand", "behind"}
    first, second = sorted(runs, key=lambda run: str(run["start_time"]))
    assert first["end_time"] < second["start_time"]
    for run in runs:
        assert (up.storage / "runs" / run["name"] / "report/final-report.json").exists()


def test_a_schedule_switched_on_starts_a_run_from_the_newest(up: Up) -> None:
    nightly = up.api.get("/deployments/name/symbio/nightly").raise_for_status().json()
    assert [schedule["active"] for schedule in nightly["schedules"]] == [False]
    schedule = {
        "schedule": {"interval": 45},
        "active": True,
        "parameters": {"config": json.loads(up.config(start_from="latest"))},
    }
    schedules = f"/deployments/{nightly['id']}/schedules"
    [made] = up.api.post(schedules, json=[schedule]).raise_for_status().json()
    mine = {"deployment_id": {"any_": [nightly["id"]]}}
    scheduled = until(lambda: up.runs(**mine))
    assert all(run["auto_scheduled"] for run in scheduled)
    first = until(lambda: [run for run in up.runs(**mine) if ended(run)])[0]
    up.api.delete(f"{schedules}/{made['id']}").raise_for_status()
    assert first["state_type"] == "COMPLETED", first["state"]["message"]
    config = json.loads((up.storage / "runs" / first["name"] / "config.json").read_text())
    assert config["start_from"] in {"by-hand", "behind"}


def test_the_servers_log_holds_no_error(up: Up) -> None:
    log = (up.home / "server.log").read_text(encoding="utf-8")
    assert "ERROR" not in log, log
    assert "Traceback" not in log, log
