"""One scale for scores that were taken against different parents. Pure.

Scores of one generation are differences to that generation's parent, so those of different
generations have no common zero. Here every measured trial is a difference between two functions,
and all of them together are solved for one level a function, in nats a token against the function
the run began with. A chain of parents adds up, a re-tested elite closes the chain and corrects it,
and the interval of a level grows with its distance from the origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from symbio_core.config import PhaseName
from symbio_core.records import Candidate, Interval, Record
from symbio_core.search.uncertainty import TRAINING_NOISE_NATS, standard_error

EARLY_NOISE_NATS = 0.02
"""Standard deviation a comparison gains for every doubling of steps it was short of the last rung.

Measured: between 50 and 150 steps after the switch, differences moved by 0.02 nat and more."""
PRIOR_NATS = 1.0
"""Prior spread of a level: wide enough to weigh nothing, narrow enough to solve a loose graph."""
ENOUGH_TRIALS = 6
"""Functions that must have been measured before they say what is usual."""
LEAST_SPREAD_NATS = 0.001
"""Least spread that functions are believed to have (nats a token)."""


class Trial(Record):
    """One candidate's life, as the lineage keeps it."""

    candidate: Candidate
    generation: int
    phase: PhaseName
    against: str
    """Formula of the control it was compared with."""
    fate: str
    rungs_short: int = 0
    """Rungs of its generation that it did not see."""
    loss_nats: Interval | None = None
    """Difference to the control when it ended (nats a token); None if it was never scored."""
    noise_nats: float = TRAINING_NOISE_NATS
    """What luck and a short look add to its spread (nats a token); far more from fresh weights."""

    @property
    def finished(self) -> bool:
        """It was scored at the last rung of its generation."""
        return self.rungs_short == 0 and self.is_measured

    @property
    def is_measured(self) -> bool:
        """There is a finite difference to the control, with a finite interval."""
        loss = self.loss_nats
        return loss is not None and all(map(math.isfinite, (loss.value, loss.low, loss.high)))


def levels_of(origin: str, lineage: Sequence[Trial]) -> dict[str, Interval]:
    """Return the loss of every function ever measured, on one scale (nats a token, 95% intervals).

    Each trial says level(candidate) − level(control) = difference, with variance se² + its own
    noise² + (early noise · rungs short)²; weighted least squares over all of them, level(origin) =
    0. The best of many owes something to luck, and a chain of winners would pile that luck up. So
    a function is also expected, before it is measured, to differ from its control as the run's
    candidates usually do (their median and their spread beyond noise, from six candidates on), and
    a level lies between expectation and measurement as far as either is sure. Siblings share
    their control's noise, which cancels between them and is not modelled. Cost grows with the cube
    of the number of functions (300 take a few milliseconds).

    Source:
        Rücker (2012), Network meta-analysis, electrical networks and graph theory, Research
        Synthesis Methods 3: effects and variances from the weighted Laplacian. Here the origin is
        grounded and a wide prior stands in for the pseudoinverse. Efron & Morris (1975), Data
        Analysis Using Stein's Estimator and Its Generalizations, JASA 70, for estimates drawn
        towards what is usual; here centre and spread are robust.
    """
    measured = [_edge(trial) for trial in lineage if trial.is_measured]
    edges = [*measured, *_expectations(origin, lineage)]
    names = dict.fromkeys([origin, *(name for edge in edges for name in edge[:2])])
    place = {name: index for index, name in enumerate(names)}
    precision = np.eye(len(place)) / PRIOR_NATS**2
    weighted = np.zeros(len(place))
    for name, against, value, variance in edges:
        i, j = place[name], place[against]
        precision[[i, j], [i, j]] += 1.0 / variance
        precision[[i, j], [j, i]] -= 1.0 / variance
        weighted[i] += value / variance
        weighted[j] -= value / variance
    return _solved(place, precision, weighted)


Edge = tuple[str, str, float, float]
"""level(first) − level(second) = value, with variance."""


def _edge(trial: Trial) -> Edge:
    assert trial.loss_nats is not None
    early = EARLY_NOISE_NATS * trial.rungs_short
    variance = standard_error(trial.loss_nats) ** 2 + trial.noise_nats**2 + early**2
    return trial.candidate.formula, trial.against, trial.loss_nats.value, variance


def _expectations(origin: str, lineage: Sequence[Trial]) -> list[Edge]:
    """Return what to expect of each new function before it was measured: the run's usual offspring.

    Centre and spread are those of all first trials, the spread without what noise adds to it. So
    the more the best of a generation owes to luck, the further it is drawn back.
    """
    first = {t.candidate.formula: t for t in reversed(lineage) if t.is_measured}
    first.pop(origin, None)
    edges = [_edge(trial) for trial in first.values()]
    if len(edges) < ENOUGH_TRIALS:
        return []
    values = np.array([value for *_, value, _ in edges])
    centre = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    # What short rungs add to the spread stays in: too wide an expectation draws back too little,
    # too narrow a one would deny real finds.
    own = max(spread**2 - TRAINING_NOISE_NATS**2, LEAST_SPREAD_NATS**2)
    return [(name, against, centre, own) for name, against, *_ in edges]


def _solved(
    place: Mapping[str, int], precision: np.ndarray, weighted: np.ndarray
) -> dict[str, Interval]:
    # The origin is the first name and stands at 0 by definition: its row and column fall away.
    free = slice(1, None)
    covariance = np.linalg.inv(precision[free, free])
    values = np.concatenate([[0.0], covariance @ weighted[free]])
    halves = NormalDist().inv_cdf(0.975) * np.sqrt(np.concatenate([[0.0], np.diag(covariance)]))
    return {
        name: Interval(
            value=float(values[i]),
            low=float(values[i] - halves[i]),
            high=float(values[i] + halves[i]),
        )
        for name, i in place.items()
    }
