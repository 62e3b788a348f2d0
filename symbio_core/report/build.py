"""From a run's journal to its final report. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.config import PHASES, RunConfig
from symbio_core.records import (
    Attempt,
    CheckpointRef,
    Confirmation,
    Environment,
    RunState,
)
from symbio_core.report.answer import sentence
from symbio_core.report.niche import changes, verdict_summary
from symbio_core.report.numbers import finite, finite_interval, ratio
from symbio_core.report.schema import (
    AttemptSummary,
    CheckpointSummary,
    CostSummary,
    DecisionSummary,
    Efficiency,
    FinalReport,
    Steps,
    Totals,
)
from symbio_core.report.schema_search import Span
from symbio_core.report.searched import candidates, fusion, transfers
from symbio_core.report.settled import settled_final

WENT_BACK = ("repeat", "rollback")
"""Decisions after which what the attempt trained is thrown away."""


def build(
    *,
    run_id: str,
    config: RunConfig,
    attempts: Sequence[Attempt],
    state: RunState,
    confirmation: Confirmation | None,
    environment: Environment,
    started: str,
    ended: str,
    shipped: CheckpointRef,
) -> FinalReport:
    """Summarise a run; the same arguments always give the same report.

    Args:
        run_id: name of the run.
        config: the settings it ran under.
        attempts: every attempt at a phase, in the order of the journal.
        state: the journal's fold when the run ended.
        confirmation: the final's record; None where the run did not come so far.
        environment: where it ran.
        started: when it began (ISO 8601), as the journal tells it.
        ended: when it ended (ISO 8601).
        shipped: the checkpoint that the exported model is made from.

    Returns:
        The report. A number that was not finite is None, and a confirmation with such a number
        counts as none, with the reason said.
    """
    on_gpu = environment.device.startswith("cuda")
    finished = state.finished or "the run was not finished when this report was made"
    settled, why_not = settled_final(config, confirmation, attempts, finished)
    winner = settled.winner if settled else shipped.formula
    return FinalReport(
        run_id=run_id,
        verdict=verdict_sentence(settled, winner=winner, why_not=why_not),
        winner=winner,
        shipped=_checkpoint(shipped),
        confirmation=settled,
        no_confirmation=why_not,
        phases=tuple(_attempt(attempt) for attempt in attempts),
        applied=changes(config, attempts),
        efficiency=_efficiency(attempts, on_gpu=on_gpu),
        candidates=candidates(attempts),
        dormant=tuple(_checkpoint(ref) for ref in state.dormant),
        totals=_totals(config, attempts, state, on_gpu=on_gpu),
        cost=_cost(config, state),
        flags=state.flags,
        finished=finished,
        started=started,
        ended=ended,
        environment=environment,
        config=config.model_dump(mode="json"),
    )


def verdict_sentence(
    confirmation: Confirmation | None, *, winner: str = "", why_not: str | None = None
) -> str:
    """Say in one line what the run found out about activations.

    Args:
        confirmation: the final's record; effect, certainty and cost are told from its numbers.
        winner: formula that would have stood in the final, named where there was none.
        why_not: why there was no final.
    """
    if confirmation is not None:
        return sentence(confirmation)
    who = winner or "the evolved function"
    why = " ".join((why_not or "the run ended without a final").split()).rstrip(".")
    return f"Not measured: {why}; whether {who} beats GELU, SiLU and ReLU² is unknown."


def _attempt(attempt: Attempt) -> AttemptSummary:
    outcome, battery = attempt.outcome, attempt.battery
    ends = outcome.points[:1] + outcome.points[-1:]
    return AttemptSummary(
        phase=outcome.phase,
        attempt=outcome.attempt,
        formula=outcome.end.formula,
        steps=_steps([attempt]),
        train_nats=_span([point.train_nats for point in ends]),
        val_nats=_span([point.val_nats for point in ends]),
        val_bpb=finite(ends[-1].val_bpb if ends else outcome.end.val_bpb),
        quality=finite_interval(battery.quality),
        longest_verbatim=battery.longest_verbatim,
        verbatim_frac=finite(battery.verbatim_frac),
        verdicts=tuple(verdict_summary(verdict) for verdict in attempt.verdicts),
        decision=DecisionSummary(
            kind=attempt.decision.kind,
            rule=attempt.decision.rule,
            reason=attempt.decision.reason,
            start=attempt.decision.start,
            flagged=attempt.decision.flagged,
        ),
        generations=len(outcome.generations),
        candidates=_candidates([attempt]),
        skipped=outcome.skipped,
        stopped=outcome.stopped,
        stop_reason=outcome.reason,
        alarms=outcome.alarms,
        fusion=fusion(outcome.generations),
        transfers=transfers(outcome.generations),
        tokens=outcome.tokens,
        seconds=outcome.seconds,
        tokens_per_s=ratio(outcome.tokens, outcome.seconds),
    )


def _efficiency(attempts: Sequence[Attempt], *, on_gpu: bool) -> tuple[Efficiency, ...]:
    rows = []
    for phase in PHASES:
        tries = [a for a in attempts if a.outcome.phase == phase]
        if not tries:
            continue
        # What a try that the run went back from had brought is lost; its time is not.
        falls = [_attempt(a).val_nats.fall for a in tries if a.decision.kind not in WENT_BACK]
        known = [fall for fall in falls if fall is not None]
        fall = sum(known) if known or not falls else None
        seconds = sum(a.outcome.seconds for a in tries)
        rows.append(
            Efficiency(
                phase=tries[0].outcome.phase,
                attempts=len(tries),
                fall_nats=fall,
                seconds=seconds,
                gpu_seconds=seconds if on_gpu else 0.0,
                fall_nats_per_s=ratio(fall, seconds),
            )
        )
    return tuple(rows)


def _totals(
    config: RunConfig, attempts: Sequence[Attempt], state: RunState, *, on_gpu: bool
) -> Totals:
    points = [p.val_nats for a in attempts for p in a.outcome.points if math.isfinite(p.val_nats)]
    seconds = sum(a.outcome.seconds for a in attempts)
    tokens = sum(a.outcome.tokens for a in attempts)
    fall = points[0] - points[-1] if points else None
    return Totals(
        steps=_steps(attempts),
        budget_steps=config.budget.steps,
        seconds=seconds,
        gpu_seconds=seconds if on_gpu else 0.0,
        tokens=tokens,
        tokens_per_s=ratio(tokens, seconds),
        attempts=len(attempts),
        rollbacks=state.rollbacks,
        generations=sum(len(a.outcome.generations) for a in attempts),
        candidates=_candidates(attempts),
        fall_nats=fall,
        fall_nats_per_s=ratio(fall, seconds),
    )


def _cost(config: RunConfig, state: RunState) -> CostSummary | None:
    if not state.machines:
        return None
    return CostSummary(
        machines=state.machines,
        seconds=sum(one.seconds for one in state.machines),
        billed_s=sum(one.billed_s for one in state.machines),
        usd=sum(one.usd for one in state.machines),
        cap_usd=config.budget.max_usd,
    )


def _steps(attempts: Sequence[Attempt]) -> Steps:
    return Steps(
        line=sum(a.outcome.line_steps for a in attempts),
        search=sum(a.outcome.search_steps for a in attempts),
        confirm=sum(a.outcome.confirm_steps for a in attempts),
    )


def _candidates(attempts: Sequence[Attempt]) -> int:
    generations = (g for a in attempts for g in a.outcome.generations)
    return sum(member.score is not None for g in generations for member in g.members)


def _checkpoint(ref: CheckpointRef) -> CheckpointSummary:
    return CheckpointSummary(
        id=ref.id,
        phase=ref.phase,
        attempt=ref.attempt,
        step=ref.step,
        formula=ref.formula,
        val_bpb=finite(ref.val_bpb),
        serves=ref.serves,
        weights_bpb={name: finite(bpb) for name, bpb in ref.weights_bpb.items()},
        quality=finite_interval(ref.quality),
    )


def _span(ends: Sequence[float]) -> Span:
    return Span(start=finite(ends[0]), end=finite(ends[-1])) if ends else Span(start=None, end=None)
