"""Detectors on series of numbers: intervals, slopes. Pure."""

from symbio_core.monitors.intervals import paired_interval, t_interval
from symbio_core.monitors.slopes import robust_slope

__all__ = ["paired_interval", "robust_slope", "t_interval"]
