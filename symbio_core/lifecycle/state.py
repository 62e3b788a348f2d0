"""Where a run stands after a decision. Pure."""

from __future__ import annotations

import math

from symbio_core.config import PHASES, RunConfig
from symbio_core.records import CheckpointRef, Decision, Interval, Outcome, PhasePlan, RunState

SLOWER = 0.5
"""Factor on the learning rate after a divergence."""


def advance(
    config: RunConfig,
    state: RunState,
    plan: PhasePlan,
    outcome: Outcome,
    quality: Interval | None,
    decision: Decision,
) -> RunState:
    """Fold a decided attempt into the state; `ask` leaves it as it was."""
    if decision.kind == "ask":
        return state
    end = outcome.end.model_copy(update={"quality": quality})
    best = better(state.best, end)
    again = decision.kind in ("repeat", "rollback")
    index = state.phase_index + (0 if again else 1)
    dormant = state.dormant
    if decision.dormant is not None:
        dormant = (*dormant, end)
    if decision.rule == "revival":
        dormant = tuple(ref for ref in dormant if ref.id != decision.start)
    flags = state.flags
    if decision.flagged:
        flags = (*flags, f"{plan.phase}: {decision.reason}")
    after = state.model_copy(
        update={
            "phase_index": index,
            "attempt": plan.attempt + 1 if again else 1,
            "rollbacks": state.rollbacks + (decision.kind == "rollback"),
            "steps_spent": state.steps_spent + outcome.steps,
            "seconds_spent": state.seconds_spent + outcome.seconds,
            "line": decision.start,
            "best": best,
            "dormant": dormant,
            "known": _known(state, outcome, end, decision, best, dormant),
            "adaptation": decision.adaptation,
            "lr_scale": state.lr_scale * (SLOWER if decision.rule == "diverged" else 1.0),
            "flags": flags,
            "confirmed": state.confirmed or outcome.confirm_steps > 0,
        }
    )
    return after.model_copy(update={"finished": _ending(config, after, decision)})


def better(best: CheckpointRef | None, end: CheckpointRef) -> CheckpointRef | None:
    """Return which of two is the best so far.

    Surely better text wins; where quality is level, the lower validation loss does. A checkpoint
    without a finite loss is never the best.
    """
    if not math.isfinite(end.val_bpb):
        return best
    if best is None:
        return end
    if best.quality is not None and end.quality is not None:
        if end.quality.low > best.quality.high:
            return end
        if end.quality.high < best.quality.low:
            return best
    return end if end.val_bpb < best.val_bpb else best


def _known(
    state: RunState,
    outcome: Outcome,
    end: CheckpointRef,
    decision: Decision,
    best: CheckpointRef | None,
    dormant: tuple[CheckpointRef, ...],
) -> dict[str, CheckpointRef]:
    refs = {**state.known, outcome.start.id: outcome.start, outcome.best.id: outcome.best}
    refs[end.id] = end
    if best is not None:
        refs[best.id] = best
    for ref in dormant:
        refs[ref.id] = ref
    # The start of the next attempt, the best, and what sleeps may still be named; the rest may not.
    needed = {decision.start, best.id if best else None, *(ref.id for ref in dormant)}
    return {name: ref for name, ref in refs.items() if name in needed}


def _ending(config: RunConfig, after: RunState, decision: Decision) -> str | None:
    if decision.kind == "finish":
        return decision.reason
    if after.phase_index >= len(PHASES):
        return "all phases are done"
    if after.steps_spent >= config.budget.steps:
        return "the cap on steps is reached"
    return None
