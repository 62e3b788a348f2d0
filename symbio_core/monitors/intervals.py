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
