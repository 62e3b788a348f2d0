"""What a run would take, at a speed that is told, measured in an earlier run, or assumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from symbio_core.compute.estimate import (
    Estimate,
    Speed,
    assumed_speed,
    estimate,
    speed_like,
    told_speed,
)
from symbio_core.config import RunConfig
from symbio_core.errors import ConfigError, Damaged, StorageError
from symbio_core.runner.opening import finished_runs, reopen
from symbio_core.runner.run import Run


def estimate_run(
    config: RunConfig, *, tokens_per_s: float | None = None, like: str | None = None
) -> Estimate:
    """Return hours and dollars of a run before its start, and what they are based on.

    Args:
        config: the run to come.
        tokens_per_s: a speed to go by (tokens/s).
        like: an earlier run in the same storage root to go by. Without either, it is the newest
            finished one there on the same kind of machine; and where there is none, the speed is
            assumed from the machine's arithmetic. The estimate says which.

    Raises:
        UnknownRun: there is no run called ``like``.
        ConfigError: that run has not finished a phase, or two speeds are given.
    """
    if tokens_per_s is not None and like is not None:
        raise ConfigError("two speeds are given, --tokens-per-s and --like; leave one of them out")
    if tokens_per_s is not None:
        return estimate(config, told_speed(tokens_per_s))
    if like is None:
        return estimate(config, _known_speed(config))
    return estimate(config, _speed_of(config, reopen(config.storage.root, like)))


def _known_speed(config: RunConfig) -> Speed:
    """Return the speed of the newest finished run on such a machine, or else an assumed one."""
    try:
        for run in finished_runs(config.storage.root):
            if _machine_types(run) == {config.compute.gce.machine_type} and _trained(run):
                return _speed_of(config, run)
    except StorageError as error:
        speed = assumed_speed(config)
        why = f"{speed.based_on}; earlier runs could not be looked at: {error}"
        return speed.model_copy(update={"based_on": why})
    return assumed_speed(config)


def _trained(run: Run) -> bool:
    return any(attempt.outcome.seconds > 0.0 for attempt in run.attempts)


def _machine_types(run: Run) -> set[str]:
    """Return the kinds of cloud machines that a run has had; none where it ran elsewhere."""
    return {one.machine_type for one in run.state.machines if one.billed_s}


def _speed_of(config: RunConfig, run: Run) -> Speed:
    tokens = sum(attempt.outcome.tokens for attempt in run.attempts)
    seconds = sum(attempt.outcome.seconds for attempt in run.attempts)
    if not tokens or seconds <= 0.0:
        raise ConfigError(
            f"run '{run.run_id}' has not finished a phase, so its speed is not known; "
            "name another one, or leave --like out"
        )
    where = f"run {run.run_id} on {_device(run)}"
    return speed_like(config, run.config, tokens / seconds, where)


def _device(run: Run) -> str:
    """Return what a run trained on: the kinds of its cloud machines, or what its report says."""
    if kinds := _machine_types(run):
        return " and ".join(sorted(kinds))
    try:
        report: Any = json.loads(run.store.read_file("report/final-report.json"))
    except (Damaged, ValueError):
        return "a machine that it has not reported yet"
    where = report.get("environment", {}) if isinstance(report, Mapping) else {}
    return str(where.get("device", "a machine that it does not name"))
