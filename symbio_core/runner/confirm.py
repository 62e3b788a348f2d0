"""The final: every contender from fresh weights, fresh seeds, on a split the search never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from symbio_core.activations import BASELINES, formula
from symbio_core.monitors import t_interval
from symbio_core.records import SURE_BELOW, Confirmation, Contender, Effect, Interval
from symbio_core.runner.workbench import Workbench

WARMUP_FRAC = 0.1
"""Share of a contender's steps in which its learning rate climbs; then it falls to almost 0."""
NAMES = {"gelu": "GELU", "silu": "SiLU", "relu2": "ReLU²", "swiglu": "SwiGLU"}


@dataclass(frozen=True, slots=True)
class _Race:
    """Losses and cost of one function over the seeds."""

    name: str
    formula: str
    nats: npt.NDArray[np.float64]
    seconds_per_step: float


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

    Per seed, all contenders share initial weights and batches, so differences are taken seed by
    seed; the interval is Student's t over seeds and the p-values are Holm's.

    Args:
        bench: the run's workbench.
        winner: formula that the search proposes.
        steps_each: steps of each contender and seed.
        on_step: called after each step.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    began = time.perf_counter()
    fixed = fixed_functions(gated=bench.config.model.ffn == "gated")
    names = {name: text for name, text in fixed.items() if text != winner}
    entries = {"evolved": winner, **names}
    races = _race_all(bench, entries, steps_each, on_step)
    if winner in fixed.values():
        title = next(name for name, text in fixed.items() if text == winner)
        races["evolved"] = _renamed(races["evolved"], title)
    effects = _effects(bench, races["evolved"], [races[name] for name in names])
    contenders = tuple(
        Contender(
            name=race.name,
            formula=race.formula,
            nats=tuple(float(x) for x in race.nats),
            bpb=bench.bpb(float(race.nats.mean()), bench.confirmed),
            seconds_per_step=race.seconds_per_step,
        )
        for race in races.values()
    )
    seeds = bench.config.confirm.seeds
    return _verdict(
        winner,
        contenders,
        effects,
        steps_each=steps_each,
        steps=len(entries) * seeds * steps_each,
        seeds=seeds,
        seconds=time.perf_counter() - began,
        evolved=winner not in fixed.values(),
    )


def _race_all(
    bench: Workbench,
    entries: dict[str, str],
    steps_each: int,
    on_step: Callable[[int, float], None],
) -> dict[str, _Race]:
    seeds = bench.config.confirm.seeds
    nats = {name: np.empty(seeds) for name in entries}
    seconds = dict.fromkeys(entries, 0.0)
    for seed in range(seeds):
        for name, text in entries.items():
            member = bench.fresh_member(text, "confirm", seed)
            stretch = member.train(
                steps_each,
                bench.train_batches("confirm", seed),
                lambda step: _cold(step, steps_each),
                on_step=on_step,
            )
            nats[name][seed] = bench.measure(member.model, bench.confirmed).mean()
            seconds[name] += stretch.seconds / (steps_each * seeds)
    return {name: _Race(name, text, nats[name], seconds[name]) for name, text in entries.items()}


def _cold(step: int, steps: int) -> float:
    up = (step + 1) / (WARMUP_FRAC * steps + 1)
    down = (steps - step) / ((1.0 - WARMUP_FRAC) * steps)
    return max(0.02, min(1.0, up, down))


def _renamed(race: _Race, name: str) -> _Race:
    return _Race(name, race.formula, race.nats, race.seconds_per_step)


def _effects(bench: Workbench, winner: _Race, others: list[_Race]) -> tuple[Effect, ...]:
    raw = [_p_value(winner.nats - other.nats) for other in others]
    adjusted = holm(raw)
    effects = []
    for other, p_value in zip(others, adjusted, strict=True):
        nats = t_interval(winner.nats - other.nats, confidence=bench.config.gates.confidence)
        unit = bench.bpb(1.0, bench.confirmed)
        bpb = Interval(
            value=nats.value * unit,
            low=nats.low * unit,
            high=nats.high * unit,
            confidence=nats.confidence,
        )
        effects.append(Effect(against=other.name, loss_nats=nats, bpb=bpb, p_value=p_value))
    return tuple(effects)


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's step-down corrected p-values, in the order given."""
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def _p_value(differences: npt.NDArray[np.float64]) -> float:
    if np.ptp(differences) == 0.0:
        return 1.0 if differences[0] == 0.0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _verdict(
    winner: str,
    contenders: tuple[Contender, ...],
    effects: tuple[Effect, ...],
    *,
    steps_each: int,
    steps: int,
    seeds: int,
    seconds: float,
    evolved: bool,
) -> Confirmation:
    fixed = [c for c in contenders if not (evolved and c.formula == winner)]
    best = min(fixed, key=lambda c: c.bpb)
    own = next(c for c in contenders if c.formula == winner)
    against = next((e for e in effects if e.against == best.name), None)
    if not evolved or against is None:
        verdict = "fixed wins" if _sure_of(effects) else "no difference"
    elif against.loss_nats.below_zero and against.p_value < SURE_BELOW:
        verdict = "evolved wins"
    elif against.loss_nats.above_zero and against.p_value < SURE_BELOW:
        verdict = "fixed wins"
    else:
        verdict = "no difference"
    sentence = _sentence(verdict, winner, best, against, own, steps_each, seeds)
    return Confirmation(
        winner=winner,
        contenders=contenders,
        effects=effects,
        seeds=seeds,
        steps_each=steps_each,
        steps=steps,
        seconds=seconds,
        verdict=verdict,
        best_fixed=best.name,
        sentence=sentence,
    )


def _sure_of(effects: tuple[Effect, ...]) -> bool:
    return all(e.loss_nats.below_zero and e.p_value < SURE_BELOW for e in effects)


def _sentence(
    verdict: str,
    winner: str,
    best: Contender,
    against: Effect | None,
    own: Contender,
    steps_each: int,
    seeds: int,
) -> str:
    how = f"after {steps_each} steps from fresh weights, {seeds} fresh seeds, unseen text"
    if against is None:
        sure = "surely" if verdict == "fixed wins" else "but not surely"
        return f"{best.name} itself came out of the search, {sure} ahead of the others ({how})."
    effect, p_value = against.bpb, f"p = {against.p_value:.2g}"
    low, high = sorted((abs(effect.low), abs(effect.high)))
    sure = f"{effect.confidence:.0%} sure of {low:.4f} to {high:.4f}"
    size = f"{abs(effect.value):.4f} bits a byte ({sure})"
    if verdict == "evolved wins":
        return f"{winner} beats {best.name} by {size}, {p_value}; {_cost(own, best)}; {how}."
    if verdict == "fixed wins":
        return f"{best.name} beats {winner} by {size}, {p_value}; {how}."
    span = f"{effect.low:+.4f} to {effect.high:+.4f} bits a byte"
    return (
        f"No difference: keep {best.name}. {winner} lies {span} from it (negative is better), "
        f"which is not sure, {p_value}; {how}."
    )


def _cost(own: Contender, best: Contender) -> str:
    more = own.seconds_per_step / best.seconds_per_step - 1.0
    return f"a step takes {abs(more):.0%} {'more' if more >= 0 else 'less'} time"
