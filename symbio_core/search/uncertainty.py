"""What an interval says when several candidates were compared at once. Pure."""

from __future__ import annotations

import math

from scipy.special import stdtrit

from symbio_core.records import Interval

EVAL_BATCHES = 12
"""Batches behind a paired interval, where the caller does not say (the setting's default)."""
TRAINING_NOISE_NATS = 0.004
"""Standard deviation that repeating the same fork adds to a paired difference (nats a token).

Measured on a 0.9 M parameter model: repeats move a difference by about 0.006 nat, and the mean
absolute difference of two draws is 1.13 standard deviations. No interval from evaluation batches
alone can see it."""
FRESH_NOISE_NATS = 0.01
"""The same of members that start from fresh weights of a small model (nats a token)."""
HORIZON_NATS = 0.015
"""What a difference still moves by while training goes on e times as long (nats a token).

Functions that learn fast early need not end well: `symbio bench horizon` shows squares ahead of
GELU by 0.05 nat after 120 steps, and level with it or behind at the end of the demo."""


def early_noise(seen_steps: int, whole_steps: int) -> float:
    """Return the standard deviation of the end's difference around an early one (nats a token).

    Args:
        seen_steps: steps from fresh weights after which candidates are compared, ≥ 1.
        whole_steps: steps that the run trains in all.
    """
    folds = math.log(max(1.0, whole_steps / seen_steps))
    return math.hypot(FRESH_NOISE_NATS, HORIZON_NATS * folds)


def quantile(confidence: float, *, n_batches: int = EVAL_BATCHES, comparisons: int = 1) -> float:
    """Return Student's t for a two-sided interval, divided among ``comparisons`` (Bonferroni).

    Source:
        Dunn (1961), Multiple Comparisons Among Means, JASA 56: each of m intervals takes a share
        α/m of the error.
    """
    tail = (1.0 - confidence) / (2.0 * max(1, comparisons))
    return float(stdtrit(max(1, n_batches - 1), 1.0 - tail))


def standard_error(interval: Interval, *, n_batches: int = EVAL_BATCHES) -> float:
    """Return the standard error behind an interval (its longer side, in its own unit)."""
    side = max(interval.high - interval.value, interval.value - interval.low)
    return side / quantile(interval.confidence, n_batches=n_batches)


def widened(
    interval: Interval,
    *,
    comparisons: int,
    training_noise_nats: float = TRAINING_NOISE_NATS,
    n_batches: int = EVAL_BATCHES,
) -> Interval:
    """Return the interval that holds for the best of ``comparisons`` candidates.

    Args:
        interval: a paired difference with the interval of its evaluation batches (nats).
        comparisons: candidates that it was picked from.
        training_noise_nats: standard deviation that a repeat of the training would add (nats).
        n_batches: evaluation batches behind it.

    Returns:
        Same estimate; half width t(1 − α/2m)·√(se² + noise²).
    """
    error = math.hypot(standard_error(interval, n_batches=n_batches), training_noise_nats)
    half = error * quantile(interval.confidence, n_batches=n_batches, comparisons=comparisons)
    return Interval(
        value=interval.value,
        low=interval.value - half,
        high=interval.value + half,
        confidence=interval.confidence,
    )
