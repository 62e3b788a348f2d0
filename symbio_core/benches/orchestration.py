"""What Prefect costs: the same run through flows on the embedded API, and in plain Python."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

from symbio_core import runner
from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.errors import SymbioError

FIVE_MINUTES_S = 300.0


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Time whole processes in pairs, with Prefect and without, in turn.

    Args:
        config: what is run; the smoke profile will do, since the cost is one of flows and tasks.
        seeds: pairs.
        jobs: not used; the pairs must not disturb each other.
        say: takes a line of progress.
    """
    del jobs
    extra: list[float] = []
    plain: list[float] = []
    for pair in range(seeds):
        without = _time(config, config.seed + pair, "--plain")
        through = _time(config, config.seed + pair)
        plain.append(without)
        extra.append(through - without)
        say(f"pair {pair + 1}: {without:.1f} s in plain Python, {through:.1f} s through Prefect")
    mean = float(np.mean(extra))
    half = (
        float(stats.t.ppf(0.975, seeds - 1) * np.std(extra, ddof=1) / np.sqrt(seeds))
        if seeds > 1
        else float("nan")
    )
    summary = {
        "extra_seconds": mean,
        "extra_seconds_ci_low": mean - half,
        "extra_seconds_ci_high": mean + half,
        "plain_seconds": float(np.mean(plain)),
        "frac_of_five_minutes": mean / FIVE_MINUTES_S,
    }
    table = Table("figure", "value", box=None)
    for key, value in summary.items():
        table.add_row(key, f"{value:.3f}")
    return table, {"bench": "orchestration", "extra_seconds": extra, "summary": summary}


def _time(config: RunConfig, seed: int, *options: str) -> float:
    command = [sys.executable, "-m", "symbio_core.cli", "run", "--profile", config.profile]
    command += ["--seed", str(seed), "--run-id", runner.new_name(config)]
    command += ["--storage", config.storage.root, *options]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SymbioError(f"a run of the bench failed: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began
