"""The final: every contender from fresh weights, fresh seeds, on a split the search never saw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from symbio_core.activations import BASELINES, formula
from symbio_core.monitors import block_differences, holm
from symbio_core.records import SURE_BELOW, Confirmation, Contender, Effect, Interval
from symbio_core.runner.workbench import Workbench
from symbio_core.streams import generator

WARMUP_FRAC = 0.1
"""Share of a contender's steps in which its learning rate climbs; then it falls to almost 0."""
LEAST_LR = 0.02
"""Learning rate over peak below which it never falls."""
NOTICEABLE_COST = 0.05
"""Difference of a step's cost above which every fixed function is trained again at equal cost.

The best of them always is, so that no claim rests on steps that only look equal (share)."""
NAMES = {"gelu": "GELU", "silu": "SiLU", "relu2": "ReLU²", "swiglu": "SwiGLU"}
OWN = "evolved"
"""Name of the search's winner among the contenders, unless it is one of the fixed functions."""
Nats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Race:
    """Losses and cost of one function over the seeds."""

    name: str
    formula: str
    nats: Nats
    """Shape (seeds,), nats a token."""
    seconds_per_step: float
    cost: float
    same_cost: Nats
    """Shape (seeds,), or (0,) where it was not trained again for as much cost."""
    steps: int


def fixed_functions(*, gated: bool) -> dict[str, str]:
    """Return the fixed contenders, name to formula; a gated SiLU is SwiGLU."""
    found = {NAMES[key]: formula(BASELINES[key]) for key in ("gelu", "silu", "relu2")}
    if gated:
        found["SwiGLU"] = found.pop("SiLU")
    return found


def successor(confirmation: Confirmation, formula: str) -> str | None:
    """Return what has to follow an evolved function that surely lost the final; else None."""
    fixed = {c.formula for c in confirmation.contenders if c.name != OWN}
    if confirmation.verdict != "fixed wins" or formula in fixed:
        return None
    return min(confirmation.contenders, key=lambda c: c.bpb).formula


def confirm(
    bench: Workbench, winner: str, steps_each: int, on_step: Callable[[int, float], None]
) -> Confirmation:
    """Train the winner and the fixed functions from fresh weights and say who is better.

    Per seed, all contenders share initial weights and batches, so a seed is a block and differences
    are taken inside it; all contenders together tell how far a difference wanders from seed to
    seed. The winner was chosen on other text and other seeds, so its luck there does not count
    here. Where a step of the winner costs more or less than one of a fixed function, the best of
    these, and any whose cost differs noticeably, is trained again for as many steps as cost the
    same, and the comparison is told on both bases.

    Args:
        bench: the run's workbench.
        winner: formula that the search proposes.
        steps_each: steps of each contender and seed, if none had to be trained again.
        on_step: called after each step.
    """
    began = time.perf_counter()
    bench = bench.reduced(bench.config.confirm.scale)
    fixed = fixed_functions(gated=bench.config.model.ffn == "gated")
    title = next((name for name, text in fixed.items() if text == winner), OWN)
    entries = {title: winner} | fixed
    final = _Final(bench, winner, _affordable(bench, winner, entries, steps_each), on_step)
    races = [final.race(name, text) for name, text in entries.items()]
    races = _shuffled(bench, races) if bench.config.search.shuffle else final.at_equal_cost(races)
    own, others = races[0], races[1:]
    level = bench.config.gates.confidence
    unit = bench.bpb(1.0, bench.confirmed)
    same_steps = _effects(own, others, [race.nats for race in races], level, unit)
    same_cost: tuple[Effect, ...] = ()
    if any(race.same_cost.size for race in races):
        nats = [race.same_cost if race.same_cost.size else race.nats for race in races]
        found = _effects(own, others, nats, level, unit)
        same_cost = tuple(
            effect
            for effect, race in zip(found, others, strict=True)
            if race.same_cost.size or final.same_cost_steps(race.formula) == final.steps_each
        )
    return _verdict(
        bench,
        races,
        same_steps,
        same_cost,
        steps_each=final.steps_each,
        seconds=time.perf_counter() - began,
    )


