"""What to run next. Pure."""

from __future__ import annotations

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle.budget import steps_for
from symbio_core.records import PhasePlan, RunState


def plan(config: RunConfig, state: RunState) -> PhasePlan | None:
    """Return the attempt to run next, or None when the run is over or no steps are left.

    ``begin`` and ``end`` place it in the learning-rate schedule by the phases' shares, so a
    repeated phase repeats its part of the schedule.
    """
    if state.finished is not None or state.phase_index >= len(PHASES):
        return None
    steps, confirm_steps = steps_for(config, state)
    if steps < 1:
        return None
    total = sum(config.phases.of(name).share for name in PHASES)
    before = sum(config.phases.of(name).share for name in PHASES[: state.phase_index])
    phase = PHASES[state.phase_index]
    return PhasePlan(
        phase=phase,  # type: ignore[arg-type]
        attempt=state.attempt,
        start=state.line,
        steps=steps,
        confirm_steps=confirm_steps,
        begin=min(1.0, before / total),
        end=min(1.0, (before + config.phases.of(phase).share) / total),
        adaptation=state.adaptation,
        lr_scale=state.lr_scale,
    )
