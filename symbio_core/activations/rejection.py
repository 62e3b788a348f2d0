"""Which functions may not be trained, and why. Pure."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from symbio_core.activations.algebra import canonical
from symbio_core.activations.calculus import Array, derivative, evaluate
from symbio_core.activations.shape import POINTS, WEIGHTS, normaliser, second_moment
from symbio_core.activations.tree import Expression

PROBE_RANGE = 8.0
"""Pre-activations up to this size are probed."""
LARGEST_OUTPUT = 300.0
"""Bound of |f| on the probe range at unit second moment: cubics pass (relu³ reaches 187), quartics
(x⁴ reaches 400) and higher powers do not."""
LEAST_RMS = 1e-6
"""Smaller outputs than this (root mean square under N(0, 1)) are rounding noise."""
LEAST_CURVE = 0.01
"""Least distance from the nearest constant and the nearest line, at unit second moment."""
_PROBE = np.linspace(-PROBE_RANGE, PROBE_RANGE, 513)


@lru_cache(maxsize=16_384)
def rejection(expr: Expression) -> str | None:
    """Say in one sentence why a function may not be trained, or None if it may.

    Refused: functions that vanish, that are constant or a line to within 1% of their size (such an
    FFN is a matrix), that are not finite for |x| ≤ 8, or that exceed 300 there at unit second
    moment.
    """
    form = canonical(expr)
    moment = second_moment(form)
    values = evaluate(form, _PROBE)
    if not (math.isfinite(moment) and np.isfinite([values, derivative(form, _PROBE)]).all()):
        return f"its values or slopes are not finite for |x| ≤ {PROBE_RANGE:g}"
    if moment < LEAST_RMS**2:
        return f"it vanishes: its root mean square under N(0, 1) is below {LEAST_RMS:g}"
    factor = normaliser(form)
    to_constant, to_line = _residuals(evaluate(form, POINTS) * factor)
    if to_constant < LEAST_CURVE:
        return "it is constant"
    if to_line < LEAST_CURVE:
        return "it is linear (a·x+b), which would make the FFN a single matrix"
    peak = float(np.max(np.abs(values))) * factor
    if peak > LARGEST_OUTPUT:
        return (
            f"it explodes: at unit second moment it reaches {peak:.3g} for |x| ≤ {PROBE_RANGE:g}, "
            f"and {LARGEST_OUTPUT:g} is the limit"
        )
    return None


def _residuals(unit: Array) -> tuple[float, float]:
    # 1 and x are orthonormal under N(0, 1), so the best fits are plain projections.
    mean = float(np.sum(WEIGHTS * unit))
    slope = float(np.sum(WEIGHTS * unit * POINTS))
    flat = unit - mean
    curved = flat - slope * POINTS
    return _norm(flat), _norm(curved)


def _norm(values: Array) -> float:
    return math.sqrt(float(np.sum(WEIGHTS * values * values)))
