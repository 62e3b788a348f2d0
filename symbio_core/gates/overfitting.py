"""Overfitting at five levels, and of the model itself: the verdicts of all. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from symbio_core.config import GateSettings
from symbio_core.gates.responses import beside_responses
from symbio_core.gates.siblings import collapse, complexity, memorisation
from symbio_core.gates.twins import fusion_trap, transfer_interference
from symbio_core.monitors import paired_interval, robust_slope
from symbio_core.records import Change, EvalPoint, Generation, Interval, Outcome, Verdict

POINTS_NEEDED = 4
"""Evaluations below which no trend is read."""
TREND_CONFIDENCE = 0.99
"""Of both slopes: the lowest point is picked by looking, which makes chance look like a turn."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""


LEAST_WALK = 0.15
"""Least share of a line's unrest that is believed to be a walk: few points tell it badly (0..1)."""


def judge_overfitting(
    outcome: Outcome, history: Sequence[Generation], gates: GateSettings
) -> tuple[Verdict, ...]:
    """Return the verdicts of levels 0 to 5, in this order; each from its own evidence alone.

    Args:
        outcome: what the attempt measured.
        history: generations of earlier attempts.
        gates: confidence.
    """
    return (divergence(outcome, gates), *judge_levels(outcome, history, gates))


def judge_levels(
    outcome: Outcome, history: Sequence[Generation], gates: GateSettings
) -> tuple[Verdict, ...]:
    """Return the verdicts of levels 1 to 5, those on the search; see `judge_overfitting`."""

    def judge(outcome: Outcome, _: Sequence[Generation]) -> tuple[Verdict, ...]:
        return (
            memorisation(outcome),
            collapse(outcome, gates),
            fusion_trap(outcome),
            complexity(outcome),
            transfer_interference(outcome),
        )

    return beside_responses(judge, outcome, history)


def divergence(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Level 0: from its lowest point on validation rises while train falls, beyond chance.

    Four things have to agree: both robust slopes from the lowest point on are sure, the rise is
    sure batch by batch, and it is larger than a line that merely wanders would show (`_wander`).
    """
    # Read from the turn on: over a whole phase an earlier fall would hide the rise.
    points = _from_the_lowest(outcome.points)
    rise, enough = _rise(outcome, gates), len(points) >= POINTS_NEEDED
    wander = _wander(outcome.points, gates) if enough else 0.0
    failed = enough and _parts(points, gates) and rise is not None and rise.low > wander
    if not enough:
        reason = (
            f"{len(points)} evaluations since the lowest validation loss; a trend takes "
            f"{POINTS_NEEDED}"
        )
    elif failed:
        reason = "validation loss rises while training loss falls: the model learns by heart"
    else:
        reason = "validation and training loss do not part beyond what a wandering line shows"
    return Verdict(
        gate="overfitting",
        name="train/validation divergence",
        metric="rise of validation loss above its lowest (nats a token)",
        value=rise.value if rise else 0.0,
        interval=rise,
        threshold=wander,
        passed=not failed,
        reason=reason,
        changes=(Change(setting="lr_scale", op="scale", value=0.7),),
    )


def _parts(points: Sequence[EvalPoint], gates: GateSettings) -> bool:
    steps = [point.line_step for point in points]
    confidence = max(gates.confidence, TREND_CONFIDENCE)
    val = robust_slope(steps, [p.val_nats for p in points], confidence=confidence)
    train = robust_slope(steps, [p.train_nats for p in points], confidence=confidence)
    return val.above_zero and train.below_zero


def _wander(points: Sequence[EvalPoint], gates: GateSettings) -> float:
    """Return the rise above its lowest point that a line without a trend seldom exceeds (nats).

    The worst such line is a random walk: after n steps of standard deviation σ it stands above its
    lowest point by the absolute value of a normal number with deviation σ√n. σ is read from the
    second differences, which a steady fall or rise leaves at zero, by their median, which a steep
    beginning does not move; the one across the turn is left out. It takes (n + 1)/2 degrees of
    freedom, fitted by simulation over 4 to 30 steps, where it holds to within a fifth. What comes
    back in the very next point is jitter and no step of a walk: it shows as differences that
    follow each other with opposite signs, and is taken off, down to `LEAST_WALK`.

    Source:
        Feller (1968), An Introduction to Probability Theory I, section III.7 (the law of maxima);
        von Neumann et al. (1941), The mean square successive difference, Ann. Math. Stat. 12;
        Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter, section
        2.4.1, for a walk under jitter: the first autocovariance of differences is minus its
        variance.
    """
    val = np.array([point.val_nats for point in points if math.isfinite(point.val_nats)])
    n = val.size - 1
    if n < POINTS_NEEDED - 1:
        return math.inf
    bends = np.abs(np.diff(val, 2))
    turn = int(val.argmin()) - 1
    away = np.delete(bends, turn) if 0 <= turn < bends.size else bends
    spread = MAD_TO_SD * float(np.median(away)) / math.sqrt(2.0)
    spread *= math.sqrt(_walking_share(val))
    tail = (1.0 - gates.confidence) / 4.0
    return float(stdtrit((n + 1) / 2.0, 1.0 - tail)) * spread * math.sqrt(n)


def _walking_share(val: np.ndarray) -> float:
    """Return the share of the second differences' variance that a walk explains (0..1)."""
    steps = np.diff(val) - np.diff(val).mean()
    variance = float(np.mean(steps**2))
    if variance == 0.0 or steps.size < 4:
        return 1.0
    jitter = max(0.0, -float(np.mean(steps[1:] * steps[:-1])))
    walk = max(variance - 2.0 * jitter, 0.0)
    # Second differences hold 2σ² of the walk and 6 of the jitter's variance.
    return max(LEAST_WALK, 2.0 * walk / (2.0 * walk + 6.0 * jitter)) if walk + jitter else 1.0


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
