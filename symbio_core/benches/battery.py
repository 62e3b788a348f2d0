"""Can the inference battery be believed? Its order on real text, its intervals, its false alarms.

At three corpora and every seed a model is trained for a part of the budget, and another for a fifth
of that. Order: people's text that nobody read > trained > undertrained > shuffled words > random
letters > a repeated word > nothing, and every broken machine below the trained model. Intervals:
batteries of 20 prompts drawn from a pool of 120 are scored as a gate scores them; how often does
the interval hold the mean over all draws? False alarms: the same weights that sample with other
seeds, and children of one parent that read other batches; the gate on progress compares them in
both directions and should find none better.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core.benches import arms
from symbio_core.benches.arms import Say
from symbio_core.benches.real_text import BROKEN, CORPORA, WRITERS, write, write_corpora
from symbio_core.config import RunConfig, changed
from symbio_core.gates import Answer, judge_battery, score_battery
from symbio_core.gates.battery import paired_quality
from symbio_core.gates.evidence import share_interval
from symbio_core.gates.measures import words_of
from symbio_core.model import GPT
from symbio_core.records import Battery, CheckpointRef, Outcome
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench
from symbio_core.runner.writing import answer_all
from symbio_core.streams import generator
from symbio_core.training import Member, lr_factor

TRAINED_FRAC, UNDERTRAINED_FRAC, CHILD_FRAC = 0.2, 0.2, 0.2
"""Steps of the trained model over the budget; of the undertrained one, and of a child, over those
of the trained."""
POOL, DRAWS = 120, 60
"""Prompts that batteries are drawn from, and draws of 20 of them a corpus and seed."""
CHILD_LR = 0.5
"""Learning rate of a child over its peak: training noise is large where much is still learned."""
SAMPLINGS, CHILDREN = 32, 4
"""Batteries of the same weights, and children of one parent, a corpus and seed."""
Row = dict[str, Any]


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Grade writers, intervals and false alarms at three corpora and every seed.

    Args:
        config: the model, the battery and the budget that training takes a part of.
        seeds: repetitions; seed numbers follow the configuration's own.
        jobs: corpora and seeds at once, one CPU thread each where there is more than one.
        say: takes a line of progress.

    Raises:
        CorpusError: one of the three corpora cannot be had here.
    """
    config = arms.unhurried(config, jobs)
    with tempfile.TemporaryDirectory() as folder:
        sources = write_corpora(Path(folder))
        works = [
            (one, corpus, sources[corpus])
            for corpus in CORPORA
            for one in arms.seeded(config, seeds)
        ]
        rows = arms.told(arms.each(_grade, works, jobs), _line, say)
    data = arms.heading("battery", config, jobs) | {"rows": rows, "summary": summarised(rows)}
    return _table(rows), data


def opened(config: RunConfig, source: str, seed: int) -> Workbench:
    """Return the workbench of a corpus with enough unread text for people to be heard."""
    fracs = {"data.validation_frac": 0.12, "data.confirm_frac": 0.1}
    changes = {"data.corpus": source, "seed": seed, **fracs}
    return Workbench(changed(config, changes), cache_of(config))


def trained(bench: Workbench, steps: int) -> Member:
    """Return a member trained for ``steps``, its learning rate decayed to the end."""
    member = bench.fresh_member("relu(x)²", "line")
    member.train(steps, bench.train_batches("line"), lambda s: lr_factor(bench.config, s / steps))
    return member


def battery_of(
    bench: Workbench, texts: Sequence[str], prompts: Sequence[str], *, ended: bool = False
) -> Battery:
    """Score texts as a battery: one for each of ``prompts`` and temperature, prompt by prompt."""
    temperatures = bench.config.gates.temperatures
    cells = [(i, p, t) for i, p in enumerate(prompts) for t in temperatures]
    answers = [
        Answer(i, p, t, text, None, ended) for (i, p, t), text in zip(cells, texts, strict=True)
    ]
    return _scored(bench, answers)


def ranked(bench: Workbench, good: GPT, poor: GPT, seed: int) -> dict[str, Battery]:
    """Return every writer's battery; texts are as long as the good model's answers."""
    temperatures = bench.config.gates.temperatures
    answers = {
        name: answer_all(bench, model, bench.prompts, temperatures)
        for name, model in (("trained", good), ("undertrained", poor))
    }
    lengths = [max(6, len(words_of(answer.text))) for answer in answers["trained"]]
    prompts = [answer.prompt for answer in answers["trained"]]
    found = {name: _scored(bench, given) for name, given in answers.items()}
    for writer in (*WRITERS, *BROKEN):
        if writer not in found:
            texts = write(writer, bench.data.splits, prompts, lengths, seed)
            ended = writer in {"echo", "two words", "punctuation", "stock answer"}
            found[writer] = battery_of(bench, texts, bench.prompts, ended=ended)
    return found


def summarised(rows: Sequence[Row]) -> dict[str, float]:
    """Return the figures that stand for all corpora and seeds, those of alarms with intervals.

    Headline is `worst_false_improvement_frac`: of the two kinds of equals, the one that more often
    passed for an improvement.
    """
    kinds = {
        "false_improvement_same_weights_frac": "false_sampling",
        "false_improvement_children_frac": "false_children",
    }
    summary = {
        "order_kept_frac": float(np.mean([row["order_kept"] for row in rows])),
        "interval_coverage_frac": float(np.mean([h for row in rows for h in row["held"]])),
        "training_noise_nats": float(np.mean([row["children_sd_nats"] for row in rows])),
    }
    for key, kind in kinds.items():
        alarms = [alarm for row in rows for alarm in row[kind]]
        share = share_interval(sum(alarms), len(alarms), confidence=0.95)
        summary |= arms.in_keys(key, share) | {f"{key}_of": float(len(alarms))}
    return summary | {"worst_false_improvement_frac": max(summary[key] for key in kinds)}


