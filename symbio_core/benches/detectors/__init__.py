"""Does every detector of overfitting and plateaus see what it exists for, and nothing else?

Each situation is caused in a real training of a tiny model: in every seed the phase in which it
was planted is judged by all ten detectors at once. Beside them whole healthy lives, under several
settings, in which every phase is judged. The result is a confusion table, planted × detected; a
detector that fires beside the planted one is counted too, for none may mask another.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from symbio_core import runner
from symbio_core.benches import arms
from symbio_core.benches.arms import Say
from symbio_core.benches.detectors.lives import tiny
from symbio_core.benches.detectors.plants import HEALTHY, PLANTS
from symbio_core.config import RunConfig, changed
from symbio_core.gates.evidence import share_interval
from symbio_core.records import Response, Verdict
from symbio_core.runner.living import judge

DETECTORS = (
    "train/validation divergence",
    "candidate memorisation",
    "population collapse",
    "fusion trap",
    "complexity overfitting",
    "transfer interference",
    "activation space exhaustion",
    "punctuated equilibrium",
    "consensus stagnation",
    "learning-rate mismatch",
)
Row = dict[str, Any]
Work = tuple[RunConfig, str]


def measure(
    config: RunConfig,
    seeds: int,
    jobs: int,
    say: Say,
    *,
    planted: Sequence[str] = tuple(PLANTS),
    healthy: Sequence[str] = tuple(HEALTHY),
) -> tuple[Table, dict[str, Any]]:
    """Plant every situation in every seed, live the healthy lives, and count what fires.

    Args:
        config: its gates and its corpus; the model is the bench's own.
        seeds: repetitions; seed numbers follow the configuration's own.
        jobs: lives at once, one CPU thread each where there is more than one.
        say: takes a line of progress.
        planted: situations to plant.
        healthy: settings of the healthy lives.
    """
    config = arms.unhurried(config, jobs)
    configs = arms.seeded(config, seeds)
    works = [(one, name) for one in configs for name in (*planted, *healthy)]
    rows = arms.told(arms.each(_lived, works, jobs), _line, say)
    data = arms.heading("detectors", tiny(config), jobs) | {
        "plants": {name: PLANTS[name].about for name in planted},
        "rows": rows,
        "confusion": confusion(rows),
        "summary": summarised(rows),
    }
    return _table(data), data


def _lived(work: Work) -> Row:
    config, name = work
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if name in PLANTS:
            life = PLANTS[name].live(config, Path(folder))
            last = life.outcomes[-1]
            gates = [{"phase": last.phase, "fired": fired(life.judged(), last.responses)}]
        else:
            gates = _healthy(changed(config, {"storage.root": folder}), name)
    return {
        "case": name,
        "planted": PLANTS[name].detector if name in PLANTS else None,
        "seed": config.seed,
        "gates": gates,
        "seconds": time.process_time() - began,
    }


def _healthy(config: RunConfig, name: str) -> list[dict[str, Any]]:
    run = runner.open_run(tiny(config, arms.SMALL_BATTERY | HEALTHY[name]), "healthy")
    while (plan := run.plan_next()) is not None:
        run.train(plan)
        judge(run, plan)
    run.release()
    return [
        {"phase": a.plan.phase, "fired": fired(a.verdicts, a.outcome.responses)}
        for a in run.attempts
    ]


def fired(verdicts: Sequence[Verdict], responses: Sequence[Response] = ()) -> list[str]:
    """Return the names of the detectors that raised an alarm, the text gates left out.

    Args:
        verdicts: those of the gates after a phase.
        responses: what the phase has answered while it ran.
    """
    failed = {verdict.name for verdict in verdicts if not verdict.passed}
    failed |= {response.verdict.name for response in responses}
    return [name for name in DETECTORS if name in failed]


def fired_in(row: Row) -> set[str]:
    """Return all that fired at any gate of a life."""
    return {name for gate in row["gates"] for name in gate["fired"]}


def confusion(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return for each case in how many of its lives each detector fired."""
    cases = dict.fromkeys(row["case"] for row in rows)
    return {
        case: {
            name: sum(name in fired_in(row) for row in rows if row["case"] == case)
            for name in DETECTORS
        }
        for case in cases
    }


def summarised(rows: Sequence[Row]) -> dict[str, float]:
    """Return the figures that the goal names, and each case's own with its interval."""
    summary: dict[str, float] = {}
    planted = [row for row in rows if row["planted"]]
    for case in dict.fromkeys(row["case"] for row in planted):
        own = [row for row in planted if row["case"] == case]
        _add(summary, f"{case}_detected_frac", [row["planted"] in fired_in(row) for row in own])
        _add(summary, f"{case}_alone_frac", [fired_in(row) == {row["planted"]} for row in own])
    detected = [value for key, value in summary.items() if key.endswith("_detected_frac")]
    healthy = [row for row in rows if not row["planted"]]
    gates = [set(gate["fired"]) for row in healthy for gate in row["gates"]]
    _add(summary, "healthy_false_alarm_frac", [bool(fired_in(r)) for r in healthy])
    _add(summary, "healthy_gate_false_alarm_frac", [bool(names) for names in gates])
    for name in DETECTORS:
        key = f"healthy_gate_{name.replace(' ', '_').replace('/', '_').replace('-', '_')}_frac"
        summary[key] = share_interval(
            sum(name in names for names in gates), len(gates), confidence=0.95
        ).value
    return {
        "min_planted_detected_frac": min(detected, default=0.0),
        **summary,
        "healthy_runs": float(len(healthy)),
        "healthy_gates": float(len(gates)),
        "seconds_per_seed": sum(r["seconds"] for r in rows) / len({r["seed"] for r in rows}),
    }


def _add(summary: dict[str, float], key: str, hits: Sequence[bool]) -> None:
    share = share_interval(sum(hits), len(hits), confidence=0.95)
    summary |= arms.in_keys(key, share)


def _line(row: Row) -> str:
    names = ", ".join(sorted(fired_in(row))) or "nothing"
    return f"seed {row['seed']}  {row['case']}: {names}  {row['seconds']:.1f} s"


def _table(data: dict[str, Any]) -> Table:
    rows, summary = data["rows"], data["summary"]
    table = Table("planted", "seen", "95% interval", "what fired", box=None)
    for case, counts in data["confusion"].items():
        own = [row for row in rows if row["case"] == case]
        planted = own[0]["planted"]
        seen, span = f"– of {len(own)}", ""
        if planted:
            key = f"{case}_detected_frac"
            seen = f"{counts[planted]} of {len(own)}"
            span = f"{summary[f'{key}_ci_low']:.0%} to {summary[f'{key}_ci_high']:.0%}"
        table.add_row(case, seen, span, _told_of(counts, planted))
    table.add_section()
    for key, what in (("", "lives"), ("gate_", "phases")):
        name = f"healthy_{key}false_alarm_frac"
        low, high = summary[f"{name}_ci_low"], summary[f"{name}_ci_high"]
        table.add_row(
            f"healthy {what} with an alarm", f"{summary[name]:.1%}", f"{low:.1%} to {high:.1%}", ""
        )
    return table


def _told_of(counts: dict[str, int], planted: str | None) -> str:
    told = [name if name == planted else f"{name} ({n})" for name, n in counts.items() if n]
    return ", ".join(told) or "nothing"
