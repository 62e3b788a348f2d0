"""Comparing contenders over seeds that all of them share. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from symbio_core.records import Interval


def block_differences(
    values: npt.ArrayLike, *, confidence: float = 0.95
) -> list[tuple[Interval, float]]:
    """Compare the first contender with each other one, seed by seed.

    Every seed is a block: it lifts or lowers all contenders together, and that falls out. What is
    left over, of all contenders and seeds, tells how far a difference wanders by chance; with
    k contenders and n seeds that is known from (k − 1)(n − 1) figures instead of the n − 1 of one
    pair, so three seeds say as much as seven would pair by pair. It takes for granted that all
    contenders wander alike. Intervals hold for all comparisons together (Bonferroni).

    Args:
        values: losses, shape (contenders, seeds), at least 2 of each, finite.
        confidence: of all intervals together (0..1).

    Returns:
        For each contender but the first: the interval of first − other, and the two-sided p-value,
        not corrected.

    Raises:
        ValueError: fewer than 2 contenders or seeds, or a value that is not finite.

    Source:
        Fisher (1935), The Design of Experiments, chapter 4 (randomised blocks); Dunn (1961),
        Multiple comparisons among means, JASA 56.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"losses of shape {table.shape}: 2 or more contenders and seeds, finite")
    k, n = table.shape
    own = table.mean(axis=1)
    left = table - own[:, None] - table.mean(axis=0)[None, :] + table.mean()
    freedom = (k - 1) * (n - 1)
    error = math.sqrt(2.0 * float(np.sum(left**2)) / freedom / n)
    reach = float(stats.t.ppf(1.0 - (1.0 - confidence) / (2.0 * (k - 1)), freedom)) * error
    found = []
    for other in own[1:]:
        value = float(own[0] - other)
        interval = Interval(
            value=value, low=value - reach, high=value + reach, confidence=confidence
        )
        found.append((interval, _p_value(value, error, freedom)))
    return found


def _p_value(value: float, error: float, freedom: int) -> float:
    if error == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return float(2.0 * stats.t.sf(abs(value) / error, freedom))


def holm(p_values: list[float]) -> list[float]:
    """Return step-down corrected p-values, in the order given.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted
