"""What the run does after a phase: five rules, the first that matches decides. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle.budget import CONFIRMING
from symbio_core.lifecycle.phases import DEFAULT_CHANGES, adapt, apply
from symbio_core.records import (
    Adaptation,
    AppliedChange,
    Change,
    CheckpointRef,
    Decision,
    Outcome,
    PhasePlan,
    RunState,
    Verdict,
)

Choice = Literal["continue", "stop", "repeat"]
TIGHTER = (Change(setting="clip_scale", op="scale", value=0.5),)
"""What a diverged phase changes besides its learning rate."""


def decide(
    config: RunConfig,
    state: RunState,
    plan: PhasePlan,
    outcome: Outcome,
    verdicts: Sequence[Verdict],
    choice: Choice | None = None,
) -> Decision:
    """Return what follows an attempt; total over every outcome and any set of verdicts.

    A gate that left no verdict has not been passed.

    Args:
        config: the run's settings.
        state: where the run stood before the attempt.
        plan: the attempt's plan.
        outcome: what it measured.
        verdicts: what the gates found.
        choice: a person's answer to an earlier decision of kind `ask`.
    """
    best = best_of([state.best, outcome.end, outcome.best, outcome.start])
    left = config.budget.steps - state.steps_spent - outcome.steps
    if outcome.stopped in ("seconds", "steps") or left <= 0:
        cap = "seconds" if outcome.stopped == "seconds" else "steps"
        return _finish("cap", f"the cap on {cap} is reached", best, state.adaptation)
    if outcome.stopped == "diverged":
        adaptation, applied = apply(state.adaptation, TIGHTER, "divergence")
        reason = f"diverged: {outcome.reason}; again from its start at half the learning rate"
        again = _again("diverged", reason, outcome.start, adaptation, applied)
        return _bounded(config, plan, again, best, state, choice)
    if _failed(verdicts, "regression"):
        return _rollback(config, state, plan, outcome, verdicts, choice)
    if _failed(verdicts, "train/validation divergence"):
        return _sleep(state, plan, outcome, verdicts)
    progress = [verdict for verdict in verdicts if verdict.name == "progress"]
    if not progress or not all(verdict.passed for verdict in progress):
        why = progress[0].reason if progress else "the progress gate gave no verdict"
        adaptation, applied = _reshaped(state.adaptation, verdicts)
        reason = f"gate not passed: {why}; again with an adapted niche"
        again = _again("gate not passed", reason, outcome.start, adaptation, applied)
        return _bounded(config, plan, again, best, state, choice)
    return _advance(state, plan, outcome, verdicts)


def best_of(refs: Iterable[CheckpointRef | None]) -> CheckpointRef | None:
    """Return the checkpoint of lowest finite validation loss; the first of equals; None of none."""
    finite = [ref for ref in refs if ref is not None and math.isfinite(ref.val_bpb)]
    return min(finite, key=lambda ref: ref.val_bpb, default=None)


def _advance(
    state: RunState, plan: PhasePlan, outcome: Outcome, verdicts: Sequence[Verdict]
) -> Decision:
    adaptation, applied = adapt(state.adaptation, verdicts)
    revived = _revival(state, outcome) if plan.phase == CONFIRMING else None
    progress = next(verdict for verdict in verdicts if verdict.name == "progress")
    if revived is not None:
        reason = f"dormant checkpoint of {revived.phase} is surely better than the line; it wakes"
        return Decision(
            kind="advance",
            rule="revival",
            reason=reason,
            start=revived.id,
            adaptation=adaptation,
            applied=applied,
        )
    if plan.phase == PHASES[-1]:
        return _finish(
            "advance", f"all phases are done; {progress.reason}", outcome.end, adaptation
        )
    return Decision(
        kind="advance",
        rule="advance",
        reason=progress.reason,
        start=outcome.end.id,
        adaptation=adaptation,
        applied=applied,
    )


def _sleep(
    state: RunState, plan: PhasePlan, outcome: Outcome, verdicts: Sequence[Verdict]
) -> Decision:
    adaptation, applied = adapt(state.adaptation, verdicts)
    goes_on = best_of([outcome.best, outcome.start]) or outcome.start
    why = next(v.reason for v in verdicts if v.name == "train/validation divergence")
    last = plan.phase == PHASES[-1]
    return Decision(
        kind="finish" if last else "dormant",
        rule="train/validation divergence",
        reason=f"{why}; the end sleeps, the run goes on from its best validation loss",
        start=goes_on.id,
        dormant=outcome.end.id,
        adaptation=adaptation,
        applied=applied,
    )


def _rollback(
    config: RunConfig,
    state: RunState,
    plan: PhasePlan,
    outcome: Outcome,
    verdicts: Sequence[Verdict],
    choice: Choice | None,
) -> Decision:
    target = best_of([state.best, *state.dormant]) or outcome.start
    adaptation, applied = _reshaped(state.adaptation, verdicts)
    why = next(v.reason for v in verdicts if v.name == "regression" and not v.passed)
    decision = Decision(
        kind="rollback",
        rule="regression",
        reason=f"{why}; back to the checkpoint of {target.phase} at step {target.step}",
        start=target.id,
        adaptation=adaptation,
        applied=applied,
    )
    if state.rollbacks >= config.budget.max_rollbacks:
        return _exhausted(config, plan, decision, target, state, choice)
    return _bounded(config, plan, decision, target, state, choice)


def _bounded(
    config: RunConfig,
    plan: PhasePlan,
    decision: Decision,
    best: CheckpointRef | None,
    state: RunState,
    choice: Choice | None,
) -> Decision:
    if plan.attempt < config.budget.max_attempts or choice == "repeat":
        return decision
    return _exhausted(config, plan, decision, best, state, choice)


def _exhausted(
    config: RunConfig,
    plan: PhasePlan,
    wanted: Decision,
    best: CheckpointRef | None,
    state: RunState,
    choice: Choice | None,
) -> Decision:
    tries = f"{plan.phase} was tried {plan.attempt} times ({wanted.reason})"
    if choice == "repeat":
        return wanted
    if choice is None and config.budget.on_exhausted == "ask":
        return wanted.model_copy(update={"kind": "ask", "reason": f"{tries}. What now?"})
    if choice == "stop" or (choice is None and config.budget.on_exhausted == "stop"):
        return _finish("exhausted", f"{tries}; the run stops here", best, state.adaptation)
    start = best.id if best else plan.start
    if plan.phase == PHASES[-1]:
        return _finish("exhausted", tries, best, state.adaptation, flagged=True)
    return Decision(
        kind="advance",
        rule="exhausted",
        reason=f"{tries}; the run goes on from its best checkpoint",
        start=start,
        adaptation=wanted.adaptation,
        applied=wanted.applied,
        flagged=True,
    )


def _again(
    rule: str,
    reason: str,
    start: CheckpointRef,
    adaptation: Adaptation,
    applied: Sequence[AppliedChange],
) -> Decision:
    return Decision(
        kind="repeat",
        rule=rule,
        reason=reason,
        start=start.id,
        adaptation=adaptation,
        applied=tuple(applied),
    )


def _finish(
    rule: str,
    reason: str,
    best: CheckpointRef | None,
    adaptation: Adaptation,
    *,
    flagged: bool = False,
) -> Decision:
    return Decision(
        kind="finish",
        rule=rule,
        reason=reason,
        start=best.id if best else None,
        adaptation=adaptation,
        flagged=flagged,
    )


def _reshaped(
    adaptation: Adaptation, verdicts: Sequence[Verdict]
) -> tuple[Adaptation, tuple[AppliedChange, ...]]:
    changed, applied = adapt(adaptation, verdicts)
    if applied:
        return changed, applied
    changed, made = apply(adaptation, DEFAULT_CHANGES, "gate not passed")
    return changed, tuple(made)


def _revival(state: RunState, outcome: Outcome) -> CheckpointRef | None:
    sleeper = best_of(state.dormant)
    if sleeper is None or not sleeper.val_nats:
        return None
    pairs = np.array(sleeper.val_nats)
    line = np.array(outcome.end.val_nats)
    if len(pairs) != len(line) or len(pairs) < 2 or not np.isfinite(line).all():
        return None
    difference = pairs - line
    error = float(stats.sem(difference))
    if error == 0.0:
        return sleeper if difference[0] < 0 else None
    high = float(difference.mean()) + float(stats.t.ppf(0.975, len(difference) - 1)) * error
    return sleeper if high < 0.0 else None


def _failed(verdicts: Sequence[Verdict], name: str) -> bool:
    return any(verdict.name == name and not verdict.passed for verdict in verdicts)
