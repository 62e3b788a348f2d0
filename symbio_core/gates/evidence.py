"""What several verdicts share: training noise, a fair difference, a share, a form. Pure."""

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


LEVELS = 5
"""Levels of overfitting looked at beside each other, which share the error that is allowed: so
noise alone seldom raises any of them."""


def trained_difference(first: Interval, second: Interval, *, comparisons: int) -> Interval:
    """Return how far ``first`` is above ``second``, as far as a repeat of the training would agree.

    Args:
        first: a difference between two trained models, from evaluation batches (nats a token).
        second: another, of the same confidence.
        comparisons: how many such pairs a level looks at; see `monitors.difference_interval`.

    Returns:
        The difference with an interval corrected for the pairs and for the five levels.
    """
    return difference_interval(repeated(first), repeated(second), comparisons=LEVELS * comparisons)


def repeated(interval: Interval) -> Interval:
    """Return the interval that a repeat of the training would fall in as well (nats a token).

    Args:
        interval: a difference of validation losses from evaluation batches alone.
    """
    noise = float(ndtri(0.5 + interval.confidence / 2.0)) * TRAINING_NOISE_NATS
    below = math.hypot(interval.value - interval.low, noise)
    above = math.hypot(interval.high - interval.value, noise)
    return interval.model_copy(
        update={"low": interval.value - below, "high": interval.value + above}
    )


def share_interval(part: int, whole: int, *, confidence: float) -> Interval:
    """Return the share ``part``/``whole`` with its interval (0..1); without any, 0 to 1.

    Args:
        part: trials that showed it.
        whole: trials.
        confidence: 0..1.

    Source:
        Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA
        22.
    """
    if whole <= 0:
        return Interval(value=0.0, low=0.0, high=1.0, confidence=confidence)
    z2 = float(ndtri(0.5 + confidence / 2.0)) ** 2
    share = part / whole
    middle = (share + z2 / (2 * whole)) / (1.0 + z2 / whole)
    half = math.sqrt(z2 * (share * (1.0 - share) / whole + z2 / (4 * whole**2)))
    half /= 1.0 + z2 / whole
    return Interval(
        value=share,
        low=max(0.0, min(share, middle - half)),
        high=min(1.0, max(share, middle + half)),
        confidence=confidence,
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
