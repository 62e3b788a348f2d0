"""What the run does after a phase: five rules, the first that matches decides. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle.best import best_of, surely_better
from symbio_core.lifecycle.budget import CONFIRMING
from symbio_core.lifecycle.phases import Reshaped, adapt, answered, apply, relaxed, reshaped
from symbio_core.records import (
    Adaptation,
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

    The first rule that matches decides. Caps on steps and seconds end the run well whatever the
    rules say. Where a rule wants another try and there is none left, the settings or a person
    decide. Whoever leaves oxidation wakes a dormant checkpoint that is surely better.

    Args:
        config: the run's settings.
        state: where the run stood before the attempt.
        plan: the attempt's plan.
        outcome: what it measured.
        verdicts: what the gates found. Without a `progress` verdict the gate is not passed.
        choice: a person's answer to an earlier decision of kind `ask`.
    """
    case = Case(config, state, plan, outcome, tuple(verdicts))
    wanted = next(found for rule in RULES if (found := rule(case)) is not None)
    is_whole = wanted.kind == "finish" and outcome.stopped == "done"
    if case.cap is not None and not is_whole:
        return _capped(case, wanted, case.cap)
    if wanted.kind in ("repeat", "rollback") and not _may_try_again(case, wanted):
        wanted = _exhausted(case, wanted, choice or config.budget.on_exhausted)
    return _with_revival(case, wanted)


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a decision is made of."""

    config: RunConfig
    state: RunState
    plan: PhasePlan
    outcome: Outcome
    verdicts: tuple[Verdict, ...]

    @property
    def lessons(self) -> tuple[Verdict, ...]:
        """Verdicts that may reshape the phases to come: all that the phase has not answered itself,
        or none without niche construction."""
        new = tuple(verdict for verdict in self.verdicts if not verdict.answered)
        return new if self.config.has("niche") else ()

    @property
    def adaptation(self) -> Adaptation:
        """The numbers that the attempt ended under."""
        return answered(self.state.adaptation, self.outcome.responses)

    def eased(self) -> Reshaped:
        """Return the niche of the next phase: the old one half forgotten, then what was learned."""
        rest, easing = relaxed(self.adaptation)
        after, applied = adapt(rest, self.lessons)
        return after, (*easing, *applied)

    def failed(self, name: str) -> Verdict | None:
        """Return the first failed verdict called ``name``."""
        return next((v for v in self.verdicts if v.name == name and not v.passed), None)

    @property
    def cap(self) -> str | None:
        """The cap that is reached after the attempt."""
        budget, limit = self.config.budget, self.config.budget.max_seconds
        seconds = self.state.seconds_spent + self.outcome.seconds
        if self.outcome.stopped == "seconds" and "dollars" in self.outcome.reason:
            return "dollars"
        if self.outcome.stopped == "seconds" or (limit is not None and seconds >= limit):
            return "seconds"
        steps = self.state.steps_spent + self.outcome.steps
        return "steps" if self.outcome.stopped == "steps" or steps >= budget.steps else None

    @property
    def judged_best(self) -> CheckpointRef:
        """The best of both bests so far and all that sleep: where a regression returns to."""
        awake = [self.state.best, self.state.best_text]
        return best_of([*awake, *self.state.dormant]) or self.outcome.start

    @property
    def best(self) -> CheckpointRef:
        """The best checkpoint there is after the attempt, which counts unless it regressed."""
        before = [self.state.best, *self.state.known.values(), self.outcome.start]
        if self.failed("regression"):
            return best_of(before) or self.outcome.start
        return best_of([*before, self.outcome.best, self.outcome.end]) or self.outcome.start


def has_diverged(outcome: Outcome) -> bool:
    """Say whether a phase was stopped as diverged, or ended where the loss is not a number."""
    return outcome.stopped == "diverged" or not math.isfinite(outcome.end.val_bpb)


def _diverged(case: Case) -> Decision | None:
    if not has_diverged(case.outcome):
        return None
    adaptation, applied = apply(case.adaptation, TIGHTER, "divergence")
    why = case.outcome.reason or "the validation loss is not finite"
    return Decision(
        kind="repeat",
        rule="diverged",
        reason=f"diverged: {why}; again from its start at half the learning rate",
        start=case.outcome.start.id,
        adaptation=adaptation,
        applied=applied,
    )


def _regressed(case: Case) -> Decision | None:
    verdict = case.failed("regression")
    if verdict is None:
        return None
    adaptation, applied = reshaped(case.adaptation, case.lessons, "regression")
    target = case.judged_best
    return Decision(
        kind="rollback",
        rule="regression",
        reason=f"{verdict.reason}; back to the checkpoint of {target.phase} at step {target.step}",
        start=target.id,
        adaptation=adaptation,
        applied=applied,
    )


def _overfitted(case: Case) -> Decision | None:
    verdict = case.failed("train/validation divergence")
    if verdict is None:
        return None
    end = case.outcome.end
    awake = [ref for ref in (case.outcome.best, case.outcome.start) if ref.id != end.id]
    adaptation, applied = case.eased()
    sleeps = case.config.has("dormancy")
    goes_on = "dormant" if sleeps else "advance"
    return Decision(
        kind="finish" if case.plan.phase == PHASES[-1] else goes_on,
        rule="train/validation divergence",
        reason=f"{verdict.reason}; {'the end sleeps, ' if sleeps else ''}the run goes on from its "
        "best validation loss",
        start=(best_of(awake) or case.outcome.start).id,
        dormant=end.id if sleeps else None,
        adaptation=adaptation,
        applied=applied,
    )


def _not_passed(case: Case) -> Decision | None:
    progress = [verdict for verdict in case.verdicts if verdict.name == "progress"]
    failed = next((verdict for verdict in progress if not verdict.passed), None)
    if progress and failed is None:
        return None
    why = failed.reason if failed else "the progress gate gave no verdict"
    adaptation, applied = reshaped(case.adaptation, case.lessons, "progress")
    return Decision(
        kind="repeat",
        rule="gate not passed",
        reason=f"gate not passed: {why}; again with an adapted niche",
        start=case.outcome.start.id,
        adaptation=adaptation,
        applied=applied,
    )


def _passed(case: Case) -> Decision:
    why = next(verdict.reason for verdict in case.verdicts if verdict.name == "progress")
    adaptation, applied = case.eased()
    last = case.plan.phase == PHASES[-1]
    return Decision(
        kind="finish" if last else "advance",
        rule="advance",
        reason=f"{why}; all phases are done" if last else why,
        start=case.outcome.end.id,
        adaptation=adaptation,
        applied=applied,
    )


RULES: tuple[Callable[[Case], Decision | None], ...] = (
    _diverged,
    _regressed,
    _overfitted,
    _not_passed,
    _passed,
)
"""In this order; the last always matches."""


def _capped(case: Case, wanted: Decision, cap: str) -> Decision:
    done = case.plan.phase == PHASES[-1] and case.outcome.stopped == "done"
    head = "all phases are done" if done else f"the cap on {cap} is reached"
    return Decision(
        kind="finish",
        rule="cap",
        reason=f"{head}, and the run ends with its best checkpoint ({case.plan.phase}: "
        f"{_without_plans(wanted)})",
        start=case.best.id,
        dormant=wanted.dormant,
        adaptation=case.adaptation,
    )


def _may_try_again(case: Case, wanted: Decision) -> bool:
    budget = case.config.budget
    if wanted.kind == "rollback" and case.state.rollbacks >= budget.max_rollbacks:
        return False
    return case.plan.attempt < budget.max_attempts


def _exhausted(
    case: Case, wanted: Decision, answer: Literal["continue", "ask", "stop", "repeat"]
) -> Decision:
    if answer == "repeat":
        return wanted
    tries = f"{case.plan.attempt} tries" if case.plan.attempt > 1 else "1 try"
    tried = f"{case.plan.phase} has had its {tries} ({_without_plans(wanted)})"
    if answer == "ask":
        question = f"{tried}. What now?"
        return wanted.model_copy(update={"kind": "ask", "reason": question})
    ends = answer == "stop" or case.plan.phase == PHASES[-1]
    then = "the run ends" if ends else "the run goes on"
    return Decision(
        kind="finish" if ends else "advance",
        rule="exhausted",
        reason=f"{tried}; {then} with its best checkpoint",
        start=case.best.id,
        adaptation=case.adaptation if ends else wanted.adaptation,
        applied=() if ends else wanted.applied,
        flagged=answer == "continue",
    )


def _without_plans(wanted: Decision) -> str:
    return wanted.reason if wanted.kind == "advance" else wanted.reason.rpartition("; ")[0]


def _with_revival(case: Case, wanted: Decision) -> Decision:
    if case.plan.phase != CONFIRMING or wanted.kind not in ("advance", "dormant"):
        return wanted
    refs = (case.outcome.start, case.outcome.best, case.outcome.end, case.best)
    line = next(ref for ref in refs if ref.id == wanted.start)
    confidence = case.config.gates.confidence
    sleeper = surely_better(case.state.dormant, line, confidence=confidence)
    if sleeper is None:
        return wanted
    reason = f"the dormant checkpoint of {sleeper.phase} is surely better than the line; it wakes"
    return wanted.model_copy(
        update={"rule": "revival", "reason": f"{wanted.reason}; {reason}", "start": sleeper.id}
    )
