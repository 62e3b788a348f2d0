"""Kill a living run again and again, let it go on, and see whether it ends with the same bits.

What is killed is the whole tree of processes that `symbio run` starts, by SIGKILL: nothing can be
caught or tidied up. Each further `symbio run` of the same name goes on where the run stands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from symbio_core import lifecycle
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import ConfigError, SymbioError
from symbio_core.profiles import profile
from symbio_core.runner.opening import reopen
from symbio_core.runner.processes import AIMS, Launch, Moment, Watch, kill_tree, spawn
from symbio_core.runner.verifying import Fingerprint, differences, divergence, fingerprint
from symbio_core.streams import generator
from symbio_core.training import prepare_device

PATIENCE_S = 3600.0
"""How long a process may take before it counts as hung (s)."""
WHOLE, KILLED = "whole", "killed"
TOLERANCE = 0.05
"""Relative difference of losses that rounding alone may make on a GPU."""
FINAL_FRACS = (0.15, 0.2, 0.3)
"""Shares of a shortened run that its final may get, besides the run's own."""
SPARE_LIVES = 5
"""Lives beyond three a kill that may end before they are killed."""
Say = Callable[[str], object]


def draw_moments(
    rng: np.random.Generator, count: int, life_s: float, aims: Sequence[str] = AIMS
) -> list[Moment]:
    """Draw kills that a life of ``life_s`` meets on its way: half anywhere, half aimed.

    A process that is killed begins again at its last checkpoint, so kills that come early on
    average leave the life to get on; one that comes too late for its process does not take place.
    """
    moments = []
    first = int(rng.integers(len(aims)))
    for index in range(count):
        if index % 2:
            aim = aims[(first + index // 2) % len(aims)]
            moments.append(Moment(aim, float(rng.uniform(0.0, 0.03))))
        else:
            moments.append(Moment("life", float(rng.uniform(0.0, 2.0 * life_s / (count + 1)))))
    return moments


@dataclass(slots=True)
class Life:
    """A run that was killed and has come to its end all the same."""

    run_id: str
    kills: list[Moment] = field(default_factory=list)
    """Those that took place."""
    torn: int = 0
    """Kills that left something half written: a part of a file, or blobs without a manifest."""
    seconds: float = 0.0
    """Wall time of all its processes (s)."""
    last_s: float = 0.0
    """Wall time of the last process, from its claim of the run (s)."""

    def __str__(self) -> str:
        if not self.kills:
            return f"ended before it was killed, {self.seconds:.0f} s"
        where = ", ".join(map(str, self.kills))
        return f"killed {times(len(self.kills))} ({where}), {self.seconds:.0f} s"


def live_killed(
    config: RunConfig,
    run_id: str,
    moments: Sequence[Moment],
    *,
    launch: Launch = spawn,
    plain: bool = True,
    patience_s: float = PATIENCE_S,
) -> Life:
    """Start a run, kill it at each of the moments, and let it come to its end.

    Args:
        config: the run; its storage is a folder.
        run_id: its name.
        moments: one for each process; a process that ends before its moment ends the life.
        launch: starts a process.
        plain: without Prefect.
        patience_s: how long a process may take (s).

    Raises:
        SymbioError: a process failed, or did not end in time; the message has its last words.
    """
    home = Path(config.storage.root).resolve() / "runs" / run_id
    home.parent.mkdir(parents=True, exist_ok=True)
    log = home.parent.parent / f"{run_id}.log"
    life = Life(run_id)
    words = command(config, run_id, plain=plain)
    for moment in (*moments, None):
        began = time.monotonic()
        watch = Watch(launch(words, log), home, log)
        try:
            code = watch.until(moment, began + patience_s)
        finally:
            # Also where this process is asked to end: nothing is left running.
            kill_tree(watch.process)
        life.seconds += time.monotonic() - began
        life.last_s = time.monotonic() - (watch.claimed_at or began)
        if code is None and moment is not None:
            life.kills.append(moment)
            life.torn += watch.is_torn()
            continue
        if code != 0:
            end = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-400:]
            how = "did not end in time" if code is None else f"ended with {code}"
            after = f" after it was killed {times(len(life.kills))}" if life.kills else ""
            raise SymbioError(f"run '{run_id}' {how}{after}; its last words: {end}")
        return life
    return life


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of a run that was killed, beside the same run left alone."""

    whole: Life
    killed: tuple[Life, ...]
    differs: tuple[str, ...]
    """Where they are not the same, in words."""
    diverges: tuple[str, ...]
    """Where they differ by more than rounding can explain."""
    tensors: int
    """Tensors that were compared."""

    @property
    def kills(self) -> int:
        """Kills that took place."""
        return sum(len(life.kills) for life in self.killed)

    @property
    def torn(self) -> int:
        """Those that left something half written."""
        return sum(life.torn for life in self.killed)


def prove(
    config: RunConfig,
    kills: int,
    say: Say,
    *,
    kills_a_life: int = 8,
    launch: Launch = spawn,
    plain: Callable[[int], bool] = lambda index: True,
) -> Proof:
    """Live a run once undisturbed, then again with kills until there were ``kills`` of them.

    Args:
        config: the run, as from `shortened`; it is lived in its own storage root.
        kills: how many.
        say: takes a line of progress.
        kills_a_life: more than this make another life.
        launch: starts a process.
        plain: whether the life of this number goes without Prefect.

    Raises:
        SymbioError: a process failed for another reason, or no kill took place.
    """
    root = config.storage.root
    rng = generator(config.seed, "kills")
    whole = live_killed(config, WHOLE, (), launch=launch)
    reference = fingerprint_at(root, WHOLE)
    say(f"undisturbed: {whole.seconds:.0f} s")
    lives: list[Life] = []
    differs: list[str] = []
    diverges: list[str] = []
    life_s, most = whole.last_s, 3 * kills + SPARE_LIVES
    while (left := kills - sum(len(life.kills) for life in lives)) > 0 and len(lives) < most:
        name = f"{KILLED}-{len(lives) + 1}"
        moments = draw_moments(rng, min(left, kills_a_life), life_s)
        life = live_killed(config, name, moments, launch=launch, plain=plain(len(lives)))
        lives.append(life)
        if not life.kills:
            life_s = min(life_s, life.last_s)  # The machine has become faster.
        here = fingerprint_at(root, name)
        unequal = differences(here, reference)
        differs += [f"{name}: {line}" for line in unequal]
        diverges += [f"{name}: {line}" for line in divergence(here, reference, TOLERANCE)]
        say(f"{name}: {life}, {'not the same bits' if unequal else 'the same bits'}")
    if not any(life.kills for life in lives):
        raise SymbioError(
            f"each of {len(lives)} runs ended before it could be killed, so nothing was shown; "
            "try again with more --kills, or on a machine that does nothing else"
        )
    tensors = sum(
        len(part) for c in reference.checkpoints.values() for n, part in c.items() if n == "member"
    )
    return Proof(whole, tuple(lives), tuple(differs), tuple(diverges), tensors)


def rounds_anew(config: RunConfig) -> bool:
    """Say whether the machine may round otherwise each time: a GPU that nobody told not to."""
    return prepare_device(config.compute).name != "cpu" and not config.compute.deterministic


def sentence(proof: Proof, config: RunConfig) -> str:
    """Return what a proof has shown, as a person would say it."""
    killed = f"The run was killed {times(proof.kills)}"
    if not proof.differs:
        return f"{killed} and ended with the same bits as the undisturbed one."
    if rounds_anew(config) and not proof.diverges:
        return (
            f"{killed} and went on each time. Bits differ, as on this GPU they do from run to run; "
            f"decisions are the same and losses within {TOLERANCE:.0%}. For the same bits, set "
            "compute.deterministic=true."
        )
    return f"{killed} and did not end as the undisturbed one did; see above where they differ."


def times(count: int) -> str:
    """Return how often, in words: `once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"


def fingerprint_at(root: str, run_id: str) -> Fingerprint:
    """Return the fingerprint of a run in a storage root."""
    return fingerprint(reopen(root, run_id))


def command(config: RunConfig, run_id: str, *, plain: bool) -> list[str]:
    """Return the words after `symbio` that start or go on with a run of ``config``."""
    words = ["run", "--profile", config.profile, "--run-id", run_id]
    if plain:
        words.append("--plain")
    usual = dict(_leaves(profile(config.profile).model_dump(mode="json"), ""))
    for key, value in _leaves(config.model_dump(mode="json"), ""):
        if usual.get(key) != value:
            words += ["--set", f"{key}={json.dumps(value)}"]
    return words


def shortened(config: RunConfig, root: str) -> RunConfig:
    """Return the same model, data and mechanisms with as few steps as a whole life can do with.

    Nothing in it depends on a clock: no cap on seconds, and no phase is ever too slow.
    """
    if config.compute.kind != "local":
        raise ConfigError("what is killed has to run here; set compute.kind=local")
    changes: dict[str, Any] = {
        "storage.root": root,
        "budget.max_seconds": None,
        "gates.overtime": 1e9,
        "gates.n_prompts": min(4, config.gates.n_prompts),
        "gates.eval_batches": min(8, config.gates.eval_batches),
        "search.eval_batches": min(4, config.search.eval_batches),
        "search.rungs": min(2, config.search.rungs),
        "confirm.seeds": 2,
        "confirm.eval_batches": min(8, config.confirm.eval_batches),
        "confirm.warm_steps": min(6, config.confirm.warm_steps),
        "optimiser.warmup_steps": min(10, config.optimiser.warmup_steps),
    }
    for name in PHASES:
        if config.phase(name).population:
            changes[f"phases.{name}.population"] = min(3, config.phase(name).population)
            changes[f"phases.{name}.rung_steps"] = min(3, config.phase(name).rung_steps)
    fracs = {config.confirm.steps_frac, *FINAL_FRACS}
    shares = [changed(config, {**changes, "confirm.steps_frac": frac}) for frac in sorted(fracs)]
    steps, short = min(
        ((lifecycle.smallest_budget(s), s) for s in shares), key=lambda pair: pair[0]
    )
    every = {"gates.eval_every": max(2, steps // 35), "storage.save_every": max(2, steps // 14)}
    return changed(short, {"budget.steps": steps, **every})


def _leaves(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
