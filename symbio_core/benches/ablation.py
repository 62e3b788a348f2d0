"""What does each mechanism contribute to the final loss at equal budget?

Every mechanism is lived with and without, on the same seeds: same initial weights, same data, same
budget. One that the settings have switched on is switched off in its arm; one that they have
switched off is switched on instead, and the table says so. A mechanism that works inside another
is compared where that one works.

A mechanism came into play where the two lives of a pair went different ways: other functions tried
or dropped, other plans, other decisions, other weights shipped. One that never did has shown
nothing, and one that did and changed no loss has shown that here nothing hung on it.

`measure_planted` asks the same where there is something to find: on the text and from the first
function of the planted winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core import lifecycle, runner
from symbio_core.benches import arms, planted_winner
from symbio_core.benches.arms import Say
from symbio_core.config import MECHANISMS, Mechanism, RunConfig, changed
from symbio_core.runner.run import FIRST_FUNCTION, Run

NEEDS: dict[Mechanism, Mechanism] = {
    "immigrants": "search",
    "crossover": "search",
    "diversity": "search",
    "complexity": "search",
    "ecology": "search",
    "pressure": "search",
    "fusion": "search",
    "kuramoto": "fusion",
}
"""Mechanisms that do nothing where another one is switched off."""
FUSES_IN = 2
"""Rungs that fusion takes at least: it happens between two."""
Without = tuple[Mechanism, ...]
Life = tuple[Without, int]
"""What tells lives of one seed apart: what is switched off, and the rungs of a generation."""
Arm = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mechanism and the two lives that show what it does."""

    mechanism: Mechanism
    on: Without
    """What is switched off where the mechanism works."""
    off: Without
    """The same and the mechanism."""
    rungs: int
    """Stages of a generation in both lives."""
    note: str
    """How the pair differs from the settings themselves."""


def comparisons(
    without: Sequence[Mechanism], mechanisms: Sequence[Mechanism], rungs: int = FUSES_IN
) -> list[Comparison]:
    """Return the pair of lives for each mechanism.

    Args:
        without: what the settings switch off.
        mechanisms: what is looked at.
        rungs: stages of a generation in the settings.
    """
    return [_comparison(frozenset(without), mechanism, rungs) for mechanism in mechanisms]


def _comparison(without: frozenset[Mechanism], mechanism: Mechanism, rungs: int) -> Comparison:
    needed = _needed(mechanism)
    on = without - {mechanism, *needed}
    switched = [name for name in (*needed, mechanism) if name in without]
    parts = []
    if mechanism in without:
        parts.append("off in the settings, switched on here")
    if others := [name for name in switched if name != mechanism]:
        parts.append(f"with {', '.join(others)} switched on in both lives")
    if "fusion" in (*needed, mechanism) and rungs < FUSES_IN:
        rungs = FUSES_IN
        parts.append(f"with {rungs} rungs in both lives")
    return Comparison(mechanism, _ordered(on), _ordered(on | {mechanism}), rungs, "; ".join(parts))


def _needed(mechanism: Mechanism) -> tuple[Mechanism, ...]:
    over = NEEDS.get(mechanism)
    return () if over is None else (*_needed(over), over)


def _ordered(names: frozenset[Mechanism]) -> Without:
    return tuple(name for name in MECHANISMS if name in names)


