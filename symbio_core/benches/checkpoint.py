"""What saving costs: how long training stands still for it, and its speed beside a plain copy."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from rich.table import Table

from symbio_core.benches import uploading
from symbio_core.benches.arms import Say
from symbio_core.benches.uploading import Speeds
from symbio_core.config import RunConfig, changed
from symbio_core.monitors import t_interval
from symbio_core.profiles import l4
from symbio_core.records import PhasePlan
from symbio_core.runner.places import work_folder
from symbio_core.runner.run import cache_of
from symbio_core.runner.vault import Snapshot, Vault
from symbio_core.runner.workbench import Workbench
from symbio_core.search import initial_state
from symbio_core.storage import RunStore, open_store
from symbio_core.training import Member

PLAN = PhasePlan(phase="endosymbiosis", attempt=1, start=None, steps=10**6, begin=0.0, end=1.0)
LEAST_S = 2.0
"""Training between two saves lasts at least this long (s), so that one save is done by the next."""
SHORT_S = 0.3
"""Steps that take longer (s) are timed by themselves; small ones fill the time beside a save."""
ROWS = 2
"""Rows of a small step."""
PHASES_ENDED = 8
"""Phases and repeats that a run ends, each with a save of its last and one of its best line."""


@dataclass(frozen=True, slots=True)
class _Stalls:
    """What saves to one place cost the training."""

    stall_s: float
    """How long training stood still for a save inside a phase."""
    end_stall_s: float
    """The same for a save at the end of a phase, evaluation not counted."""
    slowed_s: float
    """How much longer the steps beside a save took than as many without, stall not counted."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One save in the midst of training, and the same bytes copied."""

    step_s: float
    folder: _Stalls
    save: float
    """From the copy in memory to the last fsync (MB/s)."""
    restore: float
    """From disk, checked, to a member that trains (MB/s)."""
    write: float
    """A plain file of as many bytes, written and synced (MB/s)."""
    read: float
    """The same file read (MB/s)."""
    size: int
    """Length of the checkpoint (bytes)."""
    sent: Speeds | None = None
    """To a bucket and back; None where there is none."""
    bucket: _Stalls | None = None
    """What saves to that bucket cost."""


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Train, save and restore in turn, for the profile and for the 17 M-parameter model of `l4`.

    The share of a run's time is the stall of a save times the saves of a run, over its steps times
    the time of a step; both are medians of the same rounds. What a save takes from the steps beside
    it, where cores are few, is told apart as `slowed_frac`. Saves to a bucket are measured as those
    to a folder are; their figures begin with `bucket`.

    Args:
        config: profile, corpus and storage; with a bucket as storage, that is what is sent to.
        seeds: rounds; at least 3 give an interval worth reading.
        jobs: not used; rounds must not disturb each other.
        say: takes a line of progress.
    """
    del jobs
    large = l4()
    # Measuring takes few batches here, so that the corpus of the profile will do.
    settings = {
        "data.corpus": config.data.corpus,
        "storage.root": config.storage.root,
        "compute": config.compute.model_dump(),
        "gates.eval_batches": 8,
        "search.eval_batches": 4,
        "confirm.eval_batches": 8,
    }
    arms = {config.profile: config, "l4": changed(large, settings)}
    table = Table("figure", *arms, box=None)
    columns: dict[str, dict[str, str]] = {}
    summary: dict[str, float] = {}
    rounds: dict[str, list[dict[str, Any]]] = {}
    for name, arm in arms.items():
        say(f"{name}:")
        found = _rounds(arm, seeds, say)
        rounds[name] = [asdict(r) for r in found]
        figures = _figures(arm, found)
        columns[name] = {key: _shown(values) for key, values in figures.items()}
        summary |= {f"{key} {name}": float(np.median(values)) for key, values in figures.items()}
    for key in next(iter(columns.values())):
        table.add_row(key, *(columns[name][key] for name in arms))
    for key in ("stall_frac", "bucket_stall_frac"):
        worst = [summary[f"{key} {name}"] for name in arms if f"{key} {name}" in summary]
        summary |= {key: max(worst)} if worst else {}
    return table, {"bench": "checkpoint", "rounds": rounds, "summary": summary}


def _figures(config: RunConfig, rounds: list[_Round]) -> dict[str, npt.NDArray[np.float64]]:
    def each(key: str) -> npt.NDArray[np.float64]:
        return np.array([getattr(r, key) for r in rounds], dtype=np.float64)

    training_s = config.budget.steps * each("step_s")
    found = {
        **_shares(config, training_s, [r.folder for r in rounds]),
        "step_s": each("step_s"),
        "save_mb_per_s": each("save"),
        "restore_mb_per_s": each("restore"),
        "plain_write_mb_per_s": each("write"),
        "plain_read_mb_per_s": each("read"),
        "save_over_plain": each("save") / each("write"),
        "restore_over_plain": each("restore") / each("read"),
    }
    sent = [r.sent for r in rounds if r.sent is not None]
    for key in Speeds.__slots__ if sent else ():
        found[f"{key}_mb_per_s"] = np.array([getattr(speeds, key) for speeds in sent])
    far = [r.bucket for r in rounds if r.bucket is not None]
    for key, values in _shares(config, training_s, far).items() if far else ():
        found[f"bucket_{key}"] = values
    return found


def _shares(
    config: RunConfig, training_s: npt.NDArray[np.float64], rounds: list[_Stalls]
) -> dict[str, npt.NDArray[np.float64]]:
    stall_s, end_stall_s, slowed_s = np.array([astuple(r) for r in rounds]).T
    saves = config.budget.steps / config.storage.save_every
    return {
        "stall_frac": (saves * stall_s + 2 * PHASES_ENDED * end_stall_s) / training_s,
        "slowed_frac": saves * slowed_s / training_s,
        "stall_s": stall_s,
        "end_stall_s": end_stall_s,
        "slowed_s": slowed_s,
    }


def _shown(values: npt.NDArray[np.float64]) -> str:
    middle = f"{np.median(values):.4g}"
    if len(values) < 2:
        return middle
    span = t_interval(values)
    return f"{middle} ({span.low:.3g} to {span.high:.3g})"


def _rounds(config: RunConfig, count: int, say: Say) -> list[_Round]:
    rows = config.optimiser.batch_size
    small = changed(config, {"optimiser.batch_size": min(ROWS, rows)})
    bench = Workbench(small, cache_of(config))
    evaluated = bench.validation
    bench.validation = evaluated[:1]  # A large model takes minutes for all of it.
    home = work_folder(config.storage.root)
    home.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=home) as folder,
        uploading.reachable(config.storage.root) as bucket,
        _vault_in(bucket, bench) as far,
    ):
        vault = Vault(RunStore(open_store(folder), "saved"), bench)
        member = bench.fresh_member("gelu(x)", "line")
        _train(bench, member, 1)  # A first step is slow and brings the optimiser's moments.
        found: list[_Round] = []
        for number in range(count):
            step_s = _train(_with_rows(bench, rows), member, 1)
            if step_s <= SHORT_S:
                vault.bench = _with_rows(bench, rows)
                # As in a run: the end of a phase is saved while it is evaluated.
                vault.bench.validation = evaluated
                step_s = _train(vault.bench, member, max(1, int(LEAST_S / step_s)))
            last = _round(vault, member, Path(folder), step_s)
            if bucket is not None and far is not None:
                far.bench = vault.bench
                last = replace(
                    last,
                    sent=uploading.speeds(bucket, last.size, seed=number),
                    bucket=_stalls(far, member),
                )
                far.checkpoints.retain(set())
            found.append(last)
            say(
                f"round {number + 1}: a save stalls {1e3 * last.folder.stall_s:.1f} ms, a step "
                f"takes {1e3 * last.step_s:.1f} ms; {last.save:.0f} MB/s beside {last.write:.0f} "
                "plain"
            )
    return found


@contextmanager
def _vault_in(bucket: str | None, bench: Workbench) -> Iterator[Vault | None]:
    """Yield a vault in a bucket, of which nothing stays."""
    if bucket is None:
        yield None
        return
    run = RunStore(open_store(bucket), f"bench-{uuid4().hex}")
    try:
        yield Vault(run, bench)
    finally:
        for key in run.store.keys(f"runs/{run.run_id}/"):
            run.store.delete(key)


def _with_rows(bench: Workbench, rows: int) -> Workbench:
    """Return a bench that trains on batches of so many rows."""
    other = copy.copy(bench)
    optimiser = bench.config.optimiser.model_copy(update={"batch_size": rows})
    other.config = bench.config.model_copy(update={"optimiser": optimiser})
    return other


def _stalls(vault: Vault, member: Member) -> _Stalls:
    bench = vault.bench
    steps = max(2, int(LEAST_S / _train(bench, member, 2)))
    search = initial_state(member.formula)
    line = Snapshot(member, search, Snapshot.of(member, search), {"line_steps": 1})
    _train(bench, member, 1)  # So that line and best differ, as they mostly do.
    at = member.line_step

    before, taken, beside_s = vault.stalled_s, 0, 0.0
    vault.save_step(PLAN, line, step=at)
    # As in a run: training waits for a save only when the next one is due.
    while taken == 0 or (vault.is_saving and taken < bench.config.storage.save_every):
        beside_s += steps * _train(bench, member, steps)
        taken += steps
    vault.join()
    stall_s = vault.stalled_s - before
    alone_s = taken * _train(bench, member, taken)

    before = vault.stalled_s
    vault.save_end(PLAN, member, search, step=at)
    return _Stalls(stall_s, vault.stalled_s - before, beside_s - alone_s)


def _round(vault: Vault, member: Member, folder: Path, step_s: float) -> _Round:
    bench = vault.bench
    stalls = _stalls(vault, member)
    search, at = initial_state(member.formula), member.line_step
    _train(bench, member, 1)
    again = Snapshot(member, search, Snapshot.of(member, search), {"line_steps": 2})
    _train(bench, member, 1)
    began = time.perf_counter()
    vault.save_step(PLAN, again, step=at + 1)
    vault.join()
    save_s = time.perf_counter() - began
    began = time.perf_counter()
    restored = vault.load_step(PLAN, lambda damage: None)
    restore_s = time.perf_counter() - began
    assert restored is not None
    size = sum(part.size for part in _newest(vault).values())
    write, read = _plain(folder / "plain", size)
    vault.checkpoints.retain(set())
    return _Round(
        step_s=step_s,
        folder=stalls,
        save=size / save_s / 1e6,
        restore=size / restore_s / 1e6,
        write=write,
        read=read,
        size=size,
    )


def _newest(vault: Vault) -> dict[str, Any]:
    manifest = vault.checkpoints.latest()
    assert manifest is not None
    return manifest.parts


def _train(bench: Workbench, member: Member, steps: int) -> float:
    """Return the wall time of a step (s)."""
    began = time.perf_counter()
    member.train(steps, bench.train_batches("checkpoint"), lambda _: 0.1)
    return (time.perf_counter() - began) / steps


def _plain(path: Path, size: int) -> tuple[float, float]:
    """Return the speeds of writing a file of ``size`` bytes to disk and of reading it (MB/s)."""
    data = np.random.default_rng(0).bytes(size)
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter() - began
    began = time.perf_counter()
    assert len(path.read_bytes()) == size
    read = time.perf_counter() - began
    path.unlink()
    return size / written / 1e6, size / read / 1e6
