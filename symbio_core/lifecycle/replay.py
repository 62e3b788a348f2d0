"""From a journal to the state of a run; the same evidence gives the same decisions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from symbio_core.config import RunConfig
from symbio_core.errors import Damaged
from symbio_core.lifecycle.decide import Choice, decide
from symbio_core.lifecycle.phases import apply
from symbio_core.lifecycle.plan import plan
from symbio_core.lifecycle.state import advance
from symbio_core.records import (
    Adaptation,
    Attempt,
    Battery,
    Decision,
    Interval,
    MachineCost,
    Outcome,
    PhasePlan,
    Record,
    RunState,
    Verdict,
)

Event = Mapping[str, Any]


class Pending(Record):
    """An attempt that has been planned and not yet decided."""

    plan: PhasePlan
    outcome: Outcome | None = None
    battery: Battery | None = None


class Folded(Record):
    """Everything that the journal of a run amounts to."""

    state: RunState = RunState()
    attempts: tuple[Attempt, ...] = ()
    pending: Pending | None = None


def fold(config: RunConfig, events: Sequence[Event]) -> Folded:
    """Return what the events of a run amount to, taking its plans and decisions as they are.

    Raises:
        Damaged: an event is damaged, or does not fit where it stands.
    """
    return _folded(config, events, lambda folded, event: None)


def replay(config: RunConfig, events: Sequence[Event]) -> RunState:
    """Plan and decide everything again from the journal's evidence; return where that leads.

    Raises:
        Damaged: a plan or decision in the journal is not the one its evidence leads to, or
            an event is damaged or does not fit where it stands; the message names the event.
    """
    return _folded(config, events, lambda folded, event: _doubt(config, folded, event)).state


def step(config: RunConfig, folded: Folded, event: Event) -> Folded:
    """Return what one more event makes of a fold.

    Raises:
        KeyError: the event lacks a part, or stands where it cannot.
        ValidationError: a part of it is damaged.
    """
    match event["event"]:
        case "planned":
            planned = Pending(plan=PhasePlan.model_validate(event["plan"]))
            return folded.model_copy(update={"pending": planned})
        case "trained":
            return _with(folded, outcome=_outcome(folded, event))
        case "written":
            return _with(folded, battery=Battery.model_validate(event["battery"]))
        case "decided":
            return _decided(config, folded, event)
        case "machine":
            return _paid(folded, MachineCost.model_validate(event["machine"]))
        case "finished":
            # Where the money ended it in the midst of a phase, no decision says so.
            why = folded.state.finished or str(event["reason"])
            state = folded.state.model_copy(update={"finished": why})
            return folded.model_copy(update={"state": state, "pending": None})
        case _:
            return folded


def _paid(folded: Folded, machine: MachineCost) -> Folded:
    """Return the fold with the newest word about what a machine cost."""
    known = {one.name: one for one in folded.state.machines} | {machine.name: machine}
    state = folded.state.model_copy(update={"machines": tuple(known.values())})
    return folded.model_copy(update={"state": state})


def _folded(
    config: RunConfig, events: Sequence[Event], doubt: Callable[[Folded, Event], str | None]
) -> Folded:
    folded = Folded()
    for number, event in enumerate(events):
        try:
            wrong = doubt(folded, event)
            folded = step(config, folded, event)
        except (ValidationError, KeyError, TypeError) as error:
            kind = event.get("event", "nameless")
            what = " ".join(str(error.args[0] if error.args else error).split())
            raise Damaged(
                f"journal event {number} ({kind}) does not fit: {what}; "
                "the journal was damaged or changed by hand"
            ) from error
        if wrong is not None:
            raise Damaged(
                f"journal event {number} ({event['event']}): {wrong}; the journal or the "
                "configuration was changed by hand, or another version of symbio wrote it"
            )
    return folded


def _doubt(config: RunConfig, folded: Folded, event: Event) -> str | None:
    """Say how a plan or decision differs from the one that its evidence leads to."""
    if event["event"] == "planned":
        found = PhasePlan.model_validate(event["plan"])
        expected = plan(config, folded.state)
        if expected is not None and expected.start is None:
            # The first phase's start is made when the run opens, and only the plan names it.
            expected = expected.model_copy(update={"start": found.start})
        if found != expected:
            return f"the plan is not the one that the state leads to ({expected!r})"
    if event["event"] == "trained":
        return _doubt_answers(folded, _outcome(folded, event))
    if event["event"] == "decided":
        _evidence(folded)
        decision = Decision.model_validate(event["decision"])
        possible = _possible(config, folded, event)
        if decision not in possible:
            return f"the decision is not the one that its evidence leads to ({possible[0]!r})"
    return None


def _doubt_answers(folded: Folded, outcome: Outcome) -> str | None:
    """Say which answer of a running phase is not the one that its verdict leads to."""
    now = folded.pending.plan.adaptation if folded.pending else Adaptation()
    for answer in outcome.responses:
        now, applied = apply(now, answer.verdict.changes, answer.verdict.name)
        if applied != answer.applied:
            return f"the answer to '{answer.verdict.name}' is not what it asks for ({applied!r})"
    return None


def _possible(config: RunConfig, folded: Folded, event: Event) -> list[Decision]:
    pending, outcome, _ = _evidence(folded)
    verdicts = tuple(Verdict.model_validate(v) for v in event["verdicts"])
    choice = event.get("choice")
    first = decide(config, folded.state, pending.plan, outcome, verdicts, choice)
    if first.kind != "ask":
        return [first]
    # The journal keeps what was decided, not always what the person said.
    answers: tuple[Choice, ...] = get_args(Choice)
    return [
        first,
        *(decide(config, folded.state, pending.plan, outcome, verdicts, one) for one in answers),
    ]


def _with(folded: Folded, **changes: Record) -> Folded:
    if folded.pending is None:
        raise KeyError("no phase is under way")
    return folded.model_copy(update={"pending": folded.pending.model_copy(update=changes)})


def _outcome(folded: Folded, event: Event) -> Outcome:
    outcome = Outcome.model_validate(event["outcome"])
    planned = folded.pending.plan if folded.pending else None
    if planned and (outcome.phase, outcome.attempt) != (planned.phase, planned.attempt):
        raise KeyError(f"an outcome of {outcome.phase} where {planned.phase} is under way")
    return outcome


def _evidence(folded: Folded) -> tuple[Pending, Outcome, Battery]:
    pending = folded.pending
    if pending is None or pending.outcome is None or pending.battery is None:
        raise KeyError("a decision without evidence")
    return pending, pending.outcome, pending.battery


def _decided(config: RunConfig, folded: Folded, event: Event) -> Folded:
    pending, outcome, battery = _evidence(folded)
    decision = Decision.model_validate(event["decision"])
    if decision.kind == "ask":
        return folded
    quality = Interval.model_validate(event["quality"]) if event.get("quality") else None
    attempt = Attempt(
        plan=pending.plan,
        outcome=outcome,
        battery=battery,
        verdicts=tuple(Verdict.model_validate(v) for v in event["verdicts"]),
        decision=decision,
    )
    return Folded(
        state=advance(config, folded.state, pending.plan, outcome, quality, decision),
        attempts=(*folded.attempts, attempt),
        pending=None,
    )
