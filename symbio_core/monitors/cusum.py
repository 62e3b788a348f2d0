"""Cumulative sums: a small lasting shift is seen, a single spike is not. Pure."""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from scipy.special import ndtri, stdtr

from symbio_core.records import Record

Side = Literal["upper", "lower", "both"]

MIN_BASELINE = 50
"""Fewest points from which level, trend and noise are read; with 5 most alarms are false."""
OVERSHOOT = 1.166
"""Twice the mean overshoot of a normal random walk over a boundary: Siegmund's correction."""
OUTLIER = 4.0
"""A point further off counts as this far, and is not learned from (robust standard deviations)."""
EARLIEST = 20.0
"""Points that are taken to have passed before the first: where the logarithm of a trend begins."""
KNOWN_SHARE = 0.25
"""Degrees of freedom a point that a robust spread is worth.

By the efficiency of the median absolute deviation it would be 0.37; the same guess serves for many
points in a row, and 0.25 is what keeps the stated run length in simulation."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""
MEAN_DEVIATION_TO_SD = 1.2533
"""The same over its mean absolute deviation."""


class Alarm(Record):
    """A lasting shift of a series."""

    index: int
    """Position in the series at which the sum passed its threshold."""
    start: int
    """Position at which the shift began: the first point since the sum was last zero."""
    side: Literal["upper", "lower"]
    shift: float
    """Mean deviation from start to index (robust standard deviations, outliers cut)."""


def in_control_run_length(threshold: float, allowance: float = 0.5) -> float:
    """Return the mean number of points to a false alarm of a one-sided sum on normal noise.

    Within 5% of the exact values for thresholds of 3 and more at an allowance of 0.5.

    Args:
        threshold: the sum that raises the alarm (standard deviations), ≥ 0.
        allowance: what is taken off every deviation (standard deviations), > 0.

    Raises:
        ValueError: threshold below 0, or allowance not above 0.

    Source:
        Siegmund (1985), Sequential Analysis: Tests and Confidence Intervals, section II.6, the
        corrected diffusion approximation, at drift −allowance.
    """
    if threshold < 0.0 or allowance <= 0.0:
        raise ValueError(
            f"threshold {threshold:g} and allowance {allowance:g}: expected ≥ 0 and > 0"
        )
    reach = 2.0 * allowance * (threshold + OVERSHOOT)
    return (math.exp(reach) - reach - 1.0) / (2.0 * allowance**2)


def threshold_for(run_length: float, *, allowance: float = 0.5, two_sided: bool = False) -> float:
    """Return the threshold at which a false alarm comes once in ``run_length`` points.

    Two sides share the false alarms: each may raise half of them.

    Args:
        run_length: wanted mean number of points to a false alarm, at least 10.
        allowance: what is taken off every deviation (standard deviations), > 0.
        two_sided: whether shifts up and down are both watched for.

    Raises:
        ValueError: run_length below 10.
    """
    if run_length < 10.0:
        raise ValueError(f"run_length is {run_length:g}; it has to be 10 or more")
    wanted = run_length * (2.0 if two_sided else 1.0)
    highest = (math.log(wanted) + 10.0) / (2.0 * allowance)
    if in_control_run_length(0.0, allowance) >= wanted:
        return 0.0
    return float(
        optimize.brentq(lambda h: in_control_run_length(h, allowance) - wanted, 0.0, highest)
    )


def cusum_alarms(
    values: npt.ArrayLike,
    *,
    side: Side = "both",
    run_length: float = 1_000.0,
    allowance: float = 0.5,
    baseline: int = MIN_BASELINE,
    window: int = 200,
) -> tuple[Alarm, ...]:
    """Find lasting shifts of a series against its own recent trend.

    Every point is predicted by a parabola and a logarithm through the points before it, and its
    error is divided by their robust spread, so a loss that falls, steeply first and slowly then, is
    no shift.
    After an alarm both sums are emptied and a new baseline is learned from the points that follow.
    Points that are not finite are left out. Costs one pass over ``window`` numbers a point.

    Args:
        values: the series, shape (n,), any unit, oldest first.
        side: `upper` watches for rises (gradient norm, clip share, loss), `lower` for falls
            (throughput).
        run_length: mean number of points to a false alarm; kept within 20% from 500 to 1000, with
            the baseline and window that are the defaults, on normal noise alone and around falling
            power laws with and without a linear decay of the learning rate.
        allowance: half of the smallest shift worth finding (standard deviations).
        baseline: points learned from before anything can be told, ≥ 50.
        window: longest stretch that the trend is drawn through (points), ≥ baseline; a shift is
            soon part of a short one.

    Returns:
        The alarms, oldest first.

    Raises:
        ValueError: a baseline under 50 points, a window shorter than it, or values not a series.

    Source:
        Page (1954), Continuous inspection schemes, Biometrika 41; recursive residuals:
        Brown, Durbin & Evans (1975), JRSS B 37, eq. 2; outliers cut as in Hawkins (1993),
        Robustification of cumulative sum charts by winsorization, J. Quality Technology 25.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1:
        raise ValueError(f"a series has one axis, got shape {series.shape}")
    if baseline < MIN_BASELINE:
        raise ValueError(f"baseline is {baseline} points; {MIN_BASELINE} or more are needed")
    if window < baseline:
        raise ValueError(f"window {window} is shorter than baseline {baseline}")
    threshold = threshold_for(run_length, allowance=allowance, two_sided=side == "both")
    finite = np.flatnonzero(np.isfinite(series))
    alarms: list[Alarm] = []
    first = 0
    while first + baseline < finite.size:
        places = finite[first:]
        alarm = _first_alarm(series[places], first, threshold, allowance, baseline, window)
        if alarm is None:
            break
        first += alarm.index + 1
        # A shift to the side that is not watched is learned anew in silence: its level would
        # bend the trend, and the way back would look like a shift to the watched side.
        if side in ("both", alarm.side):
            shifted = {"index": int(places[alarm.index]), "start": int(places[alarm.start])}
            alarms.append(alarm.model_copy(update=shifted))
    return tuple(alarms)


