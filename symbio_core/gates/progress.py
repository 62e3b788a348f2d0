"""The gate on quality: did the phase make the model better, and did it break something? Pure."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from symbio_core.config import GateSettings
from symbio_core.gates.battery import paired_quality
from symbio_core.monitors import difference_interval, paired_interval
from symbio_core.records import Battery, Interval, Outcome, Verdict

TRAINING_NOISE = 0.0045
"""Standard deviation of the validation loss between trainings that differ in luck alone (nats a
token): 0.0044 over three corpora in docs/battery.json, which `symbio bench battery` makes."""


def judge_battery(
    outcome: Outcome,
    *,
    before: Battery | None,
    after: Battery,
    best_quality: Interval | None,
    best_battery: Battery | None,
    gates: GateSettings,
    seed: int,
) -> tuple[Verdict, ...]:
    """Judge an attempt by what its model writes and by its validation loss.

    Args:
        outcome: what the attempt measured.
        before: battery of the checkpoint it started from; None where none was written.
        after: battery of its end.
        best_quality: quality of the run's best checkpoint so far.
        best_battery: that checkpoint's battery, for a paired comparison.
        gates: confidence and thresholds.
        seed: the bootstrap's.

    Returns:
        The verdicts `progress` and `regression`.
    """
    return (
        _progress(outcome, before, after, gates, seed),
        _regression(after, best_quality, best_battery, gates, seed),
    )


def _progress(
    outcome: Outcome, before: Battery | None, after: Battery, gates: GateSettings, seed: int
) -> Verdict:
    # Two chances to look better by luck: each gets half of the error that is allowed.
    confidence = 1.0 - (1.0 - gates.confidence) / (1 if before is None else 2)
    loss = _loss_change(outcome, confidence)
    quality = None
    if before is not None:
        quality = paired_quality(before, after, seed=seed, confidence=confidence)
    better = loss.below_zero or (quality is not None and quality.above_zero)
    worse = loss.above_zero or (quality is not None and quality.below_zero)
    said = [f"validation loss {_signed(loss)} nats a token"]
    if quality is not None:
        said.append(f"quality {_signed(quality)}")
    passed = better and not worse
    judged = (
        "better" if passed else "mixed" if better else "worse" if worse else "not surely better"
    )
    metric, shown = "change of validation loss over the phase (nats a token)", loss
    # The figure shown is the one that decided: quality wherever the loss alone says otherwise.
    if quality is not None and loss.below_zero != passed:
        metric, shown = "change of quality over the phase (−1..1)", quality
    return Verdict(
        gate="battery",
        name="progress",
        metric=metric,
        value=shown.value,
        interval=shown,
        threshold=0.0,
        passed=passed,
        reason=f"{judged}: {', '.join(said)}",
    )


def _loss_change(outcome: Outcome, confidence: float) -> Interval:
    start, end = np.array(outcome.start.val_nats), np.array(outcome.end.val_nats)
    comparable = start.shape == end.shape and start.size >= 2
    if not comparable or not (np.isfinite(start).all() and np.isfinite(end).all()):
        # Nothing to compare: neither better nor worse can be said.
        return Interval(value=math.nan, low=-math.inf, high=math.inf, confidence=confidence)
    measured = paired_interval(end, start, confidence=confidence)
    # Evaluation noise shrinks with more batches. What the training drew by luck stays, twice: it
    # is in the start as well as in the end.
    luck = math.sqrt(2.0) * TRAINING_NOISE * float(stats.norm.isf((1.0 - confidence) / 2.0))
    half = math.hypot(measured.high - measured.value, luck)
    return measured.model_copy(update={"low": measured.value - half, "high": measured.value + half})


def _regression(
    after: Battery,
    best_quality: Interval | None,
    best_battery: Battery | None,
    gates: GateSettings,
    seed: int,
) -> Verdict:
    if best_quality is None or best_quality.value <= 0.0:
        return Verdict(
            gate="battery",
            name="regression",
            metric="quality over the best so far (0..)",
            value=1.0,
            threshold=1.0 - gates.regression_frac,
            passed=True,
            reason="there is no earlier quality to fall below",
        )
    share = after.quality.value / best_quality.value
    if best_battery is not None:
        change = paired_quality(best_battery, after, seed=seed, confidence=gates.confidence)
    else:
        change = difference_interval(after.quality, best_quality)
    surely = change.below_zero
    failed = share < 1.0 - gates.regression_frac and surely
    doubt = "" if surely or share >= 1.0 - gates.regression_frac else ", within chance"
    best = best_quality.value
    interval = Interval(
        value=share,
        low=share + (change.low - change.value) / best,
        high=share + (change.high - change.value) / best,
        confidence=change.confidence,
    )
    return Verdict(
        gate="battery",
        name="regression",
        metric="quality over the best so far (0..)",
        value=share,
        interval=interval,
        threshold=1.0 - gates.regression_frac,
        passed=not failed,
        reason=f"quality is {after.quality.value:.2f}, {share:.0%} of the best so far{doubt}",
    )


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
