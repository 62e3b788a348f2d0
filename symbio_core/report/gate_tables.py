"""Tables of the gates: what they worried about, what kept quiet, which alarms rang. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from symbio_core.report import dials
from symbio_core.report.cells import caption, folded, table, where
from symbio_core.report.niche import RELAXED, measured
from symbio_core.report.schema import AttemptSummary, FinalReport, VerdictSummary

MEANINGS = {
    "progress": "the phase did not surely make the model better, or made something worse",
    "regression": "the model writes far worse than the best so far",
    "train/validation divergence": "the model learns the training text by heart (overfitting 0)",
    "candidate memorisation": "one candidate learns its own batches by heart (overfitting 1)",
    "population collapse": "all candidates are nearly one function (overfitting 2)",
    "fusion trap": "the consensus pulls members where they learn less (overfitting 3)",
    "complexity overfitting": "a large function fits the training text only (overfitting 4)",
    "transfer interference": "inherited weights hold a new function back (overfitting 5)",
    "activation space exhaustion": "the search proposes functions that it knows already (plateau)",
    "punctuated equilibrium": "a diverse population waits before a jump: normal (plateau)",
    "consensus stagnation": "members run as one, and nothing gets better (plateau)",
    "learning-rate mismatch": "another learning rate, or fewer spikes, would do better (plateau)",
}
"""Verdicts by name: what it means when one fails; in the order of the gates."""
GATES = {"battery": "what it writes", "overfitting": "overfitting", "plateau": "plateau"}


def concerns(report: FinalReport) -> str:
    """Show each failed verdict with its figure and with what the run moved because of it."""
    rows = [
        {
            "after": where(a.phase, a.attempt),
            "concern": v.name,
            "what it says": v.reason,
            "how it was measured": measured(v),
            "what followed": _response(report, a, v),
        }
        for a in report.phases
        for v in a.verdicts
        if not v.passed
    ]
    prose = ["concern", "what it says", "how it was measured", "what followed"]
    return table(rows, prose=prose)


def _response(report: FinalReport, attempt: AttemptSummary, verdict: VerdictSummary) -> str:
    moved = [
        dials.in_words(c.change)
        for c in report.applied
        if (c.phase, c.attempt, c.change.cause) == (attempt.phase, attempt.attempt, verdict.name)
    ]
    decided = attempt.decision.rule
    acted = verdict.name == decided or (verdict.name, decided) == ("progress", "gate not passed")
    steps = [f"decision: {attempt.decision.kind}"] if acted else []
    return "\n".join([*steps, *moved]) or "nothing was moved"


def quiet(report: FinalReport) -> str:
    """Fold the kinds of trouble that were looked for and not seen after any attempt."""
    seen: dict[str, list[bool]] = {}
    gates: dict[str, str] = {}
    for verdict in (v for a in report.phases for v in a.verdicts):
        seen.setdefault(verdict.name, []).append(verdict.passed)
        gates[verdict.name] = GATES.get(verdict.gate, verdict.gate)
    order = [*MEANINGS, *(name for name in seen if name not in MEANINGS)]
    still = [name for name in order if name in seen and all(seen[name])]
    rows = [
        {
            "gate": gates[name],
            "looked for": name,
            "it would mean that": MEANINGS.get(name),
            "times": len(seen[name]),
        }
        for name in still
    ]
    if not rows:
        return ""
    return folded(
        f"Looked for and never seen ({len(rows)} of {len(seen)} kinds)",
        table(rows, numbers=["times"], prose=["it would mean that"]),
    )


def passed(report: FinalReport) -> str:
    """Fold every verdict that passed, attempt by attempt."""
    rows = [
        {
            "after": where(a.phase, a.attempt),
            "verdict": v.name,
            "what it says": v.reason,
            "how it was measured": measured(v),
        }
        for a in report.phases
        for v in a.verdicts
        if v.passed
    ]
    prose = ["verdict", "what it says", "how it was measured"]
    return folded(f"Every verdict that passed ({len(rows)})", table(rows, prose=prose))


def alarms(phases: Sequence[AttemptSummary]) -> str:
    """List what the monitors noticed while a phase ran; nothing where they kept quiet."""
    rows = [
        {"during": where(a.phase, a.attempt), "alarm": alarm} for a in phases for alarm in a.alarms
    ]
    if not rows:
        return ""
    return (
        "<h3>Alarms of the monitors</h3>"
        + caption(
            "They watch the training itself. An alarm decides nothing; it says where to look."
        )
        + table(rows, prose=["alarm"])
    )


def unmoved(report: FinalReport) -> str:
    """Say in a sentence how much the run moved by itself."""
    asked = [c for c in report.applied if c.change.cause != RELAXED]
    if "niche" in switched_off(report):
        return "Niche construction was switched off in this run: verdicts moved no numbers."
    if not asked:
        return "No verdict moved a number in this run."
    causes = len({c.change.cause for c in asked})
    return (
        f"{len(asked)} changes for {causes} {'cause' if causes == 1 else 'different causes'}. Read "
        "each row from left to right: what the run saw in itself after a phase or in the midst of "
        "one, which number it moved because of that, and in which phases it was in force."
    )


def switched_off(report: FinalReport) -> tuple[str, ...]:
    """Return the mechanisms that the run's settings switched off."""
    names = report.config.get("without")
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()
