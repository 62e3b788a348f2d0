"""Overfitting at five levels, and of the model itself: the verdicts of all. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from symbio_core.config import GateSettings
from symbio_core.gates.siblings import collapse, complexity, memorisation
from symbio_core.gates.twins import fusion_trap, transfer_interference
from symbio_core.monitors import paired_interval, robust_slope
from symbio_core.records import Change, EvalPoint, Generation, Interval, Outcome, Verdict

POINTS_NEEDED = 4
"""Evaluations below which no trend is read."""
TREND_CONFIDENCE = 0.99
"""Of both slopes: the lowest point is picked by looking, which makes chance look like a turn."""


def judge_overfitting(
    outcome: Outcome, history: Sequence[Generation], gates: GateSettings
) -> tuple[Verdict, ...]:
    """Return the verdicts of levels 0 to 5, in this order; each from its own evidence alone.

    Args:
        outcome: what the attempt measured.
        history: generations of earlier attempts.
        gates: confidence.
    """
    return (
        _divergence(outcome, gates),
        memorisation(outcome),
        collapse(outcome),
        fusion_trap(outcome),
        complexity(outcome),
        transfer_interference(outcome),
    )


def _divergence(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Level 0: from the lowest point on validation rises while train falls, beyond chance."""
    # Read from the turn on: over a whole phase an earlier fall would hide the rise.
    points = _from_the_lowest(outcome.points)
    steps = [point.line_step for point in points]
    confidence = max(gates.confidence, TREND_CONFIDENCE)
    val = robust_slope(steps, [p.val_nats for p in points], confidence=confidence)
    train = robust_slope(steps, [p.train_nats for p in points], confidence=confidence)
    rise = _rise(outcome, gates)
    enough = len(points) >= POINTS_NEEDED
    opens = val.above_zero and train.below_zero
    failed = enough and opens and rise is not None and rise.above_zero
    if not enough:
        reason = (
            f"{len(points)} evaluations since the lowest validation loss; a trend takes "
            f"{POINTS_NEEDED}"
        )
    elif failed and rise is not None:
        reason = (
            "validation loss rises while training loss falls: the model learns by heart "
            f"({rise.value:+.4f} nats a token above the phase's best)"
        )
    else:
        reason = "validation and training loss do not part"
    return Verdict(
        gate="overfitting",
        name="train/validation divergence",
        metric="slope of validation loss (nats a token and step)",
        value=val.value,
        interval=val if enough else None,
        threshold=0.0,
        passed=not failed,
        reason=reason,
        changes=(Change(setting="lr_scale", op="scale", value=0.7),),
    )


def _from_the_lowest(points: Sequence[EvalPoint]) -> Sequence[EvalPoint]:
    if not points:
        return points
    losses = [point.val_nats if math.isfinite(point.val_nats) else math.inf for point in points]
    return points[losses.index(min(losses)) :]


def _rise(outcome: Outcome, gates: GateSettings) -> Interval | None:
    end, best = np.array(outcome.end.val_nats), np.array(outcome.best.val_nats)
    if end.shape != best.shape or end.size < 2 or not np.isfinite(end).all():
        return None
    return paired_interval(end, best, confidence=gates.confidence)
