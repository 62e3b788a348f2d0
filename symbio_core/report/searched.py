"""What the report keeps of the generations: fusion, inherited weights, what time bought. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from symbio_core.records import Attempt, FusionCheck, Generation
from symbio_core.report.numbers import finite, finite_interval, ratio
from symbio_core.report.schema_search import (
    CandidateSummary,
    ConsensusSummary,
    FusionSummary,
    TransferSummary,
)


def fusion(generations: Sequence[Generation]) -> FusionSummary | None:
    """Return how the members of an attempt were kept together; None where nobody was pulled."""
    accepted = sum(g.fusions_accepted for g in generations)
    refused = sum(g.fusions_refused for g in generations)
    checks = tuple(_consensus(g.index, g.fusion) for g in generations if g.fusion is not None)
    if not (accepted or refused or checks):
        return None
    gaps = [gap for g in generations for gap in g.angle_gaps]
    # Every generation counts by the pulls behind its factor.
    slowed = sum(g.hidden_lr_factor * g.fusions_accepted for g in generations)
    return FusionSummary(
        sync=tuple(
            finite(float(np.mean([r for r in rung if r is not None])))
            for rung in zip_longest(*(g.sync for g in generations))
        ),
        widest_gap_rad=finite(max(gaps)) if gaps else None,
        accepted=accepted,
        refused=refused,
        hidden_lr_factor=finite(slowed / accepted) if accepted else None,
        checks=checks,
    )


def _consensus(generation: int, check: FusionCheck) -> ConsensusSummary:
    return ConsensusSummary(
        generation=generation,
        entropy_nats=tuple(finite(value) for value in check.entropy_nats),
        over_best_nats=finite_interval(check.consensus_nats),
        coupled_nats=finite_interval(check.coupled_nats),
        alone_nats=finite_interval(check.twin_nats),
    )


def transfers(generations: Sequence[Generation]) -> tuple[TransferSummary, ...]:
    """Return every child whose inherited weights were put to the test."""
    return tuple(
        TransferSummary(
            generation=g.index,
            formula=check.formula,
            warm_nats=finite_interval(check.warm_nats),
            cold_nats=finite_interval(check.cold_nats),
            above_frac=finite(check.above_frac),
            steps=check.steps,
        )
        for g in generations
        for check in g.transfers
    )


def candidates(attempts: Sequence[Attempt]) -> tuple[CandidateSummary, ...]:
    """Return what the time of every scored candidate bought."""
    found = []
    for generation in (g for attempt in attempts for g in attempt.outcome.generations):
        for member in generation.members:
            if member.score is None:
                continue
            gain, paid = (
                finite(-loss)
                for loss in (member.score.loss_nats.value, member.score.judged().value)
            )
            found.append(
                CandidateSummary(
                    generation=generation.index,
                    phase=generation.phase,
                    attempt=generation.attempt,
                    formula=member.candidate.formula,
                    gain_nats=gain,
                    cost=finite(member.score.cost),
                    gain_same_cost_nats=paid,
                    seconds=member.score.seconds,
                    gain_nats_per_s=ratio(gain, member.score.seconds),
                )
            )
    return tuple(found)