def measure(
    config: RunConfig,
    seeds: int,
    jobs: int,
    say: Say,
    mechanisms: Sequence[Mechanism] = MECHANISMS,
    *,
    name: str = "ablation",
    formula: str = FIRST_FUNCTION,
) -> tuple[Table, dict[str, Any]]:
    """Live whole lives with and without each mechanism and compare them seed by seed.

    Args:
        config: what is measured; its `without` is the baseline. Caps on seconds are lifted.
        seeds: repetitions; seed numbers follow the configuration's own. At least 2 give intervals.
        jobs: lives at once, one CPU thread each where there is more than one.
        say: takes a line of progress.
        mechanisms: what is looked at.
        name: what the data says that it is.
        formula: function that every life begins with.

    Raises:
        BudgetTooSmall: with a mechanism that is off in the settings a generation costs more.
    """
    config = arms.unhurried(config, jobs)
    pairs = comparisons(config.without, mechanisms, config.search.rungs)
    base = (_ordered(frozenset(config.without)), config.search.rungs)
    settings = dict.fromkeys(
        [base, *((without, pair.rungs) for pair in pairs for without in (pair.on, pair.off))]
    )
    configs = [
        changed(one, {"without": without, "search.rungs": rungs})
        for one in arms.seeded(config, seeds)
        for without, rungs in settings
    ]
    for one in configs:
        lifecycle.check_budget(one)  # refused now, not after an hour of other lives
    if jobs > 1:
        arms.prepare_tokens(arms.seeded(config, seeds))
    works = [(one, formula) for one in configs]
    lives = arms.told(arms.each(_live, works, jobs), _line, say)
    data = arms.heading(name, config, jobs) | {"first": formula, "lives": lives}
    data["mechanisms"] = [_effect(pair, base, lives) for pair in pairs]
    data["summary"] = _summary(data["mechanisms"], lives, base)
    return _table(data), data


def measure_planted(
    config: RunConfig, seeds: int, jobs: int, say: Say
) -> tuple[Table, dict[str, Any]]:
    """Ask the same of lives on the planted task, where ReLU² is better than what they begin with.

    Args:
        config: as in `measure`; the corpus and the first function are those of the task.
        seeds: repetitions.
        jobs: lives at once.
        say: takes a line of progress.

    Raises:
        BudgetTooSmall: as in `measure`.
    """
    config, first = planted_winner.task(config), planted_winner.FIRST
    return measure(config, seeds, jobs, say, name="ablation-planted", formula=first)


def _live(work: tuple[RunConfig, str]) -> Arm:
    config, formula = work
    name = f"ablation-{runner.new_name(config)}-s{config.seed}"
    run = runner.open_run(config, name, formula=formula)
    clock = arms.clock_of(run.bench)
    began = clock()
    report = runner.live(run)
    seconds = clock() - began
    shipped = run.vault.load_model(report.shipped.id)
    confirm = float(run.bench.measure(shipped, run.bench.confirmed).mean())
    with run.writing():
        run.store.checkpoints.retain(set())
    run.release()
    return {
        "run": name,
        "seed": config.seed,
        "without": list(_ordered(frozenset(config.without))),
        "rungs": config.search.rungs,
        "val_bpb": report.shipped.val_bpb,
        "confirm_bpb": run.bench.bpb(confirm, run.bench.confirmed),
        "formula": report.shipped.formula,
        "steps": run.state.steps_spent,
        "line_steps": sum(a.outcome.line_steps for a in run.attempts),
        "generations": len(run.generations),
        "way": [*way(run), f"ships {report.shipped.phase}'s {report.shipped.serves} weights"],
        "seconds": seconds,
    }


def way(run: Run) -> list[str]:
    """Return which way a life went, a line a step of it, without any measured number.

    Two lives of one seed that differ in no line have tried the same functions, let the same ones
    go, changed the same settings and decided alike.
    """
    lines: list[str] = []
    for attempt in run.attempts:
        plan, outcome = attempt.plan, attempt.outcome
        changed_by = ", ".join(f"{k}={v}" for k, v in sorted(plan.adaptation.model_dump().items()))
        lines.append(f"{plan.phase} {plan.attempt}: lr × {plan.lr_scale:g}, {changed_by}")
        for generation in outcome.generations:
            tried = ", ".join(
                f"{m.candidate.formula} to rung {m.rung + 1}" for m in generation.members
            )
            fused = f"{generation.fusions_accepted} fused, {generation.fusions_refused} refused"
            lines.append(f"{plan.phase}: {tried} → {generation.winner}; {fused}")
        lines += [
            f"{plan.phase}: answers {response.verdict.name}" for response in outcome.responses
        ]
        lines.append(
            f"{plan.phase}: {outcome.line_steps} steps of the line, {attempt.decision.kind}, "
            f"on with {outcome.end.formula}"
        )
    return lines


