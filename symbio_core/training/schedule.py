"""Learning rate over its peak, as a function of where the run stands. Pure arithmetic."""

from __future__ import annotations

import math

from symbio_core.config import PHASES, PhaseSettings, RunConfig


def lr_factor(config: RunConfig, position: float) -> float:
    """Return learning rate over peak at ``position`` (0..1) of the run.

    `trapezoid` is flat and then falls linearly (Hägele et al., 2024, arXiv 2405.18392, whose decay
    shape is 1 − sqrt; linear here). `seed` takes each phase's own factor, a cosine where a phase
    names an end.
    """
    position = min(max(position, 0.0), 1.0)
    if config.optimiser.schedule == "trapezoid":
        fall = config.optimiser.decay_frac
        down = min(1.0, (1.0 - position) / fall)
        final = config.optimiser.final_lr_factor
        return final + (1.0 - final) * down
    settings, inside = _phase_at(config, position)
    if settings.lr_factor_end is None:
        return settings.lr_factor
    wave = (1.0 + math.cos(math.pi * inside)) / 2.0
    return settings.lr_factor_end + (settings.lr_factor - settings.lr_factor_end) * wave


def warmup(config: RunConfig, line_step: int) -> float:
    """Return the factor (0..1] by which the first steps of fresh weights are held back."""
    return min(1.0, (line_step + 1) / (config.optimiser.warmup_steps + 1))


def phase_bounds(config: RunConfig) -> dict[str, tuple[float, float]]:
    """Return where each phase begins and ends in the schedule (0..1), by its share."""
    total = sum(config.phases.of(name).share for name in PHASES)
    bounds: dict[str, tuple[float, float]] = {}
    begin = 0.0
    for name in PHASES:
        end = begin + config.phases.of(name).share / total
        bounds[name] = (begin, end)
        begin = end
    return bounds


def _phase_at(config: RunConfig, position: float) -> tuple[PhaseSettings, float]:
    bounds = phase_bounds(config)
    for name, (begin, end) in bounds.items():
        if position < end or name == PHASES[-1]:
            return config.phases.of(name), (position - begin) / (end - begin)
    raise AssertionError("the last phase ends at 1")
