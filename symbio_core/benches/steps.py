"""What a training step costs: optimisers and functions in turn, as ratios to AdamW with GELU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig, changed
from symbio_core.monitors import t_interval
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench
from symbio_core.training import Member

WARM_STEPS = 5
TIMED_STEPS = 20
REFERENCE = "adamw gelu(x)"
ARMS = (
    ("adamw", "gelu(x)"),
    ("adamw", "silu(x)"),
    ("adamw", "relu(x)²"),
    ("adamw", "gelu(x)·silu(x)"),
    ("adamw", "0.5·gelu(x)·silu(x)+relu(x)²+0.3·x"),
    ("muon", "gelu(x)"),
)


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Time steps of every arm in turn, round by round, and compare within a round.

    Args:
        config: the model and batch that are timed.
        seeds: rounds; at least 3 give an interval worth reading.
        jobs: not used; arms must not disturb each other.
        say: takes a line of progress.
    """
    del jobs
    bench = Workbench(config, cache_of(config))
    members = {
        f"{optimiser} {formula}": _member(bench, config, optimiser, formula)
        for optimiser, formula in ARMS
    }
    rounds = []
    for number in range(seeds):
        rounds.append({name: _seconds(bench, member) for name, member in members.items()})
        say(f"round {number + 1}: {1e3 * rounds[-1][REFERENCE]:.1f} ms a step of {REFERENCE}")
    table = Table("arm", "ms a step", f"ratio to {REFERENCE}", "95% interval", box=None)
    summary: dict[str, float] = {}
    for name in members:
        ratios = np.array([r[name] / r[REFERENCE] for r in rounds])
        milliseconds = 1e3 * float(np.median([r[name] for r in rounds]))
        span = t_interval(ratios) if seeds > 1 else None
        low, high = (span.low, span.high) if span else (float("nan"), float("nan"))
        table.add_row(
            name, f"{milliseconds:.1f}", f"{ratios.mean():.2f}", f"{low:.2f} to {high:.2f}"
        )
        summary[f"ratio {name}"] = float(ratios.mean())
    return table, {"bench": "steps", "rounds": rounds, "summary": summary}


def _member(bench: Workbench, config: RunConfig, optimiser: str, formula: str) -> Member:
    own = changed(config, {"optimiser.name": optimiser})
    member = Member(own, bench.n_vocab, formula, bench.device, seed=1)
    member.train(WARM_STEPS, bench.train_batches("steps"), lambda _: 0.1)
    return member


def _seconds(bench: Workbench, member: Member) -> float:
    began = time.perf_counter()
    member.train(TIMED_STEPS, bench.train_batches("steps"), lambda _: 0.1)
    return (time.perf_counter() - began) / TIMED_STEPS
