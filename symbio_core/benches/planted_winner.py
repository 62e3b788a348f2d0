"""Does the search find a function that is truly better, where there is one?

The task is made so: a text in which each symbol is a fixed random function of the two before it,
and a main line that begins with the sigmoid. Pairs are conjunctions, and squares learn those best:
of the functions that every search tries, ReLU² is the planted winner. That it is one is not taken
for granted: it is measured in the bench itself, from fresh weights of the model that fresh
generations train, many times as long as they ever look, on text that the search never saw. Only the
corpus and the first function are the bench's own; search, space and final are those of the
settings.

An equal of the planted winner is a function whose true loss lies above the winner's by at most a
tenth of what the winner truly gains on the first function; one that is truly better counts as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core.benches import arms
from symbio_core.benches.arms import Say, Searched
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.gates.evidence import share_interval
from symbio_core.monitors import t_interval
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench
from symbio_core.search import rung_plan
from symbio_core.streams import generator
from symbio_core.training import lr_factor
from symbio_core.training.schedule import warmup

FIRST = "sigmoid(x)"
"""What the main line begins with: half a constant, close to a straight line, and truly bad."""
PLANTED = "relu(x)²"
OTHERS = ("gelu(x)", "silu(x)", "relu(x)")
"""The other functions that every search tries; the planted one has to be better than these."""
EQUAL_SHARE = 0.1
"""Share of the planted gain that an equal may miss."""
LONGER = 8
"""Truth is measured after so many times the steps of the search's longest rung from fresh weights.
"""
TRUTH_SEEDS = 10
LANGUAGES = (4, 6, 9, 14, 22, 34, 52)
"""Symbols of each language of the text: small ones are learnt early, large ones late."""
DOCUMENTS, LENGTH, WORD = 3000, 200, 50
RULED = 0.9
"""Share of symbols that follow the rule; the rest are drawn at random."""
Truths = dict[str, list[float]]
"""Loss of each function on unseen text, a value a seed (nats a token)."""


def pair_text(documents: int = DOCUMENTS) -> str:
    """Return a text of several languages whose next symbol follows from the last two."""
    rng = generator(0, "planted winner")
    rules = [rng.integers(n, size=(n, n)) for n in LANGUAGES]
    firsts = np.cumsum([0, *LANGUAGES])
    texts = []
    for _ in range(documents):
        language = int(rng.integers(len(LANGUAGES)))
        n = LANGUAGES[language]
        drawn, is_ruled = rng.integers(n, size=LENGTH + 2), rng.random(LENGTH) < RULED
        symbols = [int(drawn[0]), int(drawn[1])]
        for index in range(LENGTH):
            ruled = int(rules[language][symbols[-2], symbols[-1]])
            symbols.append(ruled if is_ruled[index] else int(drawn[index + 2]))
        text = "".join(chr(0x4E00 + int(firsts[language]) + s) for s in symbols[2:])
        texts.append(" ".join(text[i : i + WORD] for i in range(0, LENGTH, WORD)))
    return "\n\n".join(texts)


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Search on the planted task, a run a seed, and count the lines that hold an equal of it.

    Args:
        config: whose search is put to the test; the corpus is the bench's own.
        seeds: runs; seed numbers follow the configuration's own.
        jobs: runs at once, one CPU thread each where there is more than one.
        say: takes a line of progress.

    Raises:
        ConfigError: the search or the final is switched off.
    """
    arms.check_searches(config, "the planted winner")
    config = task(changed(arms.unhurried(config, jobs), arms.SMALL_BATTERY))
    found = arms.told(arms.each(_search, arms.seeded(config, seeds), jobs), _line, say)
    ends = [one.line for one in found] + [one.after for one in found]
    formulas = list(dict.fromkeys([FIRST, PLANTED, *OTHERS, *ends]))
    truths = _truths(config, formulas, jobs, say)
    data = arms.heading("planted-winner", config, jobs) | {
        "first": FIRST,
        "planted": PLANTED,
        "truth_steps": truth_steps(config),
        "truth_nats": truths,
        "runs": [_row(one, truths) for one in found],
    }
    data["summary"] = _summary(data, truths)
    return _table(data, truths), data


def task(config: RunConfig) -> RunConfig:
    """Return the settings on the bench's own text, which is written where token files lie."""
    return changed(
        config,
        {"data.corpus": str(_written(config)), "data.tokenizer": "char", "data.format": "plain"},
    )


def truth_steps(config: RunConfig) -> int:
    """Return how long truth is measured (optimiser steps)."""
    settings = [config.phase(name) for name in PHASES if config.phase(name).population]
    totals = [
        rung_plan(
            phase.population,
            rungs=config.search.rungs,
            rung_steps=phase.rung_steps,
            keep_frac=config.search.keep_frac,
        )[-1].total
        for phase in settings
        if phase.start == "fresh"
    ]
    return LONGER * max(totals, default=config.search.rungs * 20)


