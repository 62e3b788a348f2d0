"""symbio measured by itself: every figure of the docs comes from a bench here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from symbio_core.benches import (
    ablation,
    arms,
    battery,
    checkpoint,
    cloud_chaos,
    detectors,
    efficacy,
    horizon,
    null_search,
    orchestration,
    planted_winner,
    soak,
    steps,
)
from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Found:
    """What a bench found: a table for a person, data for a file; `summary` in it is flat."""

    table: Table
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench and the sentence that the list shows."""

    about: str
    measure: Callable[[RunConfig, int, int, Say], tuple[Table, dict[str, Any]]]


BENCHES = {
    "ablation": Bench("what each mechanism contributes at equal budget", ablation.measure),
    "ablation-planted": Bench(
        "the same where there is a better function to find", ablation.measure_planted
    ),
    "battery": Bench("order, intervals and false alarms of the text gates", battery.measure),
    "checkpoint": Bench(
        "how long training stands still for saves, and how fast they are", checkpoint.measure
    ),
    "cloud-chaos": Bench(
        "how runs fare on cloud machines that are refused, taken back, crash and hang",
        cloud_chaos.measure,
    ),
    "detectors": Bench(
        "what each detector sees where a fault is planted, and where all is well",
        detectors.measure,
    ),
    "efficacy": Bench(
        "symbio against GELU, SiLU and ReLU² at equal steps and equal seconds", efficacy.measure
    ),
    "horizon": Bench("what a lead after few steps says about the end", horizon.measure),
    "null-search": Bench(
        "how often a search with shuffled scores claims a winner", null_search.measure
    ),
    "orchestration": Bench("Prefect's share of a run's wall time", orchestration.measure),
    "planted-winner": Bench(
        "how often the search finds a function that is truly better", planted_winner.measure
    ),
    "soak": Bench(
        "how runs end that are killed again and again, against one left alone", soak.measure
    ),
    "steps": Bench("what a training step costs, by optimiser and function", steps.measure),
}


def catalogue() -> dict[str, str]:
    """Return every bench's name with what it measures."""
    return {name: bench.about for name, bench in BENCHES.items()}


def run(name: str, config: RunConfig, *, seeds: int, jobs: int, say: Say) -> Found:
    """Measure the bench called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in BENCHES:
        raise ConfigError(f"bench '{name}' is unknown; take one of {', '.join(BENCHES)}")
    table, data = BENCHES[name].measure(config, seeds, jobs, say)
    # A bench that changes the settings for itself tells its own.
    return Found(table, arms.heading(name, config, jobs) | {"seeds": seeds} | data)
