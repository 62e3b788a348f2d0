"""What the search knows: lineage, hall of fame, known functions, and how long it found none. Pure.

Scores of one generation are differences to that generation's parent, so entries of different
generations have no common zero of their own. `levels` gives them one: every scored member is a
measured difference between two functions, and all of them together are solved for one level a
function, in nats a token against the function the run began with. A chain of parents adds up, a
re-tested elite closes the chain and corrects it, and the interval of a level grows with its
distance from the origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from symbio_core.activations import n_nodes, parse
from symbio_core.config import PhaseName
from symbio_core.records import Candidate, Generation, Interval, MemberRecord, Record
from symbio_core.search import pressure as pressures
from symbio_core.search.pressure import Pressure
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
COLLAPSED = 0.3
"""Diversity below this alarms (0..1)."""
LOCKED = 0.9
"""Order parameter above this alarms (0..1)."""


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

    @property
    def finished(self) -> bool:
        """It was scored at the last rung of its generation."""
        return self.rungs_short == 0 and self.is_measured

    @property
    def is_measured(self) -> bool:
        """There is a finite difference to the control, with a finite interval."""
        loss = self.loss_nats
        return loss is not None and all(map(math.isfinite, (loss.value, loss.low, loss.high)))


class HallEntry(Record):
    """A function that nothing at most as complex has beaten."""

    formula: str
    nodes: int
    loss_nats: Interval
    """Level against the function the run began with, on the common scale (nats a token)."""
    generation: int
    """Generation that first tried it; −1 for the origin."""
    phase: PhaseName
    parents: tuple[str, ...] = ()
    mutation: str = "origin"


class SearchState(Record):
    """Everything the search carries from generation to generation."""

    origin: str = "gelu(x)"
    """Function the run began with; its level is 0."""
    line: str = "gelu(x)"
    """Function of the main line after the last generation."""
    hall: tuple[HallEntry, ...] = ()
    """Pareto front of level and nodes, smallest first: the best of each complexity that earns its
    nodes."""
    lineage: tuple[Trial, ...] = ()
    known: tuple[str, ...] = ()
    """Formulas of every function that was ever tried or trained, in order."""
    generations: int = 0
    """Generations told."""
    dry: int = 0
    """Generations in a row without a find, in this attempt at this phase."""
    phase: PhaseName | None = None
    """Phase of the last generation."""
    attempt: int = 0
    """Attempt of the last generation."""
    pressure: Pressure = Pressure()


def initial_state(line: str = "gelu(x)") -> SearchState:
    """Return the state before the first generation, the main line running ``line``."""
    return SearchState(origin=line, line=line)


def levels(state: SearchState) -> dict[str, Interval]:
    """Return the loss of every function ever scored, on one scale (nats a token, 95% intervals).

    Each trial says level(candidate) − level(control) = difference, with variance se² + training
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
    return _levels(state.origin, state.lineage)


def front(state: SearchState) -> tuple[HallEntry, ...]:
    """Return the Pareto front of (level, nodes) of the origin and all that saw a last rung."""
    level = levels(state)
    entries = [_origin_entry(state)]
    seen = {state.origin}
    finished = {t.candidate.formula for t in state.lineage if t.finished}
    for trial in state.lineage:
        name = trial.candidate.formula
        if name in finished and name not in seen:
            seen.add(name)
            entries.append(_entry(trial, level[name]))
    entries.sort(key=lambda entry: (entry.nodes, entry.loss_nats.value))
    kept: list[HallEntry] = []
    for entry in entries:
        if not kept or entry.loss_nats.value < kept[-1].loss_nats.value:
            kept.append(entry)
    return tuple(kept)


def tell(state: SearchState, generation: Generation) -> SearchState:
    """Fold a finished generation into the state."""
    after = _grown(state, generation.members, generation.parent, generation.phase)
    here = (generation.phase, generation.attempt)
    dry = 0 if generation.found else 1 + (state.dry if here == (state.phase, state.attempt) else 0)
    return after.model_copy(
        update={
            "line": generation.winner,
            "hall": front(after),
            "generations": state.generations + 1,
            "dry": dry,
            "phase": generation.phase,
            "attempt": generation.attempt,
            "pressure": _pressure(state.pressure, generation, dry),
        }
    )


def front_after(
    state: SearchState, members: Sequence[MemberRecord], *, parent: str | None = None
) -> bool:
    """Say whether these members bring a function to the Pareto front that was not there.

    Args:
        state: as it was when the generation was proposed.
        members: the finished generation.
        parent: formula of its control; empty takes the line that the state remembers.
    """
    grown = _grown(state, members, parent or state.line, state.phase or "primordial")
    before = {grown.origin, *(entry.formula for entry in state.hall)}
    return any(entry.formula not in before for entry in front(grown))


def should_explore(
    state: SearchState,
    *,
    patience: int,
    extra_patience: int = 0,
    phase: str | None = None,
    attempt: int | None = None,
) -> bool:
    """Say whether another generation is worth its steps.

    Args:
        state: the search so far.
        patience: generations in a row without a find that are borne.
        extra_patience: more of them.
        phase: phase that asks; one that has bought no generation yet begins with fresh patience.
        attempt: attempt that asks, likewise.
    """
    is_new = (phase is not None and phase != state.phase) or (
        attempt is not None and attempt != state.attempt
    )
    return is_new or state.dry < patience + extra_patience


def _grown(
    state: SearchState, members: Sequence[MemberRecord], parent: str, phase: PhaseName
) -> SearchState:
    last = max((member.rung for member in members), default=0)
    trials = tuple(
        Trial(
            candidate=member.candidate,
            generation=state.generations,
            phase=phase,
            against=parent,
            fate=member.fate,
            rungs_short=last - member.rung,
            loss_nats=member.score.loss_nats if member.score else None,
        )
        for member in members
    )
    known = dict.fromkeys([*state.known, parent, *(t.candidate.formula for t in trials)])
    return state.model_copy(
        update={
            "origin": state.origin if state.generations else parent,
            "lineage": (*state.lineage, *trials),
            "known": tuple(known),
        }
    )


def _levels(origin: str, lineage: Sequence[Trial]) -> dict[str, Interval]:
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
    variance = standard_error(trial.loss_nats) ** 2 + TRAINING_NOISE_NATS**2 + early**2
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


def _origin_entry(state: SearchState) -> HallEntry:
    return HallEntry(
        formula=state.origin,
        nodes=n_nodes(parse(state.origin)),
        loss_nats=Interval(value=0.0, low=0.0, high=0.0),
        generation=-1,
        phase=state.lineage[0].phase if state.lineage else "abiogenesis",
    )


def _entry(trial: Trial, level: Interval) -> HallEntry:
    return HallEntry(
        formula=trial.candidate.formula,
        nodes=trial.candidate.nodes,
        loss_nats=level,
        generation=trial.generation,
        phase=trial.phase,
        parents=trial.candidate.parents,
        mutation=trial.candidate.mutation,
    )


def _pressure(pressure: Pressure, generation: Generation, dry: int) -> Pressure:
    won = [m.score for m in generation.members if m.fate == "won" and m.score is not None]
    alarms = []
    if len(generation.members) > 1 and generation.diversity < COLLAPSED:
        alarms.append(f"diversity {generation.diversity:.2f}")
    if generation.sync and generation.sync[-1] > LOCKED and not generation.found:
        alarms.append(f"order parameter {generation.sync[-1]:.2f}")
    return pressures.update(
        pressure,
        slope=won[0].loss_nats.value if won else 0.0,
        flat=2 * TRAINING_NOISE_NATS,
        plateau_gap=dry,
        alarms=alarms,
    )
