"""Numbers as JSON can hold them: what is not finite is None. Pure."""

from __future__ import annotations

import math

from symbio_core.records import Interval


def finite(value: float | None) -> float | None:
    """Return a number, or None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def finite_interval(interval: Interval | None) -> Interval | None:
    """Return an interval, or None where one of its ends is not finite."""
    if interval is None:
        return None
    numbers = (interval.value, interval.low, interval.high)
    return interval if all(map(math.isfinite, numbers)) else None


def ratio(value: float | None, seconds: float) -> float | None:
    """Return a value a second, or None where there was no time or no value."""
    return value / seconds if value is not None and seconds > 0 else None
