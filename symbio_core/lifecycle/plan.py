"""What to run next. Pure."""

from __future__ import annotations

from typing import cast

from symbio_core.config import PHASES, PhaseName, RunConfig
from symbio_core.lifecycle.budget import confirm_steps_for, steps_for
from symbio_core.records import PhasePlan, RunState


def plan(config: RunConfig, state: RunState) -> PhasePlan | None:
    """Return the attempt to run next, or None when the run is over or no steps are left.

    ``begin`` and ``end`` place it in the learning-rate schedule by the phases' shares, so a
    repeated phase repeats its part of the schedule.
    """
    if state.finished is not None or state.phase_index >= len(PHASES):
        return None
    steps = steps_for(config, state)
    if steps < 1:
        return None
    shares = [config.phases.of(name).share for name in PHASES]
    total = sum(shares)
    return PhasePlan(
        phase=cast(PhaseName, PHASES[state.phase_index]),
        attempt=state.attempt,
        start=state.line,
        steps=steps,
        confirm_steps=confirm_steps_for(config, state),
        begin=min(1.0, sum(shares[: state.phase_index]) / total),
        end=min(1.0, sum(shares[: state.phase_index + 1]) / total),
        adaptation=state.adaptation,
        lr_scale=state.lr_scale,
    )
