"""The numbers of a phase, and how verdicts reshape them (niche construction). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from symbio_core.config import PhaseSettings, RunConfig, changed
from symbio_core.records import Adaptation, AppliedChange, Change, Verdict

DEFAULT_CHANGES = (
    Change(setting="lr_scale", op="scale", value=0.7),
    Change(setting="mutation_scale", op="scale", value=1.25),
)
"""What a repeated phase changes where no verdict says better: to try the same again is no try."""


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


def adapt(
    adaptation: Adaptation, verdicts: Iterable[Verdict]
) -> tuple[Adaptation, tuple[AppliedChange, ...]]:
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


def apply(
    adaptation: Adaptation, changes: Iterable[Change], cause: str
) -> tuple[Adaptation, list[AppliedChange]]:
    """Apply ``changes`` one after another and tell which of them moved something."""
    applied: list[AppliedChange] = []
    for change in changes:
        before = float(getattr(adaptation, change.setting))
        low, high = _bounds(change.setting)
        after = _clipped(_moved(before, change), low, high)
        if after != before:
            adaptation = adaptation.model_copy(update={change.setting: after})
            applied.append(
                AppliedChange(setting=change.setting, before=before, after=after, cause=cause)
            )
    return adaptation, applied


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
