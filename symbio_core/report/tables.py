"""Tables of the final, the phases, the gates and the settings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from symbio_core.config import PhaseTable
from symbio_core.records import SURE_BELOW, Confirmation, Effect, Interval
from symbio_core.report.cells import NONE, count, duration, fixed, ranged, table, where
from symbio_core.report.plots import own_name
from symbio_core.report.schema import AttemptSummary, ChangeSummary, FinalReport, Span

DECISIONS = {
    "advance": "advance",
    "repeat": "repeat the phase",
    "rollback": "roll back",
    "dormant": "store as dormant, go on from the best",
    "finish": "finish",
    "ask": "ask a person",
}


def _way(span: Span, digits: int = 3) -> str:
    return f"{fixed(span.start, digits)} → {fixed(span.end, digits)}"


def _of(summary: AttemptSummary) -> str:
    return where(summary.phase, summary.attempt)


def contenders(confirmation: Confirmation) -> str:
    """List the functions of the final with loss and cost, best first."""
    rows = [
        {
            "function": c.name if c.name != "evolved" else "the evolved one",
            "formula": c.formula,
            "bits a byte": fixed(c.bpb),
            "nats a token, seed by seed": ", ".join(fixed(x) for x in c.nats),
            "ms a step": fixed(1000 * c.seconds_per_step, 1),
        }
        for c in sorted(confirmation.contenders, key=lambda c: c.bpb)
    ]
    tight = ["nats a token, seed by seed"]
    return table(rows, code=["formula"], numbers=["bits a byte", "ms a step"], tight=tight)


def effects(confirmation: Confirmation) -> str:
    """List the winner's differences to each fixed function."""
    rows = [
        {
            "against": e.against,
            "bits a byte": ranged(e.bpb),
            "nats a token": ranged(e.loss_nats),
            "p": f"{e.p_value:.3g}",
            "in words": _effect_in_words(e, own_name(confirmation)),
        }
        for e in confirmation.effects
    ]
    return table(rows, numbers=["p"], tight=["bits a byte", "nats a token", "in words"])


def _effect_in_words(effect: Effect, own: str) -> str:
    # The interval stands for itself; the corrected p-value has the last word.
    if effect.p_value >= SURE_BELOW or not (
        effect.loss_nats.below_zero or effect.loss_nats.above_zero
    ):
        return "not sure"
    return f"{own} is better" if effect.loss_nats.below_zero else "fixed is better"


def phases(report: FinalReport) -> str:
    """List every attempt at a phase with what it was for and what it reached."""
    rows = [
        {
            "phase": _of(a),
            "what for": PhaseTable.model_fields[a.phase].description,
            "activation at its end": a.formula,
            "train (nats a token)": _way(a.train_nats),
            "validation (nats a token)": _way(a.val_nats),
            "bits a byte": fixed(a.val_bpb, 3),
            "quality (0 to 1)": ranged(a.quality, ".2f"),
        }
        for a in report.phases
    ]
    tight = ["train (nats a token)", "validation (nats a token)", "quality (0 to 1)"]
    return table(
        rows,
        code=["activation at its end"],
        numbers=["bits a byte"],
        tight=tight,
        prose=["what for"],
    )


def spending(report: FinalReport) -> str:
    """List what every attempt at a phase cost."""
    rows = [
        {
            "phase": _of(a),
            "steps": count(a.steps.total),
            "main line": count(a.steps.line),
            "candidates": count(a.steps.search),
            "final": count(a.steps.confirm),
            "skipped": count(a.skipped),
            "time": duration(a.seconds),
            "tokens/s": NONE if a.tokens_per_s is None else count(round(a.tokens_per_s)),
            "how it ended": a.stop_reason or a.stopped,
            "alarms": "; ".join(a.alarms),
        }
        for a in report.phases
    ]
    right = ["steps", "main line", "candidates", "final", "skipped", "time", "tokens/s"]
    return table(rows, numbers=right)


def decisions(report: FinalReport) -> str:
    """List what the run decided after each attempt, and why."""
    rows = [
        {
            "after": _of(a),
            "decision": DECISIONS[a.decision.kind] + (" ⚑" if a.decision.flagged else ""),
            "rule": a.decision.rule,
            "why": a.decision.reason,
            "went on from": a.decision.start,
        }
        for a in report.phases
    ]
    return table(rows, code=["went on from"], prose=["decision", "why"])


def changes(applied: Sequence[ChangeSummary]) -> str:
    """List the settings that verdicts moved."""
    rows = [
        {
            "after": where(c.phase, c.attempt),
            "setting": c.change.setting,
            "before": f"{c.change.before:.4g}",
            "after it": f"{c.change.after:.4g}",
            "cause": c.change.cause,
            "what was seen": c.reason,
        }
        for c in applied
    ]
    return table(rows, code=["setting"], numbers=["before", "after it"], prose=["what was seen"])


def verdicts(report: FinalReport, *, passed: bool) -> str:
    """List the verdicts of the gates that passed, or those that did not."""
    rows = [
        {
            "after": _of(a),
            "gate": v.gate,
            "verdict": v.name,
            "what it says": v.reason,
            "measure": v.metric,
            "value": _value(v.value, v.interval),
            "threshold": NONE if v.threshold is None else f"{v.threshold:.4g}",
        }
        for a in report.phases
        for v in a.verdicts
        if v.passed is passed
    ]
    return table(rows, numbers=["threshold"], tight=["value"], prose=["what it says", "measure"])


def _value(value: float | None, interval: Interval | None) -> str:
    if interval is not None:
        return ranged(interval, ".4g")
    return NONE if value is None else f"{value:.4g}"


def efficiency(report: FinalReport) -> str:
    """List what the time of each phase bought."""
    rows = [
        {
            "phase": e.phase,
            "attempts": e.attempts,
            "validation loss fell by (nats a token)": fixed(e.fall_nats),
            "time": duration(e.seconds),
            "on a GPU": duration(e.gpu_seconds) if e.gpu_seconds else NONE,
            "millinats a second": fixed(
                None if e.fall_nats_per_s is None else 1000 * e.fall_nats_per_s, 2
            ),
        }
        for e in report.efficiency
    ]
    return table(rows, numbers=list(rows[0])[1:] if rows else [])


def settings(config: dict[str, Any]) -> str:
    """List every setting of the run under its dotted name."""
    rows = [{"setting": name, "value": value} for name, value in _flat(config)]
    return table(rows, code=["setting", "value"])


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found
