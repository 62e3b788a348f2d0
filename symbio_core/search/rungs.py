"""Stages of successive halving, and what a generation costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.records import Record


class Rung(Record):
    """One stage of successive halving."""

    members: int
    """Candidates that train in it; the control trains beside them and is not counted here."""
    steps: int
    """Optimiser steps each of them trains in this rung."""
    total: int
    """Steps each of them has trained when the rung ends, earlier rungs included."""


def rung_plan(
    population: int, *, rungs: int, rung_steps: int, keep_frac: float
) -> tuple[Rung, ...]:
    """Lay out a generation: totals double from rung to rung, members thin out.

    Args:
        population: candidates that begin; 0 gives an empty plan.
        rungs: stages, 1 or more.
        rung_steps: optimiser steps of the first rung.
        keep_frac: share of the members that goes on (0..1), rounded to the nearest whole member.

    Returns:
        One `Rung` a stage; at least one member reaches the last.

    Raises:
        ValueError: a number is out of its bounds.

    Source:
        Li et al. (2018), A System for Massively Parallel Hyperparameter Tuning, arXiv 1810.05934,
        algorithm 1. There a stage multiplies the resource by the inverse of the kept share; here
        it always doubles, so that a cautious share does not make the last rung long.
    """
    if population < 0 or rungs < 1 or rung_steps < 1 or not 0.0 < keep_frac <= 1.0:
        raise ValueError(
            f"population={population} rungs={rungs} rung_steps={rung_steps} keep_frac={keep_frac}: "
            "expected ≥ 0, ≥ 1, ≥ 1 and a share in 0..1"
        )
    plan: list[Rung] = []
    members, before = population, 0
    for index in range(rungs if population else 0):
        total = rung_steps * 2**index
        plan.append(Rung(members=members, steps=total - before, total=total))
        members, before = max(1, round(members * keep_frac)), total
    return tuple(plan)


def generation_cost(plan: Sequence[Rung], *, cost: float = 1.0, extra: int = 0) -> int:
    """Return the optimiser steps of a generation, summed over its members, rounded up.

    One member more than the plan names is paid for: the control (the parent's own function), which
    trains through all rungs.

    Args:
        plan: the stages.
        cost: what a member's step costs, in steps of the run's own model.
        extra: more members that train through all rungs, such as an uncoupled twin.
    """
    steps = sum((rung.members + 1 + extra) * rung.steps for rung in plan)
    return math.ceil(steps * cost - 1e-9)
