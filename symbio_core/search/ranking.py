"""Who goes on: ranking inside a generation, selection of parents, and the winner. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from symbio_core.activations import distance, parse
from symbio_core.records import Candidate, Interval, Record, Score
from symbio_core.search.uncertainty import (
    EVAL_BATCHES,
    TRAINING_NOISE_NATS,
    standard_error,
    widened,
)

T = TypeVar("T")
Distance = Callable[[str, str], float]
"""Functional distance of two formulas (0..1)."""


class Ranked(Record):
    """A scored candidate and where it stands."""

    candidate: Candidate
    score: Score
    rank_value: float
    """What it is sorted by (spreads of the generation's losses); lower is better."""
    novelty: float
    """Functional distance to its nearest better sibling (0..1); 1 for the best."""


IsBehind = Callable[[Ranked, Ranked], bool]
"""Whether the first member is surely worse than the second."""


def functional_distance(a: str, b: str) -> float:
    """Return how far apart two formulas are as functions (0..1)."""
    return float(distance(parse(a), parse(b)))


def bonus_decay(position: float) -> float:
    """Return the share of the diversity bonus left at ``position`` of a phase: 1 falls to 0.

    Source:
        Loshchilov & Hutter (2017), SGDR, arXiv 1608.03983, eq. 5, with bounds 1 and 0.
    """
    return (1.0 + math.cos(math.pi * min(1.0, max(0.0, position)))) / 2.0


def rank(
    members: Sequence[tuple[Candidate, Score]],
    *,
    diversity_bonus: float,
    complexity_price: float,
    free_energy: float = 0.0,
    distance: Distance = functional_distance,
) -> tuple[Ranked, ...]:
    """Order a generation's members, best first.

    value = loss/spread − bonus·novelty + price·(nodes − 1). Loss is the paired difference to the
    control; spread is the generation's own (1.4826·MAD), but never below the median standard error
    of the scores, so that bonus and price keep their weight in a generation of near equals.
    The loss is taken at equal cost (`Score.judged`). One that is not finite comes last.

    Args:
        members: candidates with their scores (nats a token; lower is better).
        diversity_bonus: worth of novelty 1, in spreads.
        complexity_price: cost of a node beyond the first, in spreads.
        free_energy: β of the free energy loss + β·weight entropy that stands for the loss.
        distance: functional distance of two formulas (0..1).

    Source:
        Rousseeuw & Croux (1993), Alternatives to the Median Absolute Deviation, JASA 88, for the
        spread. The rule itself is symbio's own.
    """

    def loss_of(member: tuple[Candidate, Score]) -> float:
        value = member[1].judged(free_energy).value
        return value if math.isfinite(value) else math.inf

    by_loss = sorted(members, key=lambda member: (loss_of(member), member[0].nodes))
    spread = _spread([score.judged(free_energy) for _, score in by_loss])
    ranked: list[Ranked] = []
    for index, (candidate, score) in enumerate(by_loss):
        better = [other.formula for other, _ in by_loss[:index]]
        novelty = min((distance(candidate.formula, other) for other in better), default=1.0)
        loss = loss_of((candidate, score)) / spread
        price = complexity_price * (candidate.nodes - 1)
        value = loss - diversity_bonus * novelty + price
        ranked.append(Ranked(candidate=candidate, score=score, rank_value=value, novelty=novelty))
    return tuple(sorted(ranked, key=lambda r: r.rank_value))


def top_k(ordered: Sequence[T], k: int) -> tuple[T, ...]:
    """Return the first ``k`` of a sequence that stands best first."""
    return tuple(ordered[: max(0, k)])


def tournament(ordered: Sequence[T], rng: np.random.Generator, *, size: int = 2) -> T:
    """Draw ``size`` entrants with replacement from a best-first sequence; return the best of them.

    Source:
        Goldberg & Deb (1991), A Comparative Analysis of Selection Schemes Used in Genetic
        Algorithms, section 4. The chance to be picked falls linearly with rank at size 2.
    """
    return ordered[int(rng.integers(len(ordered), size=size).min())]


def select_winner(
    ranked: Sequence[Ranked],
    *,
    n_batches: int = EVAL_BATCHES,
    training_noise_nats: float = TRAINING_NOISE_NATS,
    free_energy: float = 0.0,
    is_behind: IsBehind | None = None,
) -> Ranked | None:
    """Return the member that takes over the main line, or None where the parent stays.

    A member takes over only if its interval, widened for the number of members compared here and
    for the noise of training itself, lies below zero. Of those that do, the simplest that is not
    behind the best of them wins: what a larger tree cannot show to be better is not worth its
    nodes. Diversity has no say: novelty buys trials, not the main line.

    Args:
        ranked: the members of the last rung, in any order.
        n_batches: evaluation batches behind each interval.
        training_noise_nats: standard deviation that repeating the training adds (nats a token).
        free_energy: β of the free energy loss + β·weight entropy that stands for the loss.
        is_behind: whether a member is surely worse than the best, paired with it batch by batch;
            None goes by whether its estimate lies within the best one's own interval.
    """
    judged = {m.candidate.formula: m.score.judged(free_energy) for m in ranked}

    def loss_of(member: Ranked) -> Interval:
        return judged[member.candidate.formula]

    surely = [
        member
        for member in ranked
        if math.isfinite(loss_of(member).value)
        and widened(
            loss_of(member),
            comparisons=len(ranked),
            training_noise_nats=training_noise_nats,
            n_batches=n_batches,
        ).below_zero
    ]
    if not surely:
        return None
    best = min(surely, key=lambda member: loss_of(member).value)
    behind = is_behind or (lambda member, first: loss_of(member).value > loss_of(first).high)
    level = [m for m in surely if m is best or not behind(m, best)]
    return min(level, key=lambda m: (m.candidate.nodes, loss_of(m).value))


def _spread(losses: Sequence[Interval]) -> float:
    finite = [loss for loss in losses if math.isfinite(loss.value)]
    if not finite:
        return 1.0
    values = np.array([loss.value for loss in finite])
    robust = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    errors = [standard_error(loss) for loss in finite]
    noise = float(np.median([error if math.isfinite(error) else 0.0 for error in errors]))
    return max(robust, noise) or float(values.std()) or 1.0
