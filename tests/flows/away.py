"""What it takes to send phases away in a test: a pool, deployments, workers, a parent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_client

from deployments.surroundings import PROJECT
from symbio_core import runner
from symbio_core.config import PHASES, RunConfig
from symbio_core.runner import Run
from symbio_core.runner.exported import WEIGHTS
from symbio_core.runner.living import judge
from symbio_core.storage import open_store
from tasks.elsewhere import DEPLOYMENT


class Away:
    """A folder, an environment, and the processes that share both."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.root = str(folder / "storage")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | settings
        self.env |= {
            "PWD": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=PROJECT, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prepare(self) -> None:
        self.run("-m", "prefect", "work-pool", "create", "symbio-gpu", "--type", "process")
        self.run("-m", "prefect", "work-pool", "update", "symbio-gpu", "--concurrency-limit", "1")
        self.run("-m", "prefect", "work-pool", "create", "symbio-local", "--type", "process")
        self.run("-m", "prefect", "--no-prompt", "deploy", "--all")

    @contextmanager
    def child(self, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *words],
                cwd=PROJECT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield child
        finally:
            end(child)

    def worker(self, name: str) -> Any:
        return self.child(name, "-m", "prefect", "worker", "start", "--pool", "symbio-gpu")

    def parent(self, config: RunConfig, run_id: str) -> Any:
        file = self.folder / "config.json"
        file.write_text(config.model_dump_json(), encoding="utf-8")
        return self.child("parent", "-c", PARENT, str(file), run_id)

    def told(self, run_id: str, phase: str, name: str) -> dict[str, Any] | None:
        """Return what the first attempt at a phase and its parent last told each other."""
        found = open_store(self.root).read(f"runs/{run_id}/elsewhere/{phase}-1/{name}.json")
        return json.loads(found.data) if found else None

    def mid_phase(self, run_id: str, phase: str, turn: int = 1) -> int | None:
        """Return the process of a phase that has trained for a while and not yet ended."""
        pulse = self.told(run_id, phase, "pulse")
        if pulse is None or pulse["state"] != "running" or pulse["turn"] != turn:
            return None
        return int(pulse["pid"]) if pulse["step"] else None

    def turns(self, run_id: str, phase: str) -> int:
        """Return how often the first attempt at a phase was started."""
        turn = self.told(run_id, phase, "turn")
        return int(turn["number"]) if turn else 0

    def logs(self) -> str:
        tails = [f"--- {f.name}\n{f.read_text()[-3000:]}" for f in self.folder.glob("*.log")]
        return "\n".join(tails)


def live_here_until(config: RunConfig, run_id: str, phase: str) -> Run:
    """Begin a run and live its phases before ``phase`` here, wherever its settings send them."""
    run = runner.begin(config, run_id)
    while (plan := run.plan_next()) is not None and plan.phase != phase:
        run.train(plan)
        judge(run, plan)
    assert plan is not None, f"the life ends before {phase}"
    run.release()
    return run


async def deploy() -> None:
    """Make the deployments that a parent starts, for a test whose phases no real worker takes."""
    async with get_client() as client:
        for phase in PHASES:
            await client.create_deployment(await client.create_flow_from_name(phase), DEPLOYMENT)


PARENT = """
import sys
from pathlib import Path
from deployments.embedded import run_embedded
from symbio_core.config import RunConfig
run_embedded(RunConfig.model_validate_json(Path(sys.argv[1]).read_text()), sys.argv[2])
"""


def plainly(value: Any) -> Any:
    """Leave out of a journal what differs by the clock, by where a run lives or how often it saved.

    The name of a checkpoint tells the saves before it, of which a run that is stopped has more.
    """
    clock = {"at", "seconds", "tokens_per_s", "seconds_per_step", "config", "seconds_spent"}
    if isinstance(value, dict):
        return {k: plainly(v) for k, v in value.items() if k not in clock}
    if isinstance(value, list | tuple):
        return [plainly(item) for item in value if not _is_elsewhere(item)]
    is_checkpoint = isinstance(value, str) and re.fullmatch(r"\d{10}-[0-9a-f]{16}", value)
    return value[:10] if is_checkpoint else value


def _is_elsewhere(item: Any) -> bool:
    is_machine = isinstance(item, dict) and item.get("event") == "machine"
    return is_machine or str(item).startswith("throughput")


def difference(one: Any, other: Any, where: str = "") -> str:
    """Return where two journals differ first, or nothing."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        found = (difference(one.get(key), other.get(key), f"{where}.{key}") for key in keys)
        return next((text for text in found if text), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = (
            difference(*pair, f"{where}[{i}]")
            for i, pair in enumerate(zip(one, other, strict=True))
        )
        return next((text for text in found if text), "")
    return "" if one == other else f"{where}: {str(one)[:300]} instead of {str(other)[:300]}"


def model_of(run: Run) -> bytes:
    """Return the weights that a run gives away."""
    return run.store.read_file(WEIGHTS)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started in its session."""
    for pid in session(child.pid):
        os.kill(pid, signal.SIGKILL)
    child.wait()


def session(leader: int) -> list[int]:
    """Return the living processes of a session, its leader included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found
