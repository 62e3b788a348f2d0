"""Look at a run from outside: where it stands, what its model writes, how good it is."""

from __future__ import annotations

from dataclasses import dataclass

from symbio_core.config import StorageSettings
from symbio_core.monitors import t_interval
from symbio_core.records import Interval
from symbio_core.runner import changing
from symbio_core.runner.exported import load_exported
from symbio_core.runner.opening import reopen
from symbio_core.runner.places import address
from symbio_core.runner.run import Run
from symbio_core.runner.writing import write_battery


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of an evaluation."""

    name: str
    value: Interval


def report_path(root: str, run_id: str) -> str:
    """Return where a run's page lies: a path, or an address in a bucket."""
    return address(root, "runs", run_id, "report", "report.html")


def storage_option(run: Run) -> str:
    """Return what a command about a run needs besides its name, with a space before it."""
    root = run.config.storage.root
    return "" if root == StorageSettings().root else f" --storage {root}"


def resume_command(run: Run) -> str:
    """Return the command that goes on with a run."""
    return f"symbio resume {run.run_id}{storage_option(run)}"


def stands_at(run: Run) -> str:
    """Say in a few words how far a run has come."""
    if run.is_finished:
        return "finished"
    plan = run.under_way
    if plan is None:
        return "between two phases"
    again = f" (try {plan.attempt})" if plan.attempt > 1 else ""
    return f"in {plan.phase}{again}"


def summary(run: Run) -> list[str]:
    """Return the lines a person wants below the table: place, reasons, answer, next step."""
    lines = [
        f"{run.run_id}: {stands_at(run)}, "
        f"{run.state.steps_spent} of {run.config.budget.steps} steps"
    ]
    lines += [f"{a.outcome.phase}: {a.decision.reason}" for a in run.attempts]
    lines += changing.told(run.events)
    lines += [f"flag: {flag}" for flag in run.state.flags]
    if run.confirmation is not None:
        lines.append(f"verdict: {run.confirmation.sentence}")
    if not run.is_finished:
        lines.append(f"go on with: {resume_command(run)}")
    return lines


def sample(
    root: str, run_id: str, prompt: str, *, temperature: float, tokens: int, count: int, seed: int
) -> list[str]:
    """Let the exported model of a run go on from ``prompt``."""
    run = reopen(root, run_id)
    model = load_exported(run.store, run.config.compute)
    return model.write(prompt, temperature=temperature, tokens=tokens, count=count, seed=seed)


def evaluate(root: str, run_id: str) -> list[Measured]:
    """Measure the exported model on the held-out splits and let it write the battery."""
    run = reopen(root, run_id)
    model = load_exported(run.store, run.config.compute).model
    bench = run.bench
    found = []
    for name, batches in (("validation", bench.validation), ("confirm", bench.confirmed)):
        nats = t_interval(bench.measure(model, batches))
        unit = bench.bpb(1.0, batches)
        found.append(Measured(f"{name} loss (nats a token)", nats))
        found.append(Measured(f"{name} loss (bits a byte)", _scaled(nats, unit)))
    found.append(Measured("battery quality (0..1)", write_battery(bench, model).quality))
    return found


def _scaled(interval: Interval, unit: float) -> Interval:
    return Interval(value=interval.value * unit, low=interval.low * unit, high=interval.high * unit)
