"""Overfitting at three levels: the model, the population, the expressions. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from symbio_core.config import GateSettings
from symbio_core.monitors import difference_interval, paired_interval, robust_slope
from symbio_core.records import (
    Change,
    EvalPoint,
    Generation,
    Interval,
    MemberRecord,
    Outcome,
    Verdict,
)

POINTS_NEEDED = 4
"""Evaluations below which no trend is read."""
TREND_CONFIDENCE = 0.99
"""Of both slopes: the lowest point is picked by looking, which makes chance look like a turn."""
TRAINING_NOISE_NATS = 0.012
"""Difference that repeating the training makes between equal functions, at most (nats a token)."""
COLLAPSED = 0.3
"""Functional diversity below this is a collapse (0..1)."""
BLOATED = 6
"""Nodes above which an expression has to earn its size."""


def judge_overfitting(
    outcome: Outcome, history: Sequence[Generation], gates: GateSettings
) -> tuple[Verdict, ...]:
    """Return the verdicts of levels 0, 2 and 4.

    Args:
        outcome: what the attempt measured.
        history: generations of earlier attempts.
        gates: confidence.
    """
    return (_divergence(outcome, gates), _collapse(outcome), _complexity(outcome))


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


def _collapse(outcome: Outcome) -> Verdict:
    """Level 2: the members became one function, and nothing is found."""
    if not outcome.generations:
        return _silent("population collapse", "functional diversity (0..1)", COLLAPSED)
    last = outcome.generations[-1]
    failed = len(last.members) >= 2 and last.diversity < COLLAPSED and not last.found
    reason = (
        f"the {len(last.members)} candidates are nearly one function and none is better"
        if failed
        else f"the {len(last.members)} candidates differ enough, or one of them is better"
    )
    return Verdict(
        gate="overfitting",
        name="population collapse",
        metric="functional diversity (0..1)",
        value=last.diversity,
        threshold=COLLAPSED,
        passed=not failed,
        reason=reason,
        changes=(
            Change(setting="immigrants", op="add", value=0.2),
            Change(setting="mutation_scale", op="scale", value=1.5),
            Change(setting="coupling_scale", op="scale", value=0.5),
        ),
    )


def _complexity(outcome: Outcome) -> Verdict:
    """Level 4: a large tree wins on train and surely loses on validation to a simpler sibling."""
    metric = "validation loss above a simpler sibling's (nats a token)"
    pairs = [pair for g in outcome.generations for pair in _large_and_small(g.members)]
    gaps = [difference_interval(_val(a), _val(b), comparisons=len(pairs)) for a, b in pairs]
    found = [
        (gap, large, small)
        for gap, (large, small) in zip(gaps, pairs, strict=True)
        if gap.low > TRAINING_NOISE_NATS and _train(large) < _train(small)
    ]
    if not found:
        searched = "" if not outcome.generations else "no large tree buys train with validation"
        return _silent("complexity overfitting", metric, 0.0, searched)
    gap, large, small = max(found, key=lambda one: one[0].value)
    return Verdict(
        gate="overfitting",
        name="complexity overfitting",
        metric=metric,
        value=gap.value,
        interval=gap,
        threshold=0.0,
        passed=False,
        reason=(
            f"{large.candidate.formula} ({large.candidate.nodes} nodes) beats "
            f"{small.candidate.formula} on train and loses to it on validation"
        ),
        changes=(
            Change(setting="price_scale", op="scale", value=2.0),
            Change(setting="extra_nodes", op="add", value=-2.0),
        ),
    )


def _large_and_small(
    members: Sequence[MemberRecord],
) -> list[tuple[MemberRecord, MemberRecord]]:
    scored = [member for member in members if member.score is not None]
    return [
        (large, small)
        for large in scored
        for small in scored
        if large.candidate.nodes > BLOATED
        and small.candidate.nodes < large.candidate.nodes
        and large.rung == small.rung
    ]


def _val(member: MemberRecord) -> Interval:
    assert member.score is not None
    return member.score.loss_nats


def _train(member: MemberRecord) -> float:
    assert member.score is not None
    return member.score.train_nats


def _silent(name: str, metric: str, threshold: float, reason: str = "") -> Verdict:
    return Verdict(
        gate="overfitting",
        name=name,
        metric=metric,
        value=threshold,
        threshold=threshold,
        passed=True,
        reason=reason or "no search in this phase",
    )
