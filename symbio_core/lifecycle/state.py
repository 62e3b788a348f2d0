"""Where a run stands after a decision. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle.best import better, better_text, lowest_of, writes_worse
from symbio_core.lifecycle.budget import steps_for
from symbio_core.lifecycle.decide import has_diverged
from symbio_core.records import (
    Attempt,
    CheckpointRef,
    Decision,
    EvalPoint,
    Interval,
    Outcome,
    PhasePlan,
    RunState,
)

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
    # Level with the best of late is not enough: it may be surely worse than the best of all.
    best = state.best if writes_worse(end, state.best_text) else better(state.best, end)
    best_text = better_text(state.best_text, end)
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
            "best_text": best_text,
            "dormant": dormant,
            "known": _known(state, outcome, end, decision, (best, best_text), dormant),
            "adaptation": decision.adaptation,
            "lr_scale": state.lr_scale * (SLOWER if has_diverged(outcome) else 1.0),
            "flags": (*state.flags, *flag),
            "confirmed": state.confirmed or outcome.confirm_steps > 0,
        }
    )
    return after.model_copy(update={"finished": _ending(config, after, decision)})


def line_points(attempts: Sequence[Attempt], start: str | None) -> tuple[EvalPoint, ...]:
    """Return the evaluations that the weights of a checkpoint went through, oldest first.

    What a rollback, a repeat or a dormant end has left behind is not among them.

    Args:
        attempts: all that were decided, oldest first.
        start: the checkpoint.
    """
    found: list[EvalPoint] = []
    begun = math.inf
    for attempt in reversed(attempts):
        outcome = attempt.outcome
        if start not in (outcome.end.id, outcome.best.id) or not outcome.points:
            continue
        # Of an attempt that was left at its best, what came after that counts no more.
        found = [point for point in outcome.points if point.line_step < begun] + found
        begun, start = outcome.points[0].line_step, attempt.plan.start
    return tuple(found)


def _dormant(state: RunState, end: CheckpointRef, decision: Decision) -> tuple[CheckpointRef, ...]:
    # Whoever the run goes on from is awake.
    asleep = tuple(ref for ref in state.dormant if ref.id not in (decision.start, end.id))
    return (*asleep, end) if decision.dormant == end.id else asleep


def _known(
    state: RunState,
    outcome: Outcome,
    end: CheckpointRef,
    decision: Decision,
    bests: tuple[CheckpointRef | None, CheckpointRef | None],
    dormant: tuple[CheckpointRef, ...],
) -> dict[str, CheckpointRef]:
    named = (outcome.start, outcome.best, *state.known.values(), state.best, *state.dormant, end)
    refs = {ref.id: ref for ref in (*named, *bests) if ref is not None}
    lowest = lowest_of(refs.values())
    # Where the run goes on, both bests, the lowest loss and what sleeps may still be named; the
    # rest is never asked for again, and its files may go.
    needed = {decision.start, *(ref.id for ref in (*bests, lowest, *dormant) if ref is not None)}
    return {name: ref for name, ref in refs.items() if name in needed}


def _ending(config: RunConfig, after: RunState, decision: Decision) -> str | None:
    if decision.kind == "finish":
        return decision.reason
    if after.phase_index >= len(PHASES):
        return "all phases are done"
    if steps_for(config, after) < 1:
        return "no steps are left"
    return None
