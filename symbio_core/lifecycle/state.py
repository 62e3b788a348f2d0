"""Where a run stands after a decision. Pure."""

from __future__ import annotations

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle.best import better, lowest_of
from symbio_core.lifecycle.budget import steps_for
from symbio_core.lifecycle.decide import has_diverged
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
    again = decision.kind in ("repeat", "rollback")
    best = better(state.best, end)
    dormant = _dormant(state, end, decision)
    flag = (f"{plan.phase}: {decision.reason}",) if decision.flagged else ()
    after = state.model_copy(
        update={
            "phase_index": state.phase_index + (0 if again else 1),
            "attempt": plan.attempt + 1 if again else 1,
            "rollbacks": state.rollbacks + (decision.kind == "rollback"),
            "steps_spent": state.steps_spent + outcome.steps,
            "seconds_spent": state.seconds_spent + outcome.seconds,
            "line": decision.start,
            "best": best,
            "dormant": dormant,
            "known": _known(state, outcome, end, decision, best, dormant),
            "adaptation": decision.adaptation,
            "lr_scale": state.lr_scale * (SLOWER if has_diverged(outcome) else 1.0),
            "flags": (*state.flags, *flag),
            "confirmed": state.confirmed or outcome.confirm_steps > 0,
        }
    )
    return after.model_copy(update={"finished": _ending(config, after, decision)})


def _dormant(state: RunState, end: CheckpointRef, decision: Decision) -> tuple[CheckpointRef, ...]:
    # Whoever the run goes on from is awake.
    asleep = tuple(ref for ref in state.dormant if ref.id not in (decision.start, end.id))
    return (*asleep, end) if decision.dormant == end.id else asleep


def _known(
    state: RunState,
    outcome: Outcome,
    end: CheckpointRef,
    decision: Decision,
    best: CheckpointRef | None,
    dormant: tuple[CheckpointRef, ...],
) -> dict[str, CheckpointRef]:
    named = (outcome.start, outcome.best, *state.known.values(), state.best, *state.dormant, end)
    refs = {ref.id: ref for ref in (*named, best) if ref is not None}
    lowest = lowest_of(refs.values())
    # Where the run goes on, the best, the lowest loss and what sleeps may still be named; the
    # rest is never asked for again, and its files may go.
    needed = {decision.start, *(ref.id for ref in (best, lowest, *dormant) if ref is not None)}
    return {name: ref for name, ref in refs.items() if name in needed}


def _ending(config: RunConfig, after: RunState, decision: Decision) -> str | None:
    if decision.kind == "finish":
        return decision.reason
    if after.phase_index >= len(PHASES):
        return "all phases are done"
    if steps_for(config, after) < 1:
        return "no steps are left"
    return None
