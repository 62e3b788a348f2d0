"""The numbers of a phase, and how verdicts reshape them (niche construction). Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from symbio_core.config import PhaseSettings, RunConfig, changed
from symbio_core.records import Adaptation, AppliedChange, Change, Response, Verdict

Reshaped = tuple[Adaptation, tuple[AppliedChange, ...]]
"""Numbers as they are now, and every change that led there."""

DEFAULT_CHANGES = (
    Change(setting="lr_scale", op="scale", value=0.7),
    Change(setting="mutation_scale", op="scale", value=1.25),
)
"""What a repeated phase changes where no verdict says better: to try the same again is no try."""
BACK_TO_START = tuple(
    Change(setting=name, op="set", value=getattr(Adaptation(), name))
    for name in Adaptation.model_fields
)
"""What it changes where even those stand at their bounds."""
RELAXATION = "relaxation"
"""Cause of a change that no verdict asked for: a number on its way back."""
ONE_ATTEMPT = ("perturb_consensus", "reset_consensus")
"""Numbers that are meant for the next attempt alone."""
NEARLY = 0.05
"""A number this near to where it began is put back there (share of 1 or more)."""


def effective(config: RunConfig, phase: str, adaptation: Adaptation) -> PhaseSettings:
    """Return a phase's settings with the adaptation applied, inside their bounds."""
    settings = config.phase(phase)
    fusion = settings.fusion
    return changed(
        settings,
        {
            "mutation": _clipped(settings.mutation * adaptation.mutation_scale, 0.0, 1.0),
            "coupling": _clipped(settings.coupling * adaptation.coupling_scale, 0.0, 20.0),
            "rung_steps": max(1, round(settings.rung_steps * adaptation.rung_scale)),
            "max_depth": round(_clipped(settings.max_depth + adaptation.extra_depth, 1, 12)),
            "max_nodes": round(_clipped(settings.max_nodes + adaptation.extra_nodes, 1, 64)),
            "fusion.base": _clipped(fusion.base * adaptation.fusion_scale, 0.0, 1.0),
            "fusion.max": _clipped(fusion.max * adaptation.fusion_scale, 0.0, 1.0),
        },
    )


def relaxed(adaptation: Adaptation) -> Reshaped:
    """Let every number go half of the way back to where it began, as the phase that moved it is
    over.

    What was meant for one attempt goes all the way, and so does what is nearly there.

    Returns:
        The new adaptation, and every number that moved, with the cause `relaxation`.
    """
    neutral = Adaptation()
    applied: list[AppliedChange] = []
    for name in Adaptation.model_fields:
        before, rest = float(getattr(adaptation, name)), float(getattr(neutral, name))
        near = abs(before - rest) < NEARLY * max(1.0, abs(rest))
        after = rest if near or name in ONE_ATTEMPT else (before + rest) / 2.0
        if after != before:
            adaptation = adaptation.model_copy(update={name: after})
            applied.append(
                AppliedChange(setting=name, before=before, after=after, cause=RELAXATION)
            )
    return adaptation, tuple(applied)


def adapt(adaptation: Adaptation, verdicts: Iterable[Verdict]) -> Reshaped:
    """Apply the changes that failed verdicts ask for, in order, inside their bounds.

    Returns:
        The new adaptation, and every change that moved something, with its cause.
    """
    applied: list[AppliedChange] = []
    for verdict in verdicts:
        if not verdict.passed:
            adaptation, made = apply(adaptation, verdict.changes, verdict.name)
            applied += made
    return adaptation, tuple(applied)


def answered(adaptation: Adaptation, responses: Iterable[Response]) -> Adaptation:
    """Return the numbers that a phase runs under after its own responses."""
    moved = {one.setting: one.after for response in responses for one in response.applied}
    return adaptation.model_copy(update=moved)


def reshaped(adaptation: Adaptation, verdicts: Iterable[Verdict], cause: str) -> Reshaped:
    """Adapt for another try of the same phase: the niche is surely another one afterwards.

    Verdicts come first; where they change nothing, a modest default does, in the name of
    ``cause``; and where that stands at its bounds, everything goes back to where it began.
    """
    after, applied = adapt(adaptation, verdicts)
    for changes in (DEFAULT_CHANGES, BACK_TO_START):
        if after == adaptation:
            after, made = apply(after, changes, cause)
            applied = (*applied, *made)
    return after, applied


def apply(adaptation: Adaptation, changes: Iterable[Change], cause: str) -> Reshaped:
    """Apply ``changes`` one after another and tell which of them moved something.

    A change that does not lead to a number is left out.
    """
    applied: list[AppliedChange] = []
    for change in changes:
        name = change.setting
        assert name in Adaptation.model_fields, f"'{cause}' asks to change the unknown {name}"
        before = float(getattr(adaptation, name))
        wanted = _moved(before, change)
        after = before if math.isnan(wanted) else _clipped(wanted, *_bounds(name))
        if after != before:
            adaptation = adaptation.model_copy(update={name: after})
            applied.append(AppliedChange(setting=name, before=before, after=after, cause=cause))
    return adaptation, tuple(applied)


def _moved(before: float, change: Change) -> float:
    match change.op:
        case "scale":
            return before * change.value
        case "add":
            return before + change.value
        case "set":
            return change.value


def _bounds(setting: str) -> tuple[float, float]:
    metadata = Adaptation.model_fields[setting].metadata
    low = next(part.ge for part in metadata if hasattr(part, "ge"))
    high = next(part.le for part in metadata if hasattr(part, "le"))
    return float(low), float(high)


def _clipped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
