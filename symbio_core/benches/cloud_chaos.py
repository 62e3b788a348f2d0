"""How a run on cloud machines fares when they are refused, taken back, crash, hang and get lost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.errors import ConfigError, SymbioError

FEWEST = 20
"""Scenarios of a bench, however few are asked for."""


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Let runs live through hazards drawn from seeds, against servers on this machine.

    The servers come with the tests, so this needs a checkout. Takes about a minute a scenario.

    Args:
        config: its seed is that of the first scenario.
        seeds: scenarios, at least 20.
        jobs: not used; a scenario fills the machine.
        say: takes a line of progress.

    Raises:
        ConfigError: this is no checkout.
        SymbioError: the scenarios could not be run.
    """
    del jobs
    if not Path("tests/cloud/scenario.py").exists():
        raise ConfigError("cloud-chaos needs the servers of the tests; run it in a checkout")
    results = _run(config.seed, max(FEWEST, seeds), say)
    summary = summarised(results)
    table = Table("figure", "value", box=None)
    for key, value in summary.items():
        table.add_row(key, f"{value:g}")
    return table, {"bench": "cloud-chaos", "results": results, "summary": summary}


def summarised(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figures of all scenarios together.

    Args:
        results: what came of each; one is `ok` only where all hazards drawn for it came to pass.
    """
    return {
        "scenarios": len(results),
        "ok_frac": sum(result["ok"] for result in results) / len(results),
        # Machines, disks, secrets and operations under way.
        "orphans": sum(result["orphans"] for result in results),
        "ledger_error_s": max(result["ledger_error_s"] for result in results),
    }


def _run(first: int, count: int, say: Say) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        words = ["-m", "tests.cloud.scenario", "--first", str(first), "--count", str(count)]
        # A file, because a pipe that nobody reads while it fills would stop the scenarios.
        with (Path(folder) / "errors.log").open("w+", encoding="utf-8") as errors:
            child = subprocess.Popen(
                [sys.executable, *words, "--json", str(file)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert child.stdout is not None
            for line in child.stdout:
                say(line.rstrip())
            if child.wait():
                errors.seek(0)
                wrong = errors.read().strip()[-300:]
                raise SymbioError(f"the scenarios could not be run: {wrong}")
        results: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return results