def _first_alarm(
    values: npt.NDArray[np.float64],
    begin: int,
    threshold: float,
    allowance: float,
    baseline: int,
    window: int,
) -> Alarm | None:
    sums = {1.0: 0.0, -1.0: 0.0}
    starts = dict.fromkeys(sums, baseline)
    known = deque(_without_outliers(values[:baseline]), maxlen=window)
    deviations = np.zeros(values.size)
    for index in range(baseline, values.size):
        deviation, counted = _deviation(np.array(known), begin + index - len(known), values[index])
        known.append(counted)
        deviations[index] = deviation
        for sign in sums:
            if sums[sign] == 0.0:
                starts[sign] = index
            sums[sign] = max(0.0, sums[sign] + sign * deviation - allowance)
            if sums[sign] > threshold:
                return Alarm(
                    index=index,
                    start=starts[sign],
                    side="upper" if sign > 0 else "lower",
                    shift=float(deviations[starts[sign] : index + 1].mean()),
                )
    return None


def _deviation(known: npt.NDArray[np.float64], begin: int, value: float) -> tuple[float, float]:
    """Return the cut, standardised error of predicting ``value``, and what to learn from it."""
    terms, solver, leverage = _trend(begin, known.size)
    coefficients = solver @ known
    fitted = terms @ coefficients
    predicted = float(fitted[-1])
    freedom = known.size / (known.size - terms.shape[1])
    scale = _scale(known - fitted[:-1]) * math.sqrt(freedom * (1.0 + leverage))
    # A series that never moved has no noise; what is left then is the error of its arithmetic.
    scale = max(scale, 1e-9 * abs(predicted), 1e-300)
    deviation = (value - predicted) / scale
    # An outlier teaches nothing: were it learned, even cut, the points after it would look shifted.
    learned = value if abs(deviation) < OUTLIER else predicted
    cut = float(np.clip(deviation, -OUTLIER, OUTLIER))
    # A spread that is guessed from few points makes ordinary errors look large.
    tail = stdtr(KNOWN_SHARE * known.size, -abs(cut))
    return math.copysign(float(-ndtri(tail)), cut), learned


@lru_cache(maxsize=4_096)
def _trend(begin: int, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Return the terms at n points and the next, the solver of the n, the next one's leverage.

    Learning curves are power laws, which a logarithm of the step follows from the first point on; a
    parabola follows what the learning rate adds.
    """
    place = np.arange(n + 1) / n
    steps = np.log(begin + np.arange(n + 1) + EARLIEST)
    terms = np.column_stack([np.vander(place, 3, increasing=True), steps - steps[0]])
    solver = np.asarray(np.linalg.pinv(terms[:-1]), dtype=np.float64)
    weights = terms[-1] @ solver
    return terms, solver, float(weights @ weights)


def _scale(residuals: npt.NDArray[np.float64]) -> float:
    deviations = np.abs(residuals - np.median(residuals))
    median = float(np.median(deviations))
    if median > 0.0:
        return MAD_TO_SD * median
    return MEAN_DEVIATION_TO_SD * float(deviations.mean())


def _without_outliers(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.arange(values.size)
    line = stats.theilslopes(values, x)
    fitted = line.intercept + line.slope * x
    off = values - fitted
    return np.asarray(np.where(np.abs(off) <= OUTLIER * _scale(off), values, fitted))