def _line(arm: Arm) -> str:
    off = ", ".join(arm["without"]) or "nothing"
    return (
        f"seed {arm['seed']}  without {off}, {arm['rungs']} rungs: {arm['val_bpb']:.4f} bits/byte  "
        f"{arm['formula']}  {arm['line_steps']} of {arm['steps']} steps on the line  "
        f"{arm['seconds']:.0f} s"
    )


def _effect(pair: Comparison, base: Life, lives: Sequence[Arm]) -> dict[str, Any]:
    on, off = (_of(lives, (without, pair.rungs)) for without in (pair.on, pair.off))
    found: dict[str, Any] = {
        "mechanism": pair.mechanism,
        "on": list(pair.on),
        "off": list(pair.off),
        "rungs": pair.rungs,
        "is_on_in_settings": pair.mechanism not in base[0],
        "parted": sum(a["way"] != b["way"] for a, b in zip(on, off, strict=True)),
        "note": pair.note,
    }
    for split in ("val", "confirm"):
        key = f"{split}_bpb"
        differences = np.array([b[key] - a[key] for a, b in zip(on, off, strict=True)])
        found[f"delta_{key}"] = [float(x) for x in differences]
    return found


def _of(lives: Sequence[Arm], wanted: Life) -> list[Arm]:
    found = [life for life in lives if (tuple(life["without"]), life["rungs"]) == wanted]
    return sorted(found, key=lambda life: int(life["seed"]))


def _summary(
    effects: Sequence[dict[str, Any]], lives: Sequence[Arm], base: Life
) -> dict[str, float]:
    summary: dict[str, float] = {}
    for effect in effects:
        for split, prefix in (("val", "delta_bpb"), ("confirm", "delta_confirm_bpb")):
            values = effect[f"delta_{split}_bpb"]
            summary |= arms.mean_in_keys(f"{prefix}_without_{effect['mechanism']}", values)
    own = [life["val_bpb"] for life in _of(lives, base)]
    summary["baseline_bpb"] = float(np.mean(own))
    summary["generations"] = float(np.mean([life["generations"] for life in _of(lives, base)]))
    summary |= {f"parted_by_{effect['mechanism']}": float(effect["parted"]) for effect in effects}
    summary["seconds_per_life"] = float(np.mean([life["seconds"] for life in lives]))
    summary["lives"] = float(len(lives))
    return summary


def _table(data: dict[str, Any]) -> Table:
    summary = data["summary"]
    table = Table(
        "without", "Δ bits/byte", "95% interval", "came into play", "reading", "pair", box=None
    )
    for effect in data["mechanisms"]:
        key = f"delta_bpb_without_{effect['mechanism']}"
        low, high = summary.get(f"{key}_ci_low"), summary.get(f"{key}_ci_high")
        span = f"{low:+.4f} to {high:+.4f}" if low is not None and high is not None else "–"
        table.add_row(
            effect["mechanism"],
            f"{summary[key]:+.4f}",
            span,
            f"{effect['parted']} of {len(effect['delta_val_bpb'])}",
            reading(effect["delta_val_bpb"], low, high, parted=effect["parted"]),
            effect["note"] or "on in the settings, switched off here",
        )
    table.add_section()
    table.add_row("baseline", f"{summary['baseline_bpb']:.4f}", "", "", data["model"], "")
    table.add_row("generations a life", f"{summary['generations']:.1f}", "", "", "", "")
    table.add_row("seconds a life", f"{summary['seconds_per_life']:.0f}", "", "", "", "")
    return table


def reading(
    differences: Sequence[float], low: float | None, high: float | None, *, parted: int
) -> str:
    """Return what the differences of a mechanism amount to, in a few words.

    Args:
        differences: loss without it minus with it, one a seed (bits a byte).
        low: lower end of the interval of their mean; None with a single seed.
        high: upper end.
        parted: pairs of lives that went different ways.
    """
    if not any(differences):
        return "nothing hung on it" if parted else "never came into play"
    if low is None or high is None:
        return "one seed tells nothing"
    if low > 0.0:
        return "helps"
    return "harms" if high < 0.0 else "not sure"
