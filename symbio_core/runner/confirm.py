"""The final: every contender from fresh weights, fresh seeds, on a split the search never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
"""Difference of a step's cost below which equal steps count as equal time (share)."""
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
    """Shape (seeds,), or (0,) where equal cost means equal steps."""
    steps: int


def fixed_functions(*, gated: bool) -> dict[str, str]:
    """Return the fixed contenders, name to formula; a gated SiLU is SwiGLU."""
    found = {NAMES[key]: formula(BASELINES[key]) for key in ("gelu", "silu", "relu2")}
    if gated:
        found["SwiGLU"] = found.pop("SiLU")
    return found


def confirm(
    bench: Workbench, winner: str, steps_each: int, on_step: Callable[[int, float], None]
) -> Confirmation:
    """Train the winner and the fixed functions from fresh weights and say who is better.

    Per seed, all contenders share initial weights and batches, so a seed is a block and differences
    are taken inside it; all contenders together tell how far a difference wanders from seed to
    seed. The winner was chosen on other text and other seeds, so its luck there does not count
    here. Where the winner costs more time a step than a fixed function, that one is trained again
    for as many more steps, and the comparison is told on both bases.

    Args:
        bench: the run's workbench.
        winner: formula that the search proposes.
        steps_each: steps of each contender and seed.
        on_step: called after each step.
    """
    began = time.perf_counter()
    bench = bench.reduced(bench.config.confirm.scale)
    fixed = fixed_functions(gated=bench.config.model.ffn == "gated")
    title = next((name for name, text in fixed.items() if text == winner), OWN)
    entries = {title: winner} | fixed
    longer = {
        name: round(steps_each * bench.function_cost(winner, text))
        for name, text in entries.items()
    }
    # What the equal-cost races take is taken from all, so that the final costs what was set aside.
    extra = sum(steps for name, steps in longer.items() if _differs(steps, steps_each))
    share = len(entries) * steps_each / (len(entries) * steps_each + extra)
    steps_each = max(1, int(steps_each * share))
    races = [
        _race(bench, name, text, winner, steps_each, on_step) for name, text in entries.items()
    ]
    if bench.config.search.shuffle:
        races = _shuffled(bench, races)
    own, others = races[0], races[1:]
    level = bench.config.gates.confidence
    unit = bench.bpb(1.0, bench.confirmed)
    same_steps = _effects(own, others, [race.nats for race in races], level, unit)
    same_cost: tuple[Effect, ...] = ()
    if any(race.same_cost.size for race in races):
        nats = [race.same_cost if race.same_cost.size else race.nats for race in races]
        same_cost = _effects(own, others, nats, level, unit)
    return _verdict(
        bench,
        races,
        same_steps,
        same_cost,
        steps_each=steps_each,
        seconds=time.perf_counter() - began,
    )


def _differs(steps: int, steps_each: int) -> bool:
    return abs(steps - steps_each) > NOTICEABLE_COST * steps_each


def _race(
    bench: Workbench,
    name: str,
    text: str,
    winner: str,
    steps_each: int,
    on_step: Callable[[int, float], None],
) -> _Race:
    seeds = bench.config.confirm.seeds
    nats, same_cost = np.empty(seeds), np.empty(seeds)
    seconds, steps = 0.0, 0
    longer = round(steps_each * bench.function_cost(winner, text))
    again = _differs(longer, steps_each)
    for seed in range(seeds):
        nats[seed], taken = _trained(bench, text, seed, steps_each, on_step)
        seconds += taken / (steps_each * seeds)
        steps += steps_each
        if again:
            same_cost[seed], _ = _trained(bench, text, seed, longer, on_step)
            steps += longer
    cost = bench.function_cost(text, winner)
    return _Race(name, text, nats, seconds, cost, same_cost if again else np.empty(0), steps)


def _trained(
    bench: Workbench, text: str, seed: int, steps: int, on_step: Callable[[int, float], None]
) -> tuple[float, float]:
    """Return the loss on the confirm split (nats a token) and the seconds of training."""
    member = bench.fresh_member(text, "confirm", seed)
    batches = bench.train_batches("confirm", seed)
    stretch = member.train(steps, batches, lambda step: _cold(step, steps), on_step=on_step)
    return float(bench.measure(member.model, bench.confirmed).mean()), stretch.seconds


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
    return [
        _Race(r.name, r.formula, row, r.seconds_per_step, r.cost, np.empty(0), r.steps)
        for r, row in zip(races, nats, strict=True)
    ]


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
    if against is None:
        sure = all(e.loss_nats.below_zero and e.p_value < SURE_BELOW for e in effects)
        verdict = "fixed wins" if sure else "no difference"
    elif against.loss_nats.below_zero and against.p_value < SURE_BELOW:
        verdict = "evolved wins" if evolved else "fixed wins"
    elif against.loss_nats.above_zero and against.p_value < SURE_BELOW:
        verdict = "fixed wins"
    else:
        verdict = "no difference"
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
    return (
        f"No difference that is sure: keep {best.name}. {who} lies {span} from it (negative is "
        f"better), {p_value}; {how}."
    )


def _cost(best: Contender, timed: Effect | None) -> str:
    more = 1.0 / best.cost - 1.0
    if timed is None:
        return "a step takes as long"
    left = f"{timed.bpb.value:+.4f} ({timed.bpb.low:+.4f} to {timed.bpb.high:+.4f})"
    way = "more" if more >= 0 else "less"
    return f"a step takes {abs(more):.0%} {way} time, and at equal time it is {left} bits a byte"
