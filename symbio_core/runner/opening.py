"""Open a new run or an old one; check everything that can be checked before minutes are spent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from symbio_core import lifecycle
from symbio_core.config import RunConfig, changed, checked
from symbio_core.errors import ConfigError, Damaged, UnknownRun
from symbio_core.runner.run import FIRST_FUNCTION, Run
from symbio_core.runner.vault import checkpoint_bytes
from symbio_core.storage import ObjectStore, RunStore, list_runs, open_store

AIR_BYTES = 50_000_000
"""Reports, metrics, token files and some air."""


def begin(config: RunConfig, run_id: str) -> Run:
    """Return the run called ``run_id``: gone on with if it exists, else a new one."""
    if run_id in names(config.storage.root):
        return reopen(config.storage.root, run_id)
    return open_run(config, run_id)


def open_run(config: RunConfig, run_id: str | None = None, *, formula: str = FIRST_FUNCTION) -> Run:
    """Begin a new run after checking corpus, budget, device, storage and disk.

    Args:
        config: all settings.
        run_id: the run's name; None makes one from the profile, the time and a few letters.
        formula: function that fresh weights begin with.

    Raises:
        BadInput: a setting, the corpus or the budget will not do.
        StorageError: the storage root cannot be written or is too full.
        NoDevice: CUDA was asked for and is missing.
    """
    lifecycle.check_budget(config)
    store = open_store(config.storage.root, location=config.storage.location)
    store.check_writable(predicted_bytes(config))
    name = run_id or new_name(config)
    if name in list_runs(store):
        raise ConfigError(
            f"run '{name}' exists already in {config.storage.root}; go on with it by "
            f"`symbio resume {name}`, or choose another name"
        )
    config = changed(config, {"start_from": find_donor(store, config)})
    run_store = RunStore(store, name)
    run = Run(name, config, run_store)
    # Made before anything is written: it refuses a corpus or a device that will not do.
    run.bench = run.new_bench()
    run_store.create(config.model_dump(mode="json"))
    run.open(formula)
    return run


def reopen(root: str, run_id: str) -> Run:
    """Open an existing run at whatever point its journal says.

    Raises:
        UnknownRun: there is none of that name; the message lists those there are.
    """
    store = open_store(root)
    known = list_runs(store)
    if run_id not in known:
        if not known:
            raise UnknownRun(f"no run '{run_id}': {no_runs(root)}")
        near = get_close_matches(run_id, known, n=3) or known[-5:]
        there = f"there are: {', '.join(near)}"
        raise UnknownRun(f"no run '{run_id}' in {root}; {there}; `symbio runs` lists them")
    run_store = RunStore(store, run_id)
    config = checked(RunConfig, run_store.read_config())
    # The folder may have moved since; what is in it is the run.
    return Run(run_id, changed(config, {"storage.root": root}), run_store)


def names(root: str) -> list[str]:
    """Return the names of all runs in a storage root, oldest first."""
    return list_runs(open_store(root))


def no_runs(root: str) -> str:
    """Say that a storage root holds no run, and where a mount may be missing."""
    hint = ""
    if "://" not in root:
        folder = Path(root)
        if not folder.is_dir():
            hint = " (there is no such folder; is its disk mounted?)"
        elif not any(folder.iterdir()):
            hint = " (that folder is empty; is its disk mounted?)"
    return f"no runs in {root} yet{hint}; start one with `symbio run`"


def newest(root: str) -> str:
    """Return the name of the newest run.

    Raises:
        UnknownRun: there is none yet.
    """
    store = open_store(root)
    known = list_runs(store)
    if not known:
        raise UnknownRun(no_runs(root))
    return max(known, key=lambda name: _began(store, name))


def new_name(config: RunConfig) -> str:
    """Return a run name that nobody else has: profile, time (UTC) and four letters."""
    now = datetime.now(UTC)
    return f"{config.profile}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def find_donor(store: ObjectStore, config: RunConfig) -> str | None:
    """Return the name of the run that ``start_from`` means, checked to fit; None starts afresh.

    `latest` with no finished run yet starts afresh: the first run of a schedule has no elder.

    Raises:
        UnknownRun: no such run.
        ConfigError: it has no model yet, or one of another shape.
    """
    if config.start_from is None:
        return None
    root = config.storage.root
    if config.start_from == "latest":
        latest = next(finished_runs(root), None)
        if latest is None:
            return None
        elder = latest
    else:
        elder = reopen(root, config.start_from)
    if elder.state.best is None:
        raise ConfigError(f"run '{elder.run_id}' has no judged checkpoint yet to start from")
    if elder.config.model != config.model:
        raise ConfigError(
            f"run '{elder.run_id}' trained another shape of model; give the same model settings, "
            "or start without start_from"
        )
    return elder.run_id


def finished_runs(root: str) -> Iterator[Run]:
    """Yield the finished runs of a storage root that can be read, newest first."""
    store = open_store(root)
    for name in sorted(list_runs(store), key=lambda n: _began(store, n), reverse=True):
        run = _readable(root, name)
        if run is not None and run.is_finished:
            yield run


def _readable(root: str, name: str) -> Run | None:
    """Return a run, or None where it is damaged: others may still be started from."""
    try:
        return reopen(root, name)
    except (Damaged, ConfigError):
        return None


def _began(store: ObjectStore, name: str) -> str:
    """Return when a run began (ISO 8601, UTC), reading one event of its journal."""
    try:
        first = RunStore(store, name).journal.first()
    except Damaged:
        return ""  # A damaged run hides no other.
    return str(first.get("at", "")) if first else ""


def predicted_bytes(config: RunConfig) -> int:
    """Return the disk space that a run will need (bytes)."""
    return checkpoint_bytes(config) + AIR_BYTES
