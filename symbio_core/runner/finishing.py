"""The end of a run: choose what is shipped, export it, write metrics and the report."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors.numpy import save

from symbio_core import __version__, report
from symbio_core.errors import CheckpointDamaged, Damaged, UnknownRun
from symbio_core.model import GPT
from symbio_core.records import CheckpointRef, Environment
from symbio_core.runner.exported import CONFIG, TOKENIZER, WEIGHTS
from symbio_core.storage.canonical import parsed_json

if TYPE_CHECKING:
    from symbio_core.runner.run import Run


def finish(run: Run) -> report.FinalReport:
    """Export the model, write metrics and report, and return the report."""
    shipped = ship(run)
    with run.store.listing():
        if shipped.id != _exported(run):
            export(run, run.vault.load_model(shipped.id), shipped)
        write_metrics(run)
        return write_report(run, shipped)


def ship(run: Run) -> CheckpointRef:
    """Return the checkpoint to give away: the lowest validation loss of those kept and whole.

    One whose model is exported already and whole needs no files of its own any more: a worse one
    must not take its place.

    Raises:
        UnknownRun: no phase is finished yet.
        CheckpointDamaged: none of them is whole.
    """
    state = run.state
    kept = (*state.known.values(), *state.dormant, state.best, run.confirmed)
    known = [ref for ref in kept if ref is not None]
    if not known:
        raise UnknownRun(
            f"run '{run.run_id}' has not finished its first phase, so there is nothing to report "
            f"yet; go on with it by `symbio resume {run.run_id}`"
        )
    damage: CheckpointDamaged | None = None
    exported = _exported(run)
    for ref in sorted(known, key=lambda ref: (ref.val_bpb != ref.val_bpb, ref.val_bpb, ref.id)):
        try:
            if ref.id != exported:
                run.store.checkpoints.load(ref.id)
        except CheckpointDamaged as error:
            damage = damage or error
            continue
        return ref
    assert damage is not None
    raise damage


def _exported(run: Run) -> str | None:
    """Return the checkpoint of the model that is exported; None where it is not, or not whole."""
    try:
        if not run.store.files_listed().keys() >= {WEIGHTS, CONFIG, TOKENIZER}:
            return None
        files = {name: run.store.read_file(name) for name in (WEIGHTS, CONFIG, TOKENIZER)}
        return str(parsed_json(files[CONFIG])["checkpoint"])
    except (Damaged, KeyError, TypeError, ValueError):
        return None


def export(run: Run, model: GPT, shipped: CheckpointRef) -> None:
    """Write the model to take away: weights, shape and formula, tokenizer; nothing else needed."""
    weights = {name: p.detach().cpu().numpy() for name, p in model.named_parameters()}
    about = {
        "formula": shipped.formula,
        "n_vocab": run.bench.n_vocab,
        "model": run.config.model.model_dump(mode="json"),
        "format": run.bench.data.format,
        "checkpoint": shipped.id,
        "val_bpb": shipped.val_bpb,
        "symbio": __version__,
    }
    run.store.write_file(WEIGHTS, save(weights))
    run.store.write_file(CONFIG, (json.dumps(about, indent=2) + "\n").encode())
    run.store.write_file(TOKENIZER, run.bench.data.tokenizer.to_json().encode())


def write_metrics(run: Run) -> None:
    """Write the series of the run as tables: evaluations, candidates, generations."""
    points: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    generations: list[dict[str, Any]] = []
    for attempt in run.attempts:
        where = {"phase": attempt.outcome.phase, "attempt": attempt.outcome.attempt}
        points += [where | point.model_dump() for point in attempt.outcome.points]
        for generation in attempt.outcome.generations:
            about = generation.model_dump(exclude={"members"}, mode="json")
            generations.append(where | about)
            members += [
                where
                | {
                    "generation": generation.index,
                    "formula": member.candidate.formula,
                    "mutation": member.candidate.mutation,
                    "nodes": member.candidate.nodes,
                    "rung": member.rung,
                    "loss_nats": member.score.loss_nats.value if member.score else None,
                    "low": member.score.loss_nats.low if member.score else None,
                    "high": member.score.loss_nats.high if member.score else None,
                    "seconds": member.score.seconds if member.score else None,
                    "fate": member.fate,
                }
                for member in generation.members
            ]
    for name, rows in {
        "evaluations": points,
        "candidates": members,
        "generations": generations,
    }.items():
        if rows:
            run.store.write_metrics(name, pd.DataFrame(rows))


def write_report(run: Run, shipped: CheckpointRef) -> report.FinalReport:
    """Write final-report.json and report.html from the journal, and return the report."""
    built = report.build(
        run_id=run.run_id,
        config=run.config,
        attempts=run.attempts,
        state=run.state,
        confirmation=run.confirmation,
        environment=environment(run),
        started=run.started,
        ended=run.ended,
        shipped=shipped,
    )
    page = report.render(built, run.attempts)
    run.store.write_report("final-report.json", report.to_json(built).encode())
    run.store.write_report("report.html", page.encode())
    return built


def environment(run: Run) -> Environment:
    """Return where the run runs."""
    device = run.bench.device
    name = torch.cuda.get_device_name() if device.name == "cuda" else platform.machine()
    return Environment(
        symbio=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        device=f"{device.name} ({name})",
        cpu_count=device.cores,
        threads=device.threads,
        precision=device.precision,
        platform=platform.platform(),
    )
