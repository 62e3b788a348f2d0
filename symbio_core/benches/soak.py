"""Kill whole runs at random moments, many times, and compare how they end, bit for bit."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

from rich.table import Table

from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.runner.killing import prove, shortened

THROUGH_PREFECT = 4
"""Each life of a number that this divides goes through Prefect, where it is installed."""


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Live a shortened run undisturbed, then under kills, until there were enough of them.

    Args:
        config: the run; its steps are cut to the fewest that have every phase.
        seeds: kills.
        jobs: not used; a life fills the machine.
        say: takes a line of progress.

    Raises:
        SymbioError: a process failed for another reason than a kill.
    """
    del jobs
    has_prefect = all(importlib.util.find_spec(name) for name in ("prefect", "deployments"))
    with tempfile.TemporaryDirectory() as folder:
        proof = prove(
            shortened(config, folder),
            seeds,
            say,
            plain=lambda index: not has_prefect or (index + 1) % THROUGH_PREFECT > 0,
        )
    unequal = {line.partition(":")[0] for line in proof.differs}
    # A life that ended before it was killed proves nothing, unless it ended otherwise.
    lives = {life.run_id for life in proof.killed if life.kills} | unequal
    summary = {
        "kills": proof.kills,
        "bit_equal_frac": 1.0 - len(unequal) / len(lives),
        "lives": len(lives),
        "torn": proof.torn,
    }
    table = Table("figure", "value", box=None)
    for key, value in summary.items():
        table.add_row(key, f"{value:g}")
    return table, {
        "bench": "soak",
        "kills": [[str(moment) for moment in life.kills] for life in proof.killed],
        "differs": list(proof.differs),
        "summary": summary,
    }
