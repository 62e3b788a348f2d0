"""What the bench of bad weather makes of its scenarios."""

from __future__ import annotations

from dataclasses import asdict

from symbio_core.benches.cloud_chaos import summarised
from tests.cloud.scenario import Result


def test_the_summary_counts_what_went_well_what_is_left_and_the_worst_error_of_the_ledger() -> None:
    results = [
        Result(seed=1, hazards=["host crash"], ok=True, most_alive=1),
        Result(seed=2, hazards=["preempted"], why="something is left", orphans=2),
        Result(seed=3, missed=["phase hangs"]),
        Result(seed=4, ok=True, ledger_error_s=0.25),
    ]
    assert summarised([asdict(result) for result in results]) == {
        "scenarios": 4,
        "ok_frac": 0.5,
        "orphans": 2,
        "ledger_error_s": 0.25,
    }
