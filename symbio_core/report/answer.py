"""The answer in words: headline and sentence of a final, from its numbers alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from symbio_core.records import SURE_BELOW, Confirmation, Contender, Effect
from symbio_core.report.cells import count

SAME_TIME = 0.015
"""Costs of a step within this share of each other are told as the same."""


def own_name(confirmation: Confirmation) -> str:
    """Return what the winner is called in the final: `evolved`, unless it is a fixed function."""
    names = (c.name for c in confirmation.contenders if c.formula == confirmation.winner)
    return next(names, "evolved")


def is_sure(effect: Effect) -> bool:
    """Say whether a difference is sure: its interval and its corrected p-value agree on that."""
    beyond = effect.loss_nats.below_zero or effect.loss_nats.above_zero
    return beyond and effect.p_value < SURE_BELOW


def headline(confirmation: Confirmation) -> str:
    """Say the verdict in a few words, never without the length of the final."""
    best, steps = confirmation.best_fixed, count(confirmation.steps_each)
    timed = _strongest(confirmation.effects_seconds)
    if confirmation.verdict == "no difference":
        return f"No difference: keep {best}."
    if confirmation.verdict == "fixed wins":
        return f"Keep {best}: it won at {steps} steps."
    claim = f"The evolved function beat {best} at {steps} steps"
    if timed is None:
        return f"{claim}."
    if is_sure(timed):
        if timed.loss_nats.below_zero:
            return f"{claim} and at equal time."
        return f"{claim}; at equal time {timed.against} won."
    return f"{claim}; at equal time there is no sure difference."


def sentence(confirmation: Confirmation) -> str:
    """Say effect, certainty and cost in words, and how far the test reaches.

    Everything is read from the numbers of the record, so the words cannot claim more than was
    tested. Where contenders were also compared at equal time, both comparisons are told.
    """
    rivals = confirmation.effects
    parts = [_first(confirmation), _at_equal_time(confirmation)]
    parts += [_cost(confirmation)] if rivals else []
    return " ".join(part for part in [*parts, _reach(confirmation)] if part)


def _first(confirmation: Confirmation) -> str:
    winner, best, verdict = confirmation.winner, confirmation.best_fixed, confirmation.verdict
    own = own_name(confirmation)
    if own != "evolved":
        return _of_a_fixed_winner(confirmation, own)
    against = next((e for e in confirmation.effects if e.against == best), None)
    if against is None:
        return f"The final of {winner} had no rival to tell a difference from."
    if verdict == "evolved wins":
        return f"{winner} beat {best} by {_size(confirmation, against)}."
    if verdict == "fixed wins":
        return f"{best} beat {winner} by {_size(confirmation, against)}."
    return f"No difference: keep {best}. {winner} was {_between(against)}."


def _of_a_fixed_winner(confirmation: Confirmation, own: str) -> str:
    best, verdict = confirmation.best_fixed, confirmation.verdict
    told = "; ".join(_between(e) for e in confirmation.effects)
    beaten = next((e for e in confirmation.effects if e.against == best), None)
    if verdict == "fixed wins" and beaten is not None:
        return f"{best} beat {own}, which the search settled on, by {_size(confirmation, beaten)}."
    if verdict == "fixed wins":
        return f"The search itself settled on {own}, which beat the others: it was {told}."
    return f"No difference: keep {best}. The search itself settled on {own}, which was {told}."


def _size(confirmation: Confirmation, effect: Effect) -> str:
    value, low, high = _bits(effect.bpb.value, *_ends(effect))
    rival = next((c.bpb for c in confirmation.contenders if c.name == effect.against), 0.0)
    share = f", {abs(effect.bpb.value) / rival:.1%} of its loss" if rival > 0.0 else ""
    return (
        f"{value} bits a byte{share} ({effect.bpb.confidence:.0%} sure: "
        f"{low} to {high}; {_luck(effect.p_value)})"
    )


def _between(effect: Effect) -> str:
    bpb, rival = effect.bpb, effect.against
    if not (bpb.below_zero or bpb.above_zero):
        better, worse = _bits(bpb.low, bpb.high)
        return (
            f"between {better} bits a byte better and {worse} worse than {rival} "
            f"({bpb.confidence:.0%} sure), which may be luck (p = {effect.p_value:.2g})"
        )
    low, high = _bits(*_ends(effect))
    how = "better" if bpb.below_zero else "worse"
    beyond = f"{low} to {high} bits a byte {how} than {rival}"
    if is_sure(effect):
        return f"{beyond} ({bpb.confidence:.0%} sure; {_luck(effect.p_value)})"
    return f"{beyond}, not sure once every comparison counts (p = {effect.p_value:.2g})"


def _ends(effect: Effect) -> list[float]:
    return sorted((abs(effect.bpb.low), abs(effect.bpb.high)))


def _bits(*values: float) -> list[str]:
    digits = 4 if max(map(abs, values)) < 1.0 else 2
    return [f"{abs(value):.{digits}f}" for value in values]


def _luck(p_value: float) -> str:
    if p_value < 0.001:
        return "luck alone: fewer than 1 of 1000 tries, p < 0.001"
    tries = 100 if p_value >= 0.01 else 1000
    return f"luck alone: {p_value * tries:.0f} of {tries} tries, p = {p_value:.2g}"


def _at_equal_time(confirmation: Confirmation) -> str:
    timed = _strongest(confirmation.effects_seconds)
    if timed is None:
        return ""
    own = own_name(confirmation)
    who = confirmation.winner if own == "evolved" else own
    return f"At equal time, against its strongest rival, {who} was {_between(timed)}."


def _strongest(effects: Sequence[Effect]) -> Effect | None:
    return max(effects, key=lambda e: e.loss_nats.value, default=None)


def _reach(confirmation: Confirmation) -> str:
    scale = confirmation.scale
    size = "" if scale == 1.0 else f" of a model {scale:g} times as deep and wide as the run's own"
    beyond = "longer training" if scale == 1.0 else "longer training or the larger model"
    return (
        f"Tested on text that the search never saw, after {count(confirmation.steps_each)} steps "
        f"from fresh weights{size} with {confirmation.seeds} seeds; {beyond} may rank them "
        "otherwise."
    )


def _cost(confirmation: Confirmation) -> str:
    own = _contender(confirmation, own_name(confirmation))
    best = _contender(confirmation, confirmation.best_fixed)
    if own is None or best is None or own is best:
        return ""
    more = relative_cost(own, best) - 1.0
    verb = "took" if own.cost == best.cost else "is reckoned at"
    if abs(more) < SAME_TIME:
        return f"A step {verb} as much time as one with {best.name}."
    how = "more" if more > 0 else "less"
    return f"A step {verb} {abs(more):.0%} {how} time than one with {best.name}."


def relative_cost(one: Contender, other: Contender) -> float:
    """Return what a step of ``one`` costs over a step of ``other`` (1 = the same).

    Costs that were reckoned go first: they do not hang on what else a machine was doing. Where
    they are alike, the times that the final measured tell.
    """
    if one.cost != other.cost:
        return one.cost / other.cost
    if other.seconds_per_step > 0.0:
        return one.seconds_per_step / other.seconds_per_step
    return 1.0


def _contender(confirmation: Confirmation, name: str) -> Contender | None:
    return next((c for c in confirmation.contenders if c.name == name), None)
