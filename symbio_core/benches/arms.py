"""What benches with many runs share: settings that no clock ends, a search alone, many at once."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from symbio_core import __version__, runner
from symbio_core.config import RunConfig, changed
from symbio_core.errors import ConfigError
from symbio_core.monitors import t_interval
from symbio_core.records import Confirmation, Generation, Interval
from symbio_core.runner.living import judge
from symbio_core.runner.run import FIRST_FUNCTION, cache_of
from symbio_core.runner.workbench import Workbench

A = TypeVar("A")
B = TypeVar("B")
Say = Callable[[str], object]
SMALL_BATTERY = {"gates.n_prompts": 4, "gates.temperatures": (0.7,), "gates.new_tokens": 16}
"""The battery where only the search is looked at: it stands between phases and is not measured."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A run that was lived up to its final and no further."""

    run_id: str
    seed: int
    line: str
    """Formula of the main line when the final began."""
    after: str
    """Formula that the main line goes on with after the final."""
    generations: tuple[Generation, ...]
    confirmation: Confirmation | None
    """None where the run ended before its final."""
    steps: int
    seconds: float
    """Processor time on a CPU, wall time on a GPU (s)."""


def unhurried(config: RunConfig, jobs: int) -> RunConfig:
    """Return the settings without any cap on seconds, so that arms never differ in steps.

    With more than one job each takes one CPU thread.
    """
    changes: dict[str, Any] = {"budget.max_seconds": None, "gates.overtime": 1e6}
    if jobs > 1:
        changes["compute.threads"] = 1
    return changed(config, changes)


def seeded(config: RunConfig, seeds: int) -> list[RunConfig]:
    """Return the settings with as many seeds, counted from their own."""
    return [changed(config, {"seed": config.seed + i}) for i in range(seeds)]


def each(work: Callable[[A], B], items: Sequence[A], jobs: int) -> Iterator[B]:
    """Yield what ``work`` returns for each item, in order; several jobs are processes."""
    if jobs == 1:
        yield from map(work, items)
        return
    with workers(jobs) as pool:
        yield from pool.map(work, items)


def workers(jobs: int) -> ProcessPoolExecutor:
    """Return so many processes, which end when this one does, however that comes about."""
    return ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_end_with_the_parent
    )


def _end_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def told(results: Iterable[B], line: Callable[[B], str], say: Say) -> list[B]:
    """Say a line for each result as it comes, and return all."""
    found = []
    for result in results:
        say(line(result))
        found.append(result)
    return found


def check_searches(config: RunConfig, bench: str) -> None:
    """Refuse settings under which there is no search or no final to look at.

    Raises:
        ConfigError: which of them is switched off.
    """
    for mechanism in ("search", "final"):
        if mechanism in config.without:
            raise ConfigError(
                f"{bench} looks at the {mechanism}, which is switched off; leave it out of "
                f"--without (found: {', '.join(config.without)})"
            )


def search(config: RunConfig, name: str, *, formula: str = FIRST_FUNCTION) -> Searched:
    """Live a run up to its final and no further, by the moves that every life is made of.

    Its journal stays in the storage root; its weights are thrown away.

    Args:
        config: the run's settings.
        name: what the run's name begins with.
        formula: function that the main line begins with.
    """
    run = runner.open_run(config, f"{name}-{runner.new_name(config)}", formula=formula)
    clock = clock_of(run.bench)
    began = clock()
    line = after = formula
    generations: list[Generation] = []
    steps = 0
    while run.confirmation is None and (plan := run.plan_next()) is not None:
        outcome = run.train(plan)
        line, after = outcome.start.formula, outcome.end.formula
        if outcome.generations:
            line = outcome.generations[-1].winner
        generations += outcome.generations
        steps += outcome.steps
        if run.confirmation is None:
            judge(run, plan)
    seconds = clock() - began
    with run.writing():
        run.store.checkpoints.retain(set())
    run.release()
    return Searched(
        run.run_id, config.seed, line, after, tuple(generations), run.confirmation, steps, seconds
    )


def clock_of(bench: Workbench) -> Callable[[], float]:
    """Return processor time on a CPU, so that whatever else it does is not counted, else wall."""
    return time.process_time if bench.device.name == "cpu" else time.perf_counter


def prepare_tokens(configs: Iterable[RunConfig]) -> None:
    """Write the token files of every configuration, so that no two processes write the same."""
    for config in configs:
        Workbench(config, cache_of(config))


def in_keys(key: str, interval: Interval) -> dict[str, float]:
    """Return a figure and the ends of its interval as a summary holds them, which is flat."""
    return {key: interval.value, f"{key}_ci_low": interval.low, f"{key}_ci_high": interval.high}


def mean_in_keys(key: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of one value a seed, with Student's interval where there are several."""
    return in_keys(key, t_interval(values)) if len(values) > 1 else {key: float(values[0])}


def model_in_words(config: RunConfig) -> str:
    """Return the shape of the model that a bench trained, for its table."""
    model, optimiser = config.model, config.optimiser
    return (
        f"{model.n_layer} layers × {model.n_embd}, context {model.context}, "
        f"batch {optimiser.batch_size}, {config.budget.steps} steps"
    )


def heading(bench: str, config: RunConfig, jobs: int) -> dict[str, Any]:
    """Return what every bench's data begins with: when, where, and under which settings."""
    return {
        "bench": bench,
        "date": datetime.now(UTC).date().isoformat(),
        "code": _code(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "jobs": jobs},
        "model": model_in_words(config),
        "config": placeless(config),
    }


def _code() -> dict[str, str]:
    """Return what was measured: versions and, in a checkout, the commit ("-dirty" if changed)."""
    found = {"symbio": __version__, "torch": version("torch"), "python": platform.python_version()}
    # Where the package lies installed inside somebody's repository, that commit says nothing.
    if not _git("ls-files", Path(__file__).name):
        return found
    return found | {"commit": _git("describe", "--always", "--dirty", "--exclude", "*")}


def _git(*words: str) -> str:
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return told.stdout.strip()


def placeless(config: RunConfig) -> dict[str, Any]:
    """Return all settings that bear on a figure: of folders, which differ by machine, the name."""
    told = config.model_dump(mode="json", exclude={"storage": {"root"}})
    if not config.data.corpus.startswith("gs://"):
        told["data"]["corpus"] = Path(told["data"]["corpus"]).name
    return told
