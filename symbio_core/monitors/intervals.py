"""Intervals of paired differences. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from symbio_core.records import Interval


def t_interval(values: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the mean of ``values`` with Student's interval.

    Args:
        values: independent measurements, shape (n,), n ≥ 2, any unit.
        confidence: share of repeated experiments whose interval holds the truth (0..1).

    Raises:
        ValueError: fewer than two values.

    Source:
        Student (1908), The probable error of a mean, Biometrika 6.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise ValueError(f"an interval needs at least 2 values, got {array.size}")
    mean = float(array.mean())
    error = float(array.std(ddof=1) / np.sqrt(array.size))
    half = float(stats.t.ppf(0.5 + confidence / 2, array.size - 1)) * error
    return Interval(value=mean, low=mean - half, high=mean + half, confidence=confidence)


def paired_interval(
    trial: npt.ArrayLike, reference: npt.ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Say how far a trial is from its reference, and how sure that is.

    Both were measured on the same batches in the same order, so the difference is taken batch by
    batch and most of the noise cancels.

    Args:
        trial: loss a batch, shape (n_batches,), nats a token.
        reference: the same batches under the reference.
        confidence: share of repeated experiments whose interval holds the truth (0..1).

    Returns:
        Mean difference with its interval (nats a token); negative is better.

    Raises:
        ValueError: the two do not pair, or there are fewer than two batches.
    """
    mine, other = np.asarray(trial, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if mine.shape != other.shape:
        raise ValueError(f"{mine.size} and {other.size} batches do not pair")
    return t_interval(mine - other, confidence=confidence)


def difference_interval(first: Interval, second: Interval, *, comparisons: int = 1) -> Interval:
    """Return how far ``first`` is above ``second``, given one interval of each.

    Their errors are taken as independent; where both were paired to the same control they are
    not, and the interval is then wider than it need be.

    Args:
        first: an estimate with its interval, any unit.
        second: the same of the other, same unit and confidence.
        comparisons: how many such differences are looked at; the allowed error is shared out
            among them, and the interval widened (normal quantiles).

    Raises:
        ValueError: the confidences differ, or comparisons is below 1.

    Source:
        Dunn (1961), Multiple comparisons among means, JASA 56 (Bonferroni's inequality).
    """
    if first.confidence != second.confidence or comparisons < 1:
        raise ValueError(
            f"confidences {first.confidence:g} and {second.confidence:g}, {comparisons} "
            "comparisons: expected the same, and 1 or more"
        )
    tail = (1.0 - first.confidence) / 2.0
    wider = float(stats.norm.isf(tail / comparisons) / stats.norm.isf(tail))
    half = wider * float(np.hypot(first.high - first.low, second.high - second.low)) / 2.0
    gap = first.value - second.value
    return Interval(value=gap, low=gap - half, high=gap + half, confidence=first.confidence)
