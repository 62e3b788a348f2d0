"""From verdicts to moved numbers to the phases that felt them: the trail of a run's own hand. Pure.

The table of it is the evidence of niche construction and of autopoiesis: what the run saw in
itself, what it moved because of that, and which phases then ran otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from symbio_core.config import PHASES, RunConfig
from symbio_core.records import AppliedChange, Attempt, Verdict
from symbio_core.report import dials
from symbio_core.report.cells import FIRM, MINUS, brief, caption, folded, ranged, table, where
from symbio_core.report.numbers import finite, finite_interval
from symbio_core.report.schema import ChangeSummary, NumberChange, VerdictSummary

RELAXED = "relaxation"
"""Cause of a change that nobody asked for: a number on its way back to neutral."""


def changes(config: RunConfig, attempts: Sequence[Attempt]) -> tuple[ChangeSummary, ...]:
    """Return every change of a number, with the verdict that caused it and the phases it reached.

    A change reaches the attempts that follow it until a later decision moves the same number.
    """
    found = []
    for index, attempt in enumerate(attempts):
        following = attempts[index + 1 :]
        found += _at_once(config, attempt, following)
        for change in _moved(attempt, following[:1]):
            verdict = next((v for v in attempt.verdicts if v.name == change.cause), None)
            found.append(
                ChangeSummary(
                    phase=attempt.outcome.phase,
                    attempt=attempt.outcome.attempt,
                    step=None,
                    change=change,
                    number=dials.label(change.setting),
                    reason=_reason(attempt, change, verdict),
                    seen=None if verdict is None else verdict_summary(verdict),
                    effects=_effects(config, attempt, change, following),
                )
            )
    return tuple(found)


def _at_once(
    config: RunConfig, attempt: Attempt, following: Sequence[Attempt]
) -> list[ChangeSummary]:
    """Return what a phase changed while it ran: the rest of it is the first that felt it."""
    return [
        ChangeSummary(
            phase=attempt.outcome.phase,
            attempt=attempt.outcome.attempt,
            step=response.line_steps,
            change=change,
            number=dials.label(change.setting),
            reason=response.verdict.reason,
            seen=verdict_summary(response.verdict),
            effects=(
                *_felt_in(config, attempt, change),
                *_later(config, change, change.after, following),
            ),
        )
        for response in attempt.outcome.responses
        for change in response.applied
    ]


def verdict_summary(verdict: Verdict) -> VerdictSummary:
    """Return a verdict as the report tells it; numbers that are not finite are None."""
    return VerdictSummary(
        gate=verdict.gate,
        name=verdict.name,
        passed=verdict.passed,
        metric=verdict.metric,
        value=finite(verdict.value),
        interval=finite_interval(verdict.interval),
        threshold=finite(verdict.threshold),
        reason=verdict.reason,
    )


def _moved(attempt: Attempt, following: Sequence[Attempt]) -> list[AppliedChange]:
    applied = list(attempt.decision.applied)
    before = attempt.plan.lr_scale
    after = following[0].plan.lr_scale if following else before
    if after != before:
        setting = dials.AFTER_DIVERGENCE
        applied.append(
            AppliedChange(setting=setting, before=before, after=after, cause="divergence")
        )
    return applied


def _reason(attempt: Attempt, change: AppliedChange, verdict: Verdict | None) -> str:
    if verdict is not None:
        return verdict.reason
    if change.cause == RELAXED:
        return "no verdict asked for it again"
    return attempt.decision.reason if change.cause == "divergence" else ""


def _effects(
    config: RunConfig, attempt: Attempt, change: AppliedChange, following: Sequence[Attempt]
) -> tuple[NumberChange, ...]:
    decided = getattr(attempt.decision.adaptation, change.setting, change.after)
    return _later(config, change, decided, following)


def _later(
    config: RunConfig, change: AppliedChange, stands: float, following: Sequence[Attempt]
) -> tuple[NumberChange, ...]:
    found: list[NumberChange] = []
    for later in following:
        if dials.position(later.plan, change.setting) != stands:
            break
        found += _felt_in(config, later, change)
    return tuple(found)


def _felt_in(
    config: RunConfig, attempt: Attempt, change: AppliedChange
) -> tuple[NumberChange, ...]:
    """Return an attempt's own number before and after a change; none where it feels nothing."""
    before, after = (
        dials.value_in(config, attempt.plan, change.setting, value)
        for value in (change.before, change.after)
    )
    if before is None or after is None:
        return ()
    phase, attempted = attempt.outcome.phase, attempt.outcome.attempt
    return (NumberChange(phase=phase, attempt=attempted, before=before, after=after),)