def _grade(work: tuple[RunConfig, str, str]) -> Row:
    config, corpus, source = work
    seed = config.seed
    bench = opened(config, source, seed)
    steps = max(20, round(TRAINED_FRAC * config.budget.steps))
    member = trained(bench, steps)
    good = member.averaged()
    poor = trained(bench, max(10, round(UNDERTRAINED_FRAC * steps))).averaged()
    found = {name: battery.quality for name, battery in ranked(bench, good, poor, seed).items()}
    values = {name: quality.value for name, quality in found.items()}
    in_order = all(values[a] > values[b] for a, b in pairwise(WRITERS))
    below = all(values[name] < values["trained"] for name in BROKEN)
    return {
        "corpus": corpus,
        "seed": seed,
        "quality": {name: [q.value, q.low, q.high] for name, q in found.items()},
        "order_kept": in_order and below,
        "held": _held(bench, good, poor, seed),
        "false_sampling": _false_sampling(bench, good),
        **_children(bench, member, max(10, round(CHILD_FRAC * steps))),
    }


def _held(bench: Workbench, good: GPT, poor: GPT, seed: int) -> list[bool]:
    pool = [p.text for p in bench.data.prompts(POOL, seed, max_tokens=bench.config.model.context)]
    temperatures = bench.config.gates.temperatures
    written = [answer_all(bench, model, pool, temperatures) for model in (poor, good)]
    rng = generator(seed, "pool")
    singles, pairs = [], []
    for draw in range(DRAWS):
        drawn = set(rng.permutation(POOL)[: bench.config.gates.n_prompts].tolist())
        before, after = (
            _scored(bench, [a for a in answers if a.prompt_index in drawn], seed=draw)
            for answers in written
        )
        singles.append(after.quality)
        pairs.append(paired_quality(before, after, seed=draw, confidence=0.95))
    held = []
    for intervals in (singles, pairs):
        truth = float(np.mean([interval.value for interval in intervals]))
        # Draws without replacement vary less, by this much, than draws from all of the language.
        share = math.sqrt(1.0 - bench.config.gates.n_prompts / POOL)
        held += [
            (i.low - i.value) * share <= truth - i.value <= (i.high - i.value) * share
            for i in intervals
        ]
    return held


def _false_sampling(bench: Workbench, model: GPT) -> list[bool]:
    nats = tuple(bench.measure(model, bench.validation).tolist())
    temperatures = bench.config.gates.temperatures
    batteries = [
        _scored(bench, answer_all(bench, model, bench.prompts, temperatures, seed=1000 + i))
        for i in range(SAMPLINGS)
    ]
    pairs = list(zip(batteries[::2], batteries[1::2], strict=True))
    both = [*pairs, *((after, before) for before, after in pairs)]
    return [_improved(bench, nats, nats, before, after) for before, after in both]


def _children(bench: Workbench, parent: Member, steps: int) -> dict[str, Any]:
    nats, batteries = [], []
    temperatures = bench.config.gates.temperatures
    for child in range(CHILDREN):
        member = parent.fork()
        member.train(steps, bench.train_batches("child", child), lambda _: CHILD_LR)
        model = member.averaged()
        nats.append(tuple(bench.measure(model, bench.validation).tolist()))
        answers = answer_all(bench, model, bench.prompts, temperatures, seed=child)
        batteries.append(_scored(bench, answers))
    return {
        "children_sd_nats": float(np.std([np.mean(n) for n in nats], ddof=1)),
        "false_children": [
            _improved(bench, nats[a], nats[b], batteries[a], batteries[b])
            for a, b in permutations(range(CHILDREN), 2)
        ],
    }


def _improved(
    bench: Workbench,
    start: tuple[float, ...],
    end: tuple[float, ...],
    before: Battery,
    after: Battery,
) -> bool:
    refs = [
        CheckpointRef(
            id=name, phase="homeostasis", attempt=1, step=0, formula="", val_bpb=0.0, val_nats=nats
        )
        for name, nats in (("start", start), ("end", end))
    ]
    outcome = Outcome(
        phase="homeostasis", attempt=1, start=refs[0], end=refs[1], best=refs[1], points=(),
        line_steps=0,
    )  # fmt: skip
    progress, _ = judge_battery(
        outcome, before=before, after=after, best_quality=None, best_battery=None,
        gates=bench.config.gates, seed=bench.config.seed,
    )  # fmt: skip
    return progress.passed


def _scored(bench: Workbench, answers: Sequence[Answer], *, seed: int = 0) -> Battery:
    return score_battery(bench.reference, answers, seed=seed, confidence=0.95)


def _line(row: dict[str, Any]) -> str:
    kept = "kept" if row["order_kept"] else "broken"
    alarms = sum((*row["false_sampling"], *row["false_children"]))
    said = "  ".join(f"{name} {row['quality'][name][0]:.2f}" for name in WRITERS[:4])
    return (
        f"{row['corpus']:<6} seed {row['seed']}  order {kept}  {said}  "
        f"coverage {np.mean(row['held']):.3f}  false alarms {alarms}"
    )


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("writer", *CORPORA, box=None)
    for name in (*WRITERS, *BROKEN):
        cells = []
        for corpus in CORPORA:
            values = [row["quality"][name] for row in rows if row["corpus"] == corpus]
            value, low, high = np.mean(values, axis=0)
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        table.add_row(name, *cells)
    table.add_section()
    for key, figure in summarised(rows).items():
        table.add_row(key.replace("_", " "), f"{figure:.4f}")
    return table
