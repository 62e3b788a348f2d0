"""Tables of the page, from pandas to escaped HTML. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from symbio_core.records import Confirmation, Generation, Interval, MemberRecord
from symbio_core.report.schema import AttemptSummary, ChangeSummary, FinalReport, Span

Row = dict[str, Any]
NONE = "–"
DECISIONS = {
    "advance": "advance",
    "repeat": "repeat the phase",
    "rollback": "roll back",
    "dormant": "store as dormant, go on from the best",
    "finish": "finish",
    "ask": "ask a person",
}
SECONDS_UP_TO = 90
"""Longer times are told in minutes and seconds, or hours and minutes."""


def table(rows: Sequence[Row], *, code: Sequence[str] = (), numbers: Sequence[str] = ()) -> str:
    """Return rows as an HTML table in a box that scrolls by itself; every cell is escaped.

    Args:
        rows: dicts with the same keys, which become the headings.
        code: headings of columns with formulas or names of settings, set in a fixed width.
        numbers: headings of columns that stand flush right.
    """
    if not rows:
        return '<p class="none">None.</p>'
    frame = pd.DataFrame([{key: _cell(value) for key, value in row.items()} for row in rows])
    places = {str(name): index + 1 for index, name in enumerate(frame.columns)}
    classes = [f"code-{places[name]}" for name in code if name in places]
    classes += [f"number-{places[name]}" for name in numbers if name in places]
    with pd.option_context("display.max_colwidth", None):
        text = frame.to_html(
            index=False, border=0, escape=True, justify="unset", classes=classes or None
        )
    return f'<div class="scroll" tabindex="0">{text}</div>'


def _cell(value: object) -> str:
    return NONE if value is None or value == "" else str(value)


def fixed(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def ranged(interval: Interval | None, form: str = "+.4f") -> str:
    """Return an estimate and its range, or a dash where there is none."""
    if interval is None:
        return NONE
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds <= SECONDS_UP_TO:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int) -> str:
    """Return a whole number with thin spaces between its thousands."""
    return f"{number:,}".replace(",", "\u2009")


def _way(span: Span, digits: int = 3) -> str:
    return f"{fixed(span.start, digits)} → {fixed(span.end, digits)}"


def _where(phase: str, attempt: int) -> str:
    return phase if attempt == 1 else f"{phase} (try {attempt})"


def _of(summary: AttemptSummary) -> str:
    return _where(summary.phase, summary.attempt)


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
    return table(rows, code=["formula"], numbers=["bits a byte", "ms a step"])


def effects(confirmation: Confirmation) -> str:
    """List the winner's differences to each fixed function."""
    rows = [
        {
            "against": e.against,
            "bits a byte": ranged(e.bpb),
            "nats a token": ranged(e.loss_nats),
            "p": f"{e.p_value:.3g}",
            "in words": _effect_in_words(e.loss_nats),
        }
        for e in confirmation.effects
    ]
    return table(rows, numbers=["p"])


def _effect_in_words(interval: Interval) -> str:
    if interval.below_zero:
        return "evolved is better"
    return "fixed is better" if interval.above_zero else "no sure difference"


def phases(report: FinalReport) -> str:
    """List every attempt at a phase with what it spent and reached."""
    rows = [
        {
            "phase": _of(a),
            "activation at its end": a.formula,
            "steps: line": count(a.steps.line),
            "search": count(a.steps.search),
            "final": count(a.steps.confirm),
            "train (nats a token)": _way(a.train_nats),
            "validation (nats a token)": _way(a.val_nats),
            "bits a byte": fixed(a.val_bpb, 3),
            "quality (0 to 1)": ranged(a.quality, ".2f"),
            "time": duration(a.seconds),
            "tokens/s": NONE if a.tokens_per_s is None else count(round(a.tokens_per_s)),
        }
        for a in report.phases
    ]
    right = ["steps: line", "search", "final", "bits a byte", "time", "tokens/s"]
    return table(rows, code=["activation at its end"], numbers=right)


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
    return table(rows, code=["went on from"])


def changes(applied: Sequence[ChangeSummary]) -> str:
    """List the settings that verdicts moved."""
    rows = [
        {
            "after": _where(c.phase, c.attempt),
            "setting": c.change.setting,
            "before": f"{c.change.before:.4g}",
            "now": f"{c.change.after:.4g}",
            "cause": c.change.cause,
            "what was seen": c.reason,
        }
        for c in applied
    ]
    return table(rows, code=["setting"], numbers=["before", "now"])


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
    return table(rows, numbers=["threshold"])


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


def hall_of_fame(generations: Sequence[Generation]) -> str:
    """List the best function of each size among those that trained longest in their generation."""
    best: dict[int, tuple[Generation, MemberRecord]] = {}
    for generation in generations:
        for member in _finalists(generation):
            nodes = member.candidate.nodes
            if nodes not in best or _loss(member) < _loss(best[nodes][1]):
                best[nodes] = (generation, member)
    rows, lowest = [], float("inf")
    for nodes, (generation, member) in sorted(best.items()):
        loss, moved = _loss(member), _loss(member) < lowest
        lowest = min(lowest, loss)
        rows.append(
            {
                "nodes": nodes,
                "formula": member.candidate.formula,
                "nats a token against the one in charge": ranged(
                    member.score.loss_nats if member.score else None
                ),
                "in charge then": generation.parent,
                "generation": generation.index + 1,
                "better than all smaller ones": "yes" if moved else "no",
            }
        )
    return table(rows, code=["formula", "in charge then"], numbers=["nodes", "generation"])


def _finalists(generation: Generation) -> list[MemberRecord]:
    scored = [m for m in generation.members if m.score is not None]
    last = max((m.rung for m in scored), default=0)
    return [m for m in scored if m.rung == last]


def _loss(member: MemberRecord) -> float:
    assert member.score is not None
    return member.score.loss_nats.value


def generations(found: Sequence[Generation]) -> str:
    """List what each generation cost and found."""
    rows = [
        {
            "generation": g.index + 1,
            "phase": _where(g.phase, g.attempt),
            "in charge": g.parent,
            "went on with": g.winner if g.found else f"{g.winner} (nothing surely better)",
            "candidates": len(g.members),
            "known already": f"{g.duplicates} of {g.proposals}",
            "diversity": fixed(g.diversity, 2),
            "sync r": fixed(g.sync[-1], 2) if g.sync else NONE,
            "fusions taken": f"{g.fusions_accepted} of {g.fusions_accepted + g.fusions_refused}",
            "learning rate by fusion": f"× {g.hidden_lr_factor:.3f}",
            "steps": count(g.steps),
            "time": duration(g.seconds),
        }
        for g in found
    ]
    right = ["generation", "candidates", "diversity", "sync r", "steps", "time"]
    return table(rows, code=["in charge", "went on with"], numbers=right)


def candidates(found: Sequence[Generation]) -> str:
    """List every candidate: where it came from, how it did, why it went."""
    rows = [
        {
            "generation": g.index + 1,
            "formula": m.candidate.formula,
            "nodes": m.candidate.nodes,
            "came by": m.candidate.mutation,
            "parents": " and ".join(m.candidate.parents),
            "nats a token against the one in charge": ranged(
                m.score.loss_nats if m.score else None
            ),
            "steps": m.score.steps if m.score else None,
            "fate": m.fate,
        }
        for g in found
        for m in g.members
    ]
    return table(rows, code=["formula", "parents"], numbers=["generation", "nodes", "steps"])


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return names and values as a definition list, escaped."""
    inner = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(_cell(value))}</dd></div>"
        for name, value in pairs
    )
    return f'<dl class="facts">{inner}</dl>'


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
