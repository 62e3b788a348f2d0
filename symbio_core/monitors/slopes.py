"""Robust slopes. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from symbio_core.records import Interval


def robust_slope(x: npt.ArrayLike, y: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the median slope over all pairs of points, with its interval.

    One outlier in three points of a hundred does not move it. With fewer than three points, or
    where all ``x`` are equal, the interval is the whole line; where all ``y`` are, it is 0 alone.

    Args:
        x: shape (n,).
        y: shape (n,), the unit of the slope is y's over x's.
        confidence: 0..1.

    Source:
        Sen (1968), Estimates of the regression coefficient based on Kendall's tau, JASA 63.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    finite = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[finite], ys[finite]
    if xs.size < 3 or np.ptp(xs) == 0.0:
        return Interval(value=0.0, low=-np.inf, high=np.inf, confidence=confidence)
    if np.ptp(ys) == 0.0:
        return Interval(value=0.0, low=0.0, high=0.0, confidence=confidence)
    found = stats.theilslopes(ys, xs, alpha=confidence)
    return Interval(
        value=float(found.slope),
        low=float(found.low_slope),
        high=float(found.high_slope),
        confidence=confidence,
    )
