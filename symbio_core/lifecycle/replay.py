"""From a journal to the state of a run; the same evidence gives the same decisions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from symbio_core.config import RunConfig
from symbio_core.errors import StorageError
from symbio_core.lifecycle.decide import decide
from symbio_core.lifecycle.plan import plan
from symbio_core.lifecycle.state import advance
from symbio_core.records import (
    Attempt,
    Battery,
    Decision,
    Interval,
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
    """Return what the events of a run amount to.

    Raises:
        StorageError: an event is damaged, or does not fit where it stands.
    """
    folded = Folded()
    for number, event in enumerate(events):
        try:
            folded = step(config, folded, event)
        except (ValidationError, KeyError, TypeError) as error:
            raise StorageError(
                f"journal event {number} ({event.get('event', '?')}) does not fit: {error}"
            ) from error
    return folded


def step(config: RunConfig, folded: Folded, event: Event) -> Folded:
    """Return what one more event makes of a fold."""
    pending = folded.pending
    match event["event"]:
        case "planned":
            planned = Pending(plan=PhasePlan.model_validate(event["plan"]))
            return folded.model_copy(update={"pending": planned})
        case "trained":
            outcome = Outcome.model_validate(event["outcome"])
            return _pending(folded, pending, outcome=outcome)
        case "written":
            battery = Battery.model_validate(event["battery"])
            return _pending(folded, pending, battery=battery)
        case "decided":
            return _decided(config, folded, event)
        case _:
            return folded


def replay(config: RunConfig, events: Sequence[Event]) -> RunState:
    """Decide everything again from the journal's evidence and return the state it leads to.

    Raises:
        StorageError: a plan or decision in the journal is not the one its evidence leads to.
    """
    folded = Folded()
    for number, event in enumerate(events):
        if event["event"] == "planned":
            expected = plan(config, folded.state)
            found = PhasePlan.model_validate(event["plan"])
            same = expected is not None and (
                expected == found or expected.model_copy(update={"start": found.start}) == found
            )
            _insist(same, number, "plan")
        if event["event"] == "decided":
            pending = folded.pending
            assert pending is not None
            assert pending.outcome is not None
            verdicts = tuple(Verdict.model_validate(v) for v in event["verdicts"])
            choice = event.get("choice")
            again = decide(config, folded.state, pending.plan, pending.outcome, verdicts, choice)
            _insist(again == Decision.model_validate(event["decision"]), number, "decision")
        folded = step(config, folded, event)
    return folded.state


def _insist(same: bool, number: int, what: str) -> None:
    if not same:
        raise StorageError(
            f"journal event {number}: the {what} is not the one that its evidence leads to; "
            "the journal or the configuration was changed by hand"
        )


def _pending(folded: Folded, pending: Pending | None, **changes: Record) -> Folded:
    if pending is None:
        raise KeyError("no phase is under way")
    return folded.model_copy(update={"pending": pending.model_copy(update=changes)})


def _decided(config: RunConfig, folded: Folded, event: Event) -> Folded:
    pending = folded.pending
    if pending is None or pending.outcome is None or pending.battery is None:
        raise KeyError("a decision without evidence")
    decision = Decision.model_validate(event["decision"])
    quality = Interval.model_validate(event["quality"]) if event.get("quality") else None
    state = advance(config, folded.state, pending.plan, pending.outcome, quality, decision)
    attempt = Attempt(
        plan=pending.plan,
        outcome=pending.outcome,
        battery=pending.battery,
        verdicts=tuple(Verdict.model_validate(v) for v in event["verdicts"]),
        decision=decision,
    )
    return Folded(state=state, attempts=(*folded.attempts, attempt), pending=None)
