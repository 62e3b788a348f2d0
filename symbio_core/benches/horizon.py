"""How long one has to look: what a lead over GELU after few steps says about the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core.benches import arms
from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench
from symbio_core.training import lr_factor
from symbio_core.training.schedule import warmup

REFERENCE = "gelu(x)"
FORMULAS = (REFERENCE, "silu(x)", "relu(x)", "relu(x)²", "gelu(x)²", "silu(x)²")
FIRST = 15
"""Fewest steps after which anything is read; then twice as many, and so on to the end."""
LOOKS = (60, 500)
"""Between these steps a search from fresh weights looks; the moves from there to the end count."""

Work = tuple[RunConfig, str, int]


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Train each function from fresh weights over the whole budget, reading its loss on the way.

    Args:
        config: model, schedule and steps.
        seeds: fresh seeds; all functions of a seed see the same batches.
        jobs: functions at once, one CPU thread each where there is more than one.
        say: takes a line of progress.
    """
    config = arms.unhurried(config, jobs)
    arms.prepare_tokens([config])
    work = [(config, formula, seed) for seed in range(seeds) for formula in FORMULAS]
    marks = marks_of(config.budget.steps)
    losses = arms.told(arms.each(_train, work, jobs), lambda row: _line(marks, row), say)
    table = np.array([row[1] for row in losses]).reshape(seeds, len(FORMULAS), len(marks))
    gaps = table - table[:, :1]
    data = arms.heading("horizon", config, jobs) | {
        "steps": list(marks),
        "gaps_nats": {f: gaps[:, i].tolist() for i, f in enumerate(FORMULAS)},
        "summary": _summary(marks, gaps[:, 1:]),
    }
    return _shown(marks, gaps, data), data


def marks_of(steps: int) -> tuple[int, ...]:
    """Return the steps after which losses are read: 15, 30, 60, … and the last."""
    doublings = [FIRST << k for k in range(steps.bit_length()) if FIRST << k < steps]
    return (*doublings, steps)


def moved(marks: Sequence[int], gaps: np.ndarray[Any, Any]) -> float:
    """Return how far a gap moves until the end, a factor e of steps (nats a token).

    Args:
        marks: steps, shape (m,).
        gaps: differences to the reference at those steps, shape (seeds, functions, m).

    Returns:
        Root mean square, over functions, seeds and the marks a search looks at, of the move to the
        last mark over the logarithm of the ratio of steps.
    """
    looks = [i for i, mark in enumerate(marks[:-1]) if LOOKS[0] <= mark <= LOOKS[1]]
    rates = [(gaps[..., -1] - gaps[..., i]) / math.log(marks[-1] / marks[i]) for i in looks or [0]]
    return float(np.sqrt(np.mean(np.square(rates))))


def _train(work: Work) -> tuple[str, list[float]]:
    config, formula, seed = work
    bench = Workbench(config, cache_of(config))
    member = bench.fresh_member(formula, "horizon", seed)
    losses, done, steps = [], 0, config.budget.steps
    for mark in marks_of(steps):
        member.train(
            mark - done,
            bench.train_batches("horizon", seed),
            lambda step: lr_factor(config, step / steps) * warmup(config, step),
        )
        done = mark
        losses.append(float(bench.measure(member.model, bench.confirmed).mean()))
    return formula, losses


def _line(marks: Sequence[int], row: tuple[str, list[float]]) -> str:
    return f"{row[0]}  {row[1][-1]:.4f} nats a token after {marks[-1]} steps"


def _summary(marks: Sequence[int], gaps: np.ndarray[Any, Any]) -> dict[str, float]:
    same = [
        float(np.mean(np.sign(gaps[..., i]) == np.sign(gaps[..., -1]))) for i in range(len(marks))
    ]
    signs = {
        f"same_sign_after_{mark}": share for mark, share in zip(marks[:-1], same, strict=False)
    }
    return {"moved_nats_an_e_fold": moved(marks, gaps), **signs}


def _shown(marks: Sequence[int], gaps: np.ndarray[Any, Any], data: dict[str, Any]) -> Table:
    table = Table("gap to GELU (nats) after", *(f"{mark}" for mark in marks), box=None)
    for index, formula in enumerate(FORMULAS[1:], 1):
        table.add_row(formula, *(f"{gap:+.3f}" for gap in gaps[:, index].mean(axis=0)))
    table.add_section()
    rate = data["summary"]["moved_nats_an_e_fold"]
    table.add_row("a gap moves by", f"{rate:.3f}", "nats a factor e of steps")
    return table
