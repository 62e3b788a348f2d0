"""What the verdicts on overfitting share: training noise, a fair difference, the form. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtri

from symbio_core.monitors import difference_interval
from symbio_core.records import Change, Interval, Verdict

TRAINING_NOISE_NATS = 0.004
"""Standard deviation that repeating the training adds to a measured difference (nats a token).

Measured on a 0.9 M parameter model, where repeats of one fork move a difference by about 0.006;
evaluation batches alone cannot see it."""


def trained_difference(first: Interval, second: Interval, *, comparisons: int) -> Interval:
    """Return how far ``first`` is above ``second``, as far as a repeat of the training would agree.

    Args:
        first: a difference between two trained models, from evaluation batches (nats a token).
        second: another, of the same confidence.
        comparisons: how many such pairs are looked at; see `monitors.difference_interval`.
    """
    return difference_interval(_repeated(first), _repeated(second), comparisons=comparisons)


def _repeated(interval: Interval) -> Interval:
    noise = float(ndtri(0.5 + interval.confidence / 2.0)) * TRAINING_NOISE_NATS
    below = math.hypot(interval.value - interval.low, noise)
    above = math.hypot(interval.high - interval.value, noise)
    return interval.model_copy(
        update={"low": interval.value - below, "high": interval.value + above}
    )


def finding(
    name: str,
    metric: str,
    reason: str,
    changes: Sequence[Change],
    *,
    interval: Interval | None = None,
    passed: bool = True,
) -> Verdict:
    """Return a verdict on overfitting whose value surely above 0 is the fault.

    Args:
        name: the kind of overfitting.
        metric: what was measured, with its unit.
        reason: one sentence.
        changes: the suggested response.
        interval: the value with its range; None where nothing was measured.
        passed: whether all is well.
    """
    return Verdict(
        gate="overfitting",
        name=name,
        metric=metric,
        value=interval.value if interval else 0.0,
        interval=interval,
        threshold=0.0,
        passed=passed,
        reason=reason,
        changes=tuple(changes),
    )
