"""Overfitting told by siblings: a member, a population, a tree beside the others. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from symbio_core.config import GateSettings
from symbio_core.gates.evidence import TRAINING_NOISE_NATS, finding, trained_difference
from symbio_core.monitors import difference_interval
from symbio_core.records import Change, Generation, Interval, MemberRecord, Outcome, Verdict

COLLAPSED = 0.3
"""Functional diversity below which a population may have collapsed (0..1).

The mean distance of all pairs: gelu, silu and relu have 0.19 and five functions like relu² 0.15
(`activations.diversity`), so it is no proof by itself: related functions may still differ."""
ALIKE = 0.05
"""Distance to the nearest sibling below which two functions are hardly told apart (0..1).

gelu² and gelu·silu are 0.04 apart and 0.003 nats, less than the training noise; gelu and silu are
0.13 apart and 0.013 nats or more, which a rung can see."""
BLOATED = 6
"""Nodes above which an expression has to earn its size."""
SURE_WIN_NATS = 1.96 * math.sqrt(2.0) * TRAINING_NOISE_NATS
"""Lead on train that repeating two trainings seldom makes (nats a token); scores hold no interval
of it."""
MEDIAN_ERROR = math.sqrt(math.pi / 2.0)
"""Standard error of the median of normal values over that of their mean."""
MEMORISATION_CHANGES = (
    Change(setting="rung_scale", op="scale", value=0.5),
    Change(setting="mutation_scale", op="scale", value=1.5),
)
COLLAPSE_CHANGES = (
    Change(setting="immigrants", op="add", value=0.2),
    Change(setting="mutation_scale", op="scale", value=1.5),
    Change(setting="coupling_scale", op="scale", value=0.5),
)
COMPLEXITY_CHANGES = (
    Change(setting="price_scale", op="scale", value=2.0),
    Change(setting="extra_nodes", op="add", value=-2.0),
)


@dataclass(frozen=True, slots=True)
class _Opening:
    """How far a member's gap opened, and how far its siblings' did meanwhile."""

    formula: str
    own: Interval
    siblings: Interval


def memorisation(outcome: Outcome) -> Verdict:
    """Level 1: over its rungs a member's gap of validation over train opens beyond its siblings'.

    A member of one rung began it with the control's gap, so there the gap itself is what opened.
    """
    name = "candidate memorisation"
    metric = "growth of a member's gap beyond its siblings' (nats a token)"
    openings = [one for g in outcome.generations for one in _openings(g.members)]
    if not openings:
        reason = "no siblings to compare with" if outcome.generations else "no search in this phase"
        return finding(name, metric, reason, MEMORISATION_CHANGES)
    excesses = [
        trained_difference(one.own, one.siblings, comparisons=len(openings)) for one in openings
    ]
    worst = max(range(len(openings)), key=lambda i: excesses[i].low)
    failed = excesses[worst].above_zero
    reason = (
        f"{openings[worst].formula} learns its batches by heart: its gap of validation over train "
        f"grows {excesses[worst].value:.4f} nats a token beyond its siblings'"
        if failed
        else "no member's gap of validation over train surely outgrows its siblings'"
    )
    return finding(
        name, metric, reason, MEMORISATION_CHANGES, interval=excesses[worst], passed=not failed
    )


def _openings(members: Sequence[MemberRecord]) -> Iterator[_Opening]:
    for member in members:
        others = [m for m in members if m is not member and m.gaps]
        # The last rungs hold few members; what siblings showed is looked up where there were two.
        for rung in range(len(member.gaps) - 1, -1, -1):
            beside = [m.gaps for m in others if len(m.gaps) > rung]
            if len(beside) >= 2 or (beside and rung == 0):
                yield _Opening(
                    member.candidate.formula,
                    _grown(member.gaps, rung),
                    _median([_grown(gaps, rung) for gaps in beside]),
                )
                break


def _grown(gaps: Sequence[Interval], rung: int) -> Interval:
    return difference_interval(gaps[rung], gaps[0]) if rung else gaps[0]


def _median(intervals: Sequence[Interval]) -> Interval:
    value = float(np.median([interval.value for interval in intervals]))
    half = float(np.median([interval.high - interval.low for interval in intervals])) / 2.0
    half *= min(1.0, MEDIAN_ERROR / math.sqrt(len(intervals)))
    return Interval(
        value=value, low=value - half, high=value + half, confidence=intervals[0].confidence
    )


def collapse(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Level 2: the members became one function in different clothes, and nothing is found.

    Both the mean distance of all pairs and the median distance to the nearest better sibling have
    to be small: the first alone would call a close family one function, the second two clusters.
    """
    name, metric = "population collapse", "functional diversity (0..1)"
    last = outcome.generations[-1] if outcome.generations else None
    failed, reason = False, "no search in this phase"
    if last is not None:
        nearest = last.typical_novelty
        alike = len(last.members) >= 2 and last.diversity < COLLAPSED and nearest < ALIKE
        failed = alike and not last.found
        reason = f"the {len(last.members)} candidates differ enough, or one of them is better"
        if failed:
            reason = (
                f"the {len(last.members)} candidates are nearly one function (most are within "
                f"{nearest:.2f} of a sibling) and none is better"
            )
    return Verdict(
        gate="overfitting",
        name=name,
        metric=metric,
        value=last.diversity if last else COLLAPSED,
        interval=last.diversity_interval(gates.confidence) if last else None,
        threshold=COLLAPSED,
        passed=not failed,
        reason=reason,
        changes=COLLAPSE_CHANGES,
    )


def complexity(outcome: Outcome) -> Verdict:
    """Level 4: a large tree wins on train and surely loses on validation to a simpler sibling.

    The lead on train has to exceed the noise of training too: among equals one always leads.
    """
    name = "complexity overfitting"
    metric = "validation loss above a simpler sibling's (nats a token)"
    pairs = [pair for g in outcome.generations for pair in _large_and_small(g)]
    gaps = [trained_difference(_val(a), _val(b), comparisons=len(pairs)) for a, b in pairs]
    found = [
        (gap, large, small)
        for gap, (large, small) in zip(gaps, pairs, strict=True)
        if _train(large) < _train(small) - SURE_WIN_NATS
    ]
    if not found:
        searched = "no large tree buys train with validation"
        reason = searched if outcome.generations else "no search in this phase"
        return finding(name, metric, reason, COMPLEXITY_CHANGES)
    gap, large, small = max(found, key=lambda one: one[0].low)
    reason = (
        f"{large.candidate.formula} ({large.candidate.nodes} nodes) beats "
        f"{small.candidate.formula} on train and loses to it on validation"
        if gap.above_zero
        else "no large tree surely buys train with validation"
    )
    return finding(
        name, metric, reason, COMPLEXITY_CHANGES, interval=gap, passed=not gap.above_zero
    )


def _large_and_small(generation: Generation) -> list[tuple[MemberRecord, MemberRecord]]:
    scored = [member for member in generation.members if member.score is not None]
    return [
        (large, small)
        for large in scored
        for small in scored
        if large.candidate.nodes > BLOATED
        and small.candidate.nodes < large.candidate.nodes
        and large.rung == small.rung
    ]


def _val(member: MemberRecord) -> Interval:
    assert member.score is not None
    return member.score.loss_nats


def _train(member: MemberRecord) -> float:
    assert member.score is not None
    return member.score.train_nats
