"""Tables of the final, the phases, the gates and the settings. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from symbio_core.config import PhaseTable
from symbio_core.records import Attempt, Confirmation, Contender, Effect
from symbio_core.report.answer import is_sure, own_name, relative_cost
from symbio_core.report.cells import FIRM, NONE, count, duration, fixed, ranged, table, where
from symbio_core.report.schema import AttemptSummary, CheckpointSummary, FinalReport
from symbio_core.report.schema_search import CandidateSummary, Span

DECISIONS = {
    "advance": "advance",
    "repeat": "repeat the phase",
    "rollback": "roll back",
    "dormant": "store as dormant, go on from the best",
    "finish": "finish",
    "ask": "ask a person",
}


WEIGHTS = {
    "live": "as trained (live)",
    "ema": "moving average of them (EMA)",
    "shadow": "consensus of those fused with them (shadow)",
}
MOST_CANDIDATES = 12
"""Candidates whose economy is shown; final-report.json holds all."""


def _way(span: Span, digits: int = 3) -> str:
    return f"{fixed(span.start, digits)}{FIRM}→{FIRM}{fixed(span.end, digits)}"


def _of(summary: AttemptSummary) -> str:
    return where(summary.phase, summary.attempt)


def contenders(confirmation: Confirmation) -> str:
    """List the functions of the final with loss and cost, best first."""
    own = next((c for c in confirmation.contenders if c.formula == confirmation.winner), None)
    rows = [_contender(c, own) for c in sorted(confirmation.contenders, key=lambda c: c.bpb)]
    timed = "the same at equal time"
    if not any(c.nats_same_cost for c in confirmation.contenders):
        rows = [{name: value for name, value in row.items() if name != timed} for row in rows]
    return table(
        rows,
        code=["formula"],
        numbers=["bits a byte", "a step takes", "its cost"],
    )


def _contender(contender: Contender, own: Contender | None) -> dict[str, object]:
    cost = None if own is None else relative_cost(contender, own)
    return {
        "function": contender.name if contender.name != "evolved" else "the evolved one",
        "formula": contender.formula,
        "bits a byte": fixed(contender.bpb),
        "nats a token, seed by seed": ", ".join(fixed(x) for x in contender.nats),
        "the same at equal time": ", ".join(fixed(x) for x in contender.nats_same_cost),
        "a step takes": f"{1000 * contender.seconds_per_step:.1f} ms",
        "its cost": None if cost is None else f"× {cost:.2f}",
    }


def effects(confirmation: Confirmation) -> str:
    """List the winner's differences to each fixed function, at equal steps and at equal time."""
    steps = f"{count(confirmation.steps_each)} steps each"
    own = own_name(confirmation)
    rows = [_effect(e, own, steps) for e in confirmation.effects]
    rows += [_effect(e, own, "equal time") for e in confirmation.effects_seconds]
    if not confirmation.effects_seconds:
        rows = [{name: value for name, value in row.items() if name != "after"} for row in rows]
    return table(rows, numbers=["p"], tight=["after"])


def _effect(effect: Effect, own: str, basis: str) -> dict[str, object]:
    return {
        "against": effect.against,
        "after": basis,
        "bits a byte": ranged(effect.bpb),
        "nats a token": ranged(effect.loss_nats),
        "p": f"{effect.p_value:.3g}",
        "in words": _effect_in_words(effect, own),
    }


def _effect_in_words(effect: Effect, own: str) -> str:
    # The interval stands for itself; the corrected p-value has the last word.
    if not is_sure(effect):
        return "not sure"
    return f"{own} is better" if effect.loss_nats.below_zero else f"{effect.against} is better"


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
    return table(rows, code=["activation at its end"], numbers=["bits a byte"], prose=["what for"])


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


def layers(attempts: Sequence[Attempt]) -> str:
    """List what the FFN of each layer did at the end of the first and of the last attempt."""
    read = [attempt for attempt in attempts if attempt.outcome.layers]
    if not read:
        return ""
    first, last = read[0].outcome.layers, read[-1].outcome.layers
    rows = [
        {
            "layer": number,
            "directions in use": _moved(a.effective_rank, b.effective_rank, 0),
            "of": b.width,
            "input → hidden (nats)": _moved(a.input_hidden_nats, b.input_hidden_nats, 3),
            "hidden → output (nats)": _moved(a.hidden_output_nats, b.hidden_output_nats, 3),
            "weight entropy (nats)": _moved(a.weight_entropy_nats, b.weight_entropy_nats, 2),
        }
        for number, (a, b) in enumerate(zip(first, last, strict=True), 1)
    ]
    return table(rows, numbers=list(rows[0]))


def _moved(before: float, after: float, digits: int) -> str:
    return f"{before:.{digits}f} → {after:.{digits}f}"


def weights(shipped: CheckpointSummary) -> str:
    """List the validation loss of each of a checkpoint's weights, and which of them ship."""
    rows = [
        {
            "weights": WEIGHTS[name],
            "bits a byte": fixed(bpb),
            "in words": "ship" if name == shipped.serves else "",
        }
        for name, bpb in shipped.weights_bpb.items()
    ]
    return table(rows, numbers=["bits a byte"])


def efficiency(report: FinalReport) -> str:
    """List what the time of each phase bought."""
    unit = f"millinats a {second_of(report)}"
    rows = [
        {
            "phase": e.phase,
            "attempts": e.attempts,
            "validation loss fell by (nats a token)": fixed(e.fall_nats),
            "time": duration(e.seconds),
            unit: milli(e.fall_nats_per_s),
        }
        for e in report.efficiency
    ]
    return table(rows, numbers=list(rows[0])[1:] if rows else [])


def economy(report: FinalReport) -> str:
    """List the candidates whose time bought most, one row a function."""
    unit = f"millinats a {second_of(report)}"
    best: dict[str, CandidateSummary] = {}
    for candidate in report.candidates:
        rival = best.get(candidate.formula)
        if rival is None or _gain(candidate) > _gain(rival):
            best[candidate.formula] = candidate
    ranked = sorted(best.values(), key=_gain, reverse=True)[:MOST_CANDIDATES]
    rows = [
        {
            "formula": c.formula,
            "generation": c.generation + 1,
            "gain over the one in charge (nats a token)": fixed(c.gain_nats),
            "a step costs": None if c.cost is None else f"× {c.cost:.2f}",
            "gain at equal cost": fixed(c.gain_same_cost_nats),
            "time": duration(c.seconds),
            unit: milli(c.gain_nats_per_s),
        }
        for c in ranked
    ]
    return table(rows, code=["formula"], numbers=list(rows[0])[1:] if rows else [])


def _gain(candidate: CandidateSummary) -> float:
    return -math.inf if candidate.gain_nats_per_s is None else candidate.gain_nats_per_s


def second_of(report: FinalReport) -> str:
    """Return what a second of this run was a second of."""
    return "GPU-second" if report.totals.gpu_seconds else "processor second"


def milli(nats: float | None) -> str:
    """Return a loss in thousandths of a nat."""
    return fixed(None if nats is None else 1000 * nats, 2)


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