def _affordable(bench: Workbench, winner: str, entries: dict[str, str], steps_each: int) -> int:
    """Return the steps of a race where those at equal cost are paid from the same purse."""
    final = _Final(bench, winner, steps_each, lambda index, loss: None)
    rivals = [final.same_cost_steps(text) for text in entries.values() if text != winner]
    extra = [steps for steps in rivals if final.differs(steps)]
    # The best of the rest is run again too, and which that is nobody knows yet.
    rest = [steps for steps in rivals if not final.differs(steps) and steps != steps_each]
    total = len(entries) * steps_each + sum(extra) + max(rest, default=0)
    return max(1, steps_each * len(entries) * steps_each // total)


@dataclass(frozen=True, slots=True)
class _Final:
    """What all races of a final share."""

    bench: Workbench
    winner: str
    steps_each: int
    on_step: Callable[[int, float], None]

    def same_cost_steps(self, text: str) -> int:
        """Return for how many steps a function trains at the cost of the winner's race."""
        return round(self.steps_each * self.bench.function_cost(self.winner, text))

    def differs(self, steps: int) -> bool:
        """Say whether so many steps are noticeably more or fewer than those of a race."""
        return abs(steps - self.steps_each) > NOTICEABLE_COST * self.steps_each

    def race(self, name: str, text: str) -> _Race:
        """Train one function with every seed."""
        seeds = self.bench.config.confirm.seeds
        trained = [self._trained(text, seed, self.steps_each) for seed in range(seeds)]
        return _Race(
            name=name,
            formula=text,
            nats=np.array([nats for nats, _ in trained]),
            seconds_per_step=sum(seconds for _, seconds in trained) / (seeds * self.steps_each),
            cost=self.bench.function_cost(text, self.winner),
            same_cost=np.empty(0),
            steps=seeds * self.steps_each,
        )

    def at_equal_cost(self, races: Sequence[_Race]) -> list[_Race]:
        """Train again, for as much cost, whoever costs noticeably else, and the best rival."""
        best = min(races[1:], key=lambda race: float(race.nats.mean()))
        return [self._again(race, always=race is best) for race in races]

    def _again(self, race: _Race, *, always: bool) -> _Race:
        steps = self.same_cost_steps(race.formula)
        if steps == self.steps_each or not (always or self.differs(steps)):
            return race
        seeds = self.bench.config.confirm.seeds
        nats = [self._trained(race.formula, seed, steps)[0] for seed in range(seeds)]
        return replace(race, same_cost=np.array(nats), steps=race.steps + seeds * steps)

    def _trained(self, text: str, seed: int, steps: int) -> tuple[float, float]:
        """Return the loss on the confirm split (nats a token) and the seconds of training."""
        bench = self.bench
        member = bench.fresh_member(text, "confirm", seed)
        batches = bench.train_batches("confirm", seed)
        stretch = member.train(
            steps, batches, lambda step: _cold(step, steps), on_step=self.on_step
        )
        nats = float(bench.measure(member.model, bench.confirmed).mean())
        # Whoever ends at no number knows nothing: each token is as likely as any other to it.
        return nats if math.isfinite(nats) else math.log(bench.n_vocab), stretch.seconds


def _cold(step: int, steps: int) -> float:
    up = (step + 1) / (WARMUP_FRAC * steps + 1)
    down = (steps - step) / ((1.0 - WARMUP_FRAC) * steps)
    return max(LEAST_LR, min(1.0, up, down))


def _shuffled(bench: Workbench, races: list[_Race]) -> list[_Race]:
    """Deal each seed's losses out among the contenders anew (null search)."""
    rng = generator(bench.config.seed, "shuffle", "confirm")
    nats = np.array([race.nats for race in races])
    for seed in range(nats.shape[1]):
        nats[:, seed] = rng.permutation(nats[:, seed])
    return [replace(race, nats=row) for race, row in zip(races, nats, strict=True)]


def _effects(
    own: _Race, others: list[_Race], nats: list[Nats], level: float, unit: float
) -> tuple[Effect, ...]:
    found = block_differences(np.array(nats), confidence=level)
    adjusted = holm([p_value for _, p_value in found])
    return tuple(
        Effect(
            against=other.name,
            loss_nats=interval,
            bpb=Interval(
                value=interval.value * unit,
                low=interval.low * unit,
                high=interval.high * unit,
                confidence=interval.confidence,
            ),
            p_value=p_value,
        )
        for other, (interval, _), p_value in zip(others, found, adjusted, strict=True)
    )


def _verdict(
    bench: Workbench,
    races: list[_Race],
    effects: tuple[Effect, ...],
    effects_seconds: tuple[Effect, ...],
    *,
    steps_each: int,
    seconds: float,
) -> Confirmation:
    contenders = tuple(
        Contender(
            name=race.name,
            formula=race.formula,
            nats=tuple(float(x) for x in race.nats),
            bpb=bench.bpb(float(race.nats.mean()), bench.confirmed),
            seconds_per_step=race.seconds_per_step,
            cost=race.cost,
            nats_same_cost=tuple(float(x) for x in race.same_cost),
        )
        for race in races
    )
    scale = bench.config.confirm.scale
    return judged(
        contenders,
        effects,
        effects_seconds,
        steps_each=steps_each,
        steps=bench.charged(sum(race.steps for race in races)),
        seconds=seconds,
        scale=1.0 if bench.cost == 1.0 else scale,
    )


def judged(
    contenders: Sequence[Contender],
    effects: Sequence[Effect],
    effects_seconds: Sequence[Effect],
    *,
    steps_each: int,
    steps: int,
    seconds: float,
    scale: float,
) -> Confirmation:
    """Return the confirmation that the figures of a final amount to.

    Args:
        contenders: the search's winner first.
        effects: the winner against each other contender at equal steps, in their order.
        effects_seconds: the same at equal cost; empty where that is the same.
        steps_each: steps of each contender and seed.
        steps: what all of it cost, in steps of the run's own model.
        seconds: wall time (s).
        scale: depth and width of the model that was trained, over the run's own.
    """
    own, fixed = contenders[0], contenders[1:]
    evolved = own.name == OWN
    rivals = fixed if evolved else contenders
    best = min(rivals, key=lambda c: c.bpb)
    seeds = len(own.nats)
    against = next((e for e in effects if e.against == best.name), None)
    verdict = _verdict_of(evolved, against, effects, effects_seconds)
    timed = next((e for e in effects_seconds if e.against == best.name), None)
    size = "" if scale == 1.0 else f" on a model of {scale:g} times the depth and width"
    how = f"after {steps_each} steps from fresh weights{size}, {seeds} fresh seeds, unseen text"
    return Confirmation(
        winner=own.formula,
        contenders=tuple(contenders),
        effects=tuple(effects),
        effects_seconds=tuple(effects_seconds),
        scale=scale,
        seeds=seeds,
        steps_each=steps_each,
        steps=steps,
        seconds=seconds,
        verdict=verdict,
        best_fixed=best.name,
        sentence=_sentence(verdict, own, best, against, timed, how),
    )


def _verdict_of(
    evolved: bool, against: Effect | None, effects: Sequence[Effect], timed: Sequence[Effect]
) -> Literal["evolved wins", "fixed wins", "no difference"]:
    """Name who won: an evolved function only if it is surely ahead on both bases."""
    if against is None:
        return "fixed wins" if all(map(_is_surely_ahead, effects)) else "no difference"
    if against.loss_nats.above_zero and against.p_value < SURE_BELOW:
        return "fixed wins"
    if not _is_surely_ahead(against):
        return "no difference"
    if not evolved:
        return "fixed wins"
    strongest = max(timed, key=lambda e: e.loss_nats.value, default=against)
    return "evolved wins" if _is_surely_ahead(strongest) else "no difference"


def _is_surely_ahead(effect: Effect) -> bool:
    return effect.loss_nats.below_zero and effect.p_value < SURE_BELOW


def _sentence(
    verdict: str,
    own: Contender,
    best: Contender,
    against: Effect | None,
    timed: Effect | None,
    how: str,
) -> str:
    if against is None:
        sure = "surely" if verdict == "fixed wins" else "but not surely"
        return f"{best.name} itself came out of the search, {sure} ahead of the others ({how})."
    effect, p_value = against.bpb, f"p = {against.p_value:.2g}"
    low, high = sorted((abs(effect.low), abs(effect.high)))
    sure = f"{effect.confidence:.0%} sure of {low:.4f} to {high:.4f}"
    size = f"{abs(effect.value):.4f} bits a byte ({sure})"
    who = own.formula if own.name == OWN else own.name
    if verdict == "evolved wins":
        return f"{who} beats {best.name} by {size}, {p_value}; {_cost(best, timed)}; {how}."
    if verdict == "fixed wins":
        first, second = (best.name, who) if effect.value > 0 else (who, best.name)
        return f"{first} beats {second} by {size}, {p_value}; {how}."
    span = f"{effect.low:+.4f} to {effect.high:+.4f} bits a byte"
    told = f"; {_cost(best, timed)}" if timed else ""
    return (
        f"No difference that is sure: keep {best.name}. {who} lies {span} from it (negative is "
        f"better), {p_value}{told}; {how}."
    )


def _cost(best: Contender, timed: Effect | None) -> str:
    more = 1.0 / best.cost - 1.0
    if timed is None:
        return "a step takes as long"
    left = f"{timed.bpb.value:+.4f} ({timed.bpb.low:+.4f} to {timed.bpb.high:+.4f})"
    way = "more" if more >= 0 else "less"
    return f"a step takes {abs(more):.0%} {way} time, and at equal time it is {left} bits a byte"
