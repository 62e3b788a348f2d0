"""What the search knows: lineage, hall of fame, known functions, patience, pressure. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from symbio_core.activations import n_nodes, parse
from symbio_core.config import PhaseName
from symbio_core.records import Generation, Interval, MemberRecord, Record
from symbio_core.search import pressure as pressures
from symbio_core.search.common_scale import Trial, levels_of
from symbio_core.search.pressure import Pressure
from symbio_core.search.uncertainty import TRAINING_NOISE_NATS

COLLAPSED, ALIKE = 0.3, 0.05
"""Diversity, and the median distance to the nearest better sibling, below which a generation that
found nothing alarms (0..1): the same as the gate on collapse."""
LOCKED = 0.9
"""Order parameter above this alarms (0..1)."""


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

    See `symbio_core.search.common_scale.levels_of` for how.
    """
    return levels_of(state.origin, state.lineage)


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
    after = _grown(
        state, generation.members, generation.parent, generation.phase, generation.noise_nats
    )
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
    state: SearchState,
    members: Sequence[MemberRecord],
    *,
    parent: str | None = None,
    noise_nats: float = TRAINING_NOISE_NATS,
) -> bool:
    """Say whether these members bring a function to the Pareto front that was not there.

    Args:
        state: as it was when the generation was proposed.
        members: the finished generation.
        parent: formula of its control; empty takes the line that the state remembers.
        noise_nats: what luck and a short look add to a difference (nats a token).
    """
    phase = state.phase or "primordial"
    grown = _grown(state, members, parent or state.line, phase, noise_nats)
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
    state: SearchState,
    members: Sequence[MemberRecord],
    parent: str,
    phase: PhaseName,
    noise_nats: float,
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
            noise_nats=noise_nats,
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
    alike = generation.diversity < COLLAPSED and generation.typical_novelty < ALIKE
    if len(generation.members) > 1 and alike and not generation.found:
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
