"""Does a symbio run beat the fixed functions at equal steps, and at equal seconds?

The fixed arms train one function for the whole budget with the same optimiser, schedule, data
order and initial weights as the run of the same seed. At equal seconds they train for as long as
the whole run took, gates and search included, with the schedule stretched to that length. Seconds
are those of the processor on a CPU, so that whatever else the machine does is not counted, and wall
time on a GPU.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich.table import Table

from symbio_core import runner
from symbio_core.benches import arms
from symbio_core.benches.arms import Say
from symbio_core.config import RunConfig
from symbio_core.runner.confirm import fixed_functions
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench
from symbio_core.training import lr_factor
from symbio_core.training.schedule import warmup

Arm = dict[str, Any]


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Live a run a seed, train every fixed function as long, and compare pair by pair.

    Args:
        config: what is measured; its caps on seconds are lifted, or arms would differ in steps.
        seeds: repetitions; seed numbers follow the configuration's own.
        jobs: arms at once, one CPU thread each where there is more than one.
        say: takes a line of progress.
    """
    config = arms.unhurried(config, jobs)
    configs = arms.seeded(config, seeds)
    fixed = fixed_functions(gated=config.model.ffn == "gated")
    arms.prepare_tokens([config])
    lives = arms.told(arms.each(_live, configs, jobs), _line, say)
    pairs = [(c, f, c.budget.steps) for c in configs for f in fixed.values()]
    by_steps = arms.told(arms.each(_train_fixed, pairs, jobs), _line, say)
    longer = [
        (c, f, max(1, round(life["seconds"] / arm["seconds_per_step"])))
        for (c, f, _), arm in zip(pairs, by_steps, strict=True)
        for life in lives
        if life["seed"] == c.seed
    ]
    by_seconds = arms.told(arms.each(_train_fixed, longer, jobs), _line, say)
    names = {text: name for name, text in fixed.items()}
    data = {
        **arms.heading("efficacy", config, jobs),
        "symbio": lives,
        "fixed_steps": [arm | {"name": names[arm["formula"]]} for arm in by_steps],
        "fixed_seconds": [arm | {"name": names[arm["formula"]]} for arm in by_seconds],
    }
    data["summary"] = _summary(data)
    return _table(data), data


def _live(config: RunConfig) -> Arm:
    run = runner.open_run(config, f"efficacy-{runner.new_name(config)}-s{config.seed}")
    clock, wall = arms.clock_of(run.bench), time.perf_counter()
    began = clock()
    report = runner.live(run)
    seconds = clock() - began
    shipped = run.vault.load_model(report.shipped.id)
    return {
        "arm": "symbio",
        "seed": config.seed,
        "formula": report.shipped.formula,
        "steps": run.state.steps_spent,
        "line_steps": sum(a.outcome.line_steps for a in run.attempts),
        "seconds": seconds,
        "wall_seconds": time.perf_counter() - wall,
        "verdict": report.verdict,
        "decisions": [f"{a.outcome.phase}: {a.decision.kind}" for a in run.attempts],
        **_losses(run.bench, shipped),
    }


def _train_fixed(work: tuple[RunConfig, str, int]) -> Arm:
    config, formula, steps = work
    bench = Workbench(config, cache_of(config))
    member = bench.fresh_member(formula, "line")
    clock = arms.clock_of(bench)
    began = clock()
    member.train(
        steps,
        bench.train_batches("line"),
        lambda step: lr_factor(config, step / steps) * warmup(config, step),
    )
    seconds = clock() - began
    live, ema = (
        bench.measure(m, bench.validation).mean() for m in (member.model, member.averaged())
    )
    model = member.model if live <= ema else member.averaged()
    return {
        "arm": "fixed",
        "seed": config.seed,
        "formula": formula,
        "steps": steps,
        "seconds": seconds,
        "seconds_per_step": seconds / steps,
        **_losses(bench, model),
    }


def _losses(bench: Workbench, model: Any) -> Arm:
    val = float(bench.measure(model, bench.validation).mean())
    confirm = float(bench.measure(model, bench.confirmed).mean())
    return {
        "val_nats": val,
        "val_bpb": bench.bpb(val, bench.validation),
        "confirm_bpb": bench.bpb(confirm, bench.confirmed),
    }


def _line(arm: Arm) -> str:
    return (
        f"{arm['arm']:<7} seed {arm['seed']}  {arm['formula']}  {arm['steps']} steps  "
        f"{arm['seconds']:.0f} s  {arm['val_bpb']:.4f} bits/byte"
    )


def _summary(data: dict[str, Any]) -> dict[str, float | str]:
    summary: dict[str, float | str] = {}
    for basis in ("steps", "seconds"):
        trained = data[f"fixed_{basis}"]
        names = sorted({arm["name"] for arm in trained})
        best = min(names, key=lambda n: float(np.mean(_by_seed(trained, n, "val_bpb"))))
        for split in ("val", "confirm"):
            own = np.array([life[f"{split}_bpb"] for life in data["symbio"]])
            other = np.array(_by_seed(trained, best, f"{split}_bpb"))
            name = "delta_bpb" if split == "val" else "delta_confirm_bpb"
            key = f"{name}_vs_best_fixed_{basis}"
            summary |= arms.mean_in_keys(key, own - other)
        summary[f"best_fixed_{basis}"] = best
        for name in names:
            other = np.array(_by_seed(trained, name, "val_bpb"))
            own = np.array([life["val_bpb"] for life in data["symbio"]])
            key = {"ReLU²": "relu2"}.get(name, name.lower())
            summary |= arms.mean_in_keys(f"delta_bpb_vs_{key}_{basis}", own - other)
    summary["symbio_seconds"] = float(np.mean([life["seconds"] for life in data["symbio"]]))
    return summary


def _by_seed(trained: list[Arm], name: str, key: str) -> list[float]:
    found = sorted((arm for arm in trained if arm["name"] == name), key=lambda arm: arm["seed"])
    return [float(arm[key]) for arm in found]


def _table(data: dict[str, Any]) -> Table:
    table = Table(
        "arm", "basis", "steps", "val bits/byte", "confirm bits/byte", "seconds", box=None
    )
    rows: list[tuple[str, str, list[Arm]]] = [("symbio", "–", data["symbio"])]
    for basis in ("steps", "seconds"):
        for name in sorted({arm["name"] for arm in data[f"fixed_{basis}"]}):
            trained = [a for a in data[f"fixed_{basis}"] if a["name"] == name]
            rows.append((name, f"equal {basis}", trained))
    for name, basis, trained in rows:
        table.add_row(
            name,
            basis,
            f"{np.mean([a['steps'] for a in trained]):.0f}",
            _mean_sd([a["val_bpb"] for a in trained]),
            _mean_sd([a["confirm_bpb"] for a in trained]),
            f"{np.mean([a['seconds'] for a in trained]):.0f}",
        )
    for basis in ("steps", "seconds"):
        key = f"delta_bpb_vs_best_fixed_{basis}"
        low, high = data["summary"].get(f"{key}_ci_low"), data["summary"].get(f"{key}_ci_high")
        span = f" ({low:+.4f} to {high:+.4f})" if low is not None else ""
        best = data["summary"][f"best_fixed_{basis}"]
        table.add_row(
            f"symbio − {best}", f"equal {basis}", "", f"{data['summary'][key]:+.4f}{span}", "", ""
        )
    return table


def _mean_sd(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"
