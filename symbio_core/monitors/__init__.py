"""Detectors on series of numbers: intervals, slopes, shifts, entropies, information. Pure."""

from symbio_core.monitors.blocks import block_differences, holm
from symbio_core.monitors.cusum import (
    Alarm,
    cusum_alarms,
    first_shifts,
    in_control_run_length,
    threshold_for,
)
from symbio_core.monitors.entropy import (
    effective_rank,
    population_entropy,
    shannon_entropy,
    weight_entropy,
)
from symbio_core.monitors.information import mutual_information, sliced_information
from symbio_core.monitors.intervals import difference_interval, paired_interval, t_interval
from symbio_core.monitors.slopes import robust_slope

__all__ = [
    "Alarm",
    "block_differences",
    "cusum_alarms",
    "difference_interval",
    "effective_rank",
    "first_shifts",
    "holm",
    "in_control_run_length",
    "mutual_information",
    "paired_interval",
    "population_entropy",
    "robust_slope",
    "shannon_entropy",
    "sliced_information",
    "t_interval",
    "threshold_for",
    "weight_entropy",
]