def is_equal(truths: Truths, formula: str) -> bool:
    """Say whether a function is the planted winner, or truly as good but for a tenth of its gain.

    A function that is truly better counts as well.
    """
    first, planted = _mean(truths, FIRST), _mean(truths, PLANTED)
    return formula == PLANTED or (
        planted < first and _mean(truths, formula) <= planted + EQUAL_SHARE * (first - planted)
    )


def _mean(truths: Truths, formula: str) -> float:
    return float(np.mean(truths[formula]))


def _written(config: RunConfig) -> Path:
    path = cache_of(config).parent / "planted" / "pairs.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pair_text(), encoding="utf-8")
    return path.resolve()


def _search(config: RunConfig) -> Searched:
    return arms.search(config, "planted", formula=FIRST)


def _truths(config: RunConfig, formulas: Sequence[str], jobs: int, say: Say) -> Truths:
    arms.prepare_tokens([config])
    pairs = [(config, formula, seed) for formula in formulas for seed in range(TRUTH_SEEDS)]
    losses = list(arms.each(_truth, pairs, jobs))
    found: Truths = {formula: [] for formula in formulas}
    for (_, formula, _), loss in zip(pairs, losses, strict=True):
        found[formula].append(loss)
    for formula in formulas:
        say(f"truth  {formula}  {_mean(found, formula):.4f} nats a token")
    return found


def _truth(work: tuple[RunConfig, str, int]) -> float:
    """Train one function from fresh weights, at full length, and return its loss."""
    config, formula, seed = work
    bench = Workbench(config, cache_of(config)).reduced(config.search.scale)
    member = bench.fresh_member(formula, "truth", seed)
    steps = truth_steps(config)
    member.train(
        steps,
        bench.train_batches("truth", seed),
        lambda step: lr_factor(config, step / steps) * warmup(config, step),
    )
    return float(bench.measure(member.model, bench.confirmed).mean())


def _line(one: Searched) -> str:
    generations = len(one.generations)
    return (
        f"seed {one.seed}  {generations} generations  the line holds {one.line}, and after the "
        f"final {one.after}  {one.seconds:.0f} s"
    )


def _row(one: Searched, truths: Truths) -> dict[str, Any]:
    return {
        "run": one.run_id,
        "seed": one.seed,
        "line": one.line,
        "found": is_equal(truths, one.line),
        "after_final": one.after,
        "kept": is_equal(truths, one.after),
        "tried": [m.candidate.formula for g in one.generations for m in g.members],
        "steps": one.steps,
        "seconds": one.seconds,
    }


def _summary(data: dict[str, Any], truths: Truths) -> dict[str, float]:
    runs, n = data["runs"], len(data["runs"])
    summary: dict[str, float] = {}
    for key in ("found", "kept"):
        share = share_interval(sum(row[key] for row in runs), n, confidence=0.95)
        summary |= arms.in_keys(f"{key}_frac", share)
    rivals = {"gain_nats": FIRST, "margin_nats": min(OTHERS, key=lambda f: _mean(truths, f))}
    for key, rival in rivals.items():
        gain = t_interval(np.array(truths[rival]) - np.array(truths[PLANTED]))
        summary |= arms.in_keys(f"planted_{key}", gain)
    surely = all(summary[f"planted_{key}_ci_low"] > 0.0 for key in rivals)
    is_planted = surely and not any(is_equal(truths, other) for other in OTHERS)
    summary["is_planted"] = float(is_planted)
    summary["runs"] = float(n)
    summary["seconds_per_seed"] = sum(row["seconds"] for row in runs) / n
    return summary


def _table(data: dict[str, Any], truths: Truths) -> Table:
    runs, summary = data["runs"], data["summary"]
    steps = data["truth_steps"]
    table = Table(
        "function", f"truth: nats after {steps} steps", "over planted", "equal", "tried by",
        "on the line", "after the final", box=None,
    )  # fmt: skip
    for formula in sorted(truths, key=lambda f: _mean(truths, f)):
        role = {PLANTED: " (planted)", FIRST: " (first)"}.get(formula, "")
        table.add_row(
            formula + role,
            f"{_mean(truths, formula):.4f} ± {np.std(truths[formula], ddof=1):.4f}",
            f"{_mean(truths, formula) - _mean(truths, PLANTED):+.4f}",
            "yes" if is_equal(truths, formula) else "no",
            str(sum(formula in row["tried"] for row in runs)),
            str(sum(row["line"] == formula for row in runs)),
            str(sum(row["after_final"] == formula for row in runs)),
        )
    table.add_section()
    for key, words in (("found", "an equal of it found"), ("kept", "and kept after the final")):
        low, high = summary[f"{key}_frac_ci_low"], summary[f"{key}_frac_ci_high"]
        count = sum(row[key] for row in runs)
        share = f"{summary[f'{key}_frac']:.0%} ({low:.1%} to {high:.1%})"
        table.add_row(words, f"{count} of {len(runs)}", share, "", "", "", "")
    if not summary["is_planted"]:
        table.add_row("under these settings", "ReLU² is no true winner", "", "", "", "", "")
    table.add_row("model and budget", data["model"], "", "", "", "", "")
    return table