def trail(applied: Sequence[ChangeSummary]) -> str:
    """Show seen → moved → felt, one change a row; numbers on their way back are folded."""
    asked = [c for c in applied if c.change.cause != RELAXED]
    relaxed = [c for c in applied if c.change.cause == RELAXED]
    parts = [table(_rows(asked), prose=["what it saw", "what it moved", "felt in"])]
    if relaxed:
        parts.append(
            folded(
                f"Numbers on their way back to neutral ({len(relaxed)})",
                caption(
                    "A number goes half way back whenever the run advances without need of it."
                ),
                table(_rows(relaxed), prose=["what it saw", "what it moved", "felt in"]),
            )
        )
    return "".join(parts)


def _rows(applied: Sequence[ChangeSummary]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    above: tuple[str, int, int | None, str] | None = None
    for c in applied:
        cause = (c.phase, c.attempt, c.step, c.change.cause)
        rows.append(
            {
                "after": _when(c),
                "what it saw": f"{c.change.cause}, as above" if cause == above else _seen(c),
                "what it moved": _move(c.change),
                "felt in": _felt(c),
            }
        )
        above = cause
    return rows


def _when(summary: ChangeSummary) -> str:
    place = where(summary.phase, summary.attempt)
    return place if summary.step is None else f"{place}, at its step {summary.step}"


def _seen(summary: ChangeSummary) -> str:
    cause = summary.change.cause
    said = f"{cause}: {summary.reason}" if summary.reason else cause
    return said if summary.seen is None else f"{said}\n{measured(summary.seen)}"


def measured(verdict: VerdictSummary) -> str:
    """Return a verdict's figure in words: value, interval, where the line is drawn."""
    if verdict.value is None:
        return f"{verdict.metric}: not a number"
    known = verdict.interval
    value = brief(verdict.value)
    if known is not None:
        value = f"{ranged(known, '.3g')}, {known.confidence:.0%} sure"
    limit = "" if verdict.threshold is None else f"; limit {brief(verdict.threshold)}"
    return f"{verdict.metric}: {value}{limit}"


def _move(change: AppliedChange) -> str:
    # The journal's own numbers, unrounded, so that the row can be found there.
    scale = f"{change.before:.6g}{FIRM}→{FIRM}{change.after:.6g}".replace("-", MINUS)
    return f"{dials.in_words(change)}\n({change.setting} {scale})"


def _felt(summary: ChangeSummary) -> str:
    under: dict[str, list[str]] = {}
    for effect in summary.effects:
        phases = under.setdefault(_stretch(summary.change.setting, effect), [])
        phases += [effect.phase] if effect.phase not in phases else []
    lines = [f"{_span(phases)}: {moved}" for moved, phases in under.items()]
    return "\n".join(lines) or "no later phase that uses the number"


def _span(phases: Sequence[str]) -> str:
    places = [PHASES.index(phase) for phase in phases]
    in_a_row = places == list(range(places[0], places[0] + len(places)))
    if len(phases) > 2 and in_a_row:
        return f"{phases[0]} to {phases[-1]}"
    return ", ".join(phases)


def _stretch(setting: str, effect: NumberChange) -> str:
    if effect.before == effect.after:
        return f"stays {dials.told(setting, effect.after)}"
    return dials.path(setting, effect.before, effect.after)
