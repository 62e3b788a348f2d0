"""Kill a living run again and again, let it go on, and see whether it ends with the same bits.

What is killed is the whole tree of processes that `symbio run` starts, by SIGKILL: nothing can be
caught or tidied up. Each further `symbio run` of the same name goes on where the run stands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from symbio_core import lifecycle
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import ConfigError, SymbioError
from symbio_core.profiles import profile
from symbio_core.runner.opening import reopen
from symbio_core.runner.verifying import Fingerprint, differences, divergence, fingerprint
from symbio_core.streams import generator
from symbio_core.training import prepare_device

POLL_S, IDLE_S = 0.002, 0.05
"""How often a living process is looked at that is to be killed, and one that is not (s)."""
PATIENCE_S = 3600.0
"""How long a process may take before it counts as hung (s)."""
WHOLE, KILLED = "whole", "killed"
TOLERANCE = 0.05
"""Relative difference of losses that rounding alone may make on a GPU."""
AIMS = ("start", "life", "search", "save", "battery", "decision", "final")
"""What a kill can wait for: the process, its claim of the run, or the midst of something."""


class Process(Protocol):
    """A started run."""

    @property
    def pid(self) -> int:
        """Its number, which is that of its group too."""

    def poll(self) -> int | None:
        """Return how it ended, or None while it lives."""


Launch = Callable[[Sequence[str], Path], Process]
"""Starts `symbio` with words in a process group of its own; all it says goes into a file."""
Say = Callable[[str], object]


def spawn(words: Sequence[str], log: Path) -> Process:
    """Start the command line as a person does."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "symbio_core.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is killed: so long after something has begun in it."""

    aim: str
    delay_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.aim} + {self.delay_s:.3f} s"


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
        watch = _Watch(launch(words, log), home, log)
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
            end = log.read_text(encoding="utf-8", errors="replace").strip()[-400:]
            how = "did not end in time" if code is None else f"ended with {code}"
            after = f" after {len(life.kills)} kills" if life.kills else ""
            raise SymbioError(f"run '{run_id}' {how}{after}; its last words in {log}: {end}")
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
        SymbioError: a process failed for another reason.
    """
    root = config.storage.root
    rng = generator(config.seed, "kills")
    whole = live_killed(config, WHOLE, (), launch=launch)
    reference = fingerprint_at(root, WHOLE)
    say(f"undisturbed: {whole.seconds:.0f} s")
    lives: list[Life] = []
    differs: list[str] = []
    diverges: list[str] = []
    while (left := kills - sum(len(life.kills) for life in lives)) > 0 and len(lives) < 3 * kills:
        name = f"{KILLED}-{len(lives) + 1}"
        moments = draw_moments(rng, min(left, kills_a_life), whole.last_s)
        life = live_killed(config, name, moments, launch=launch, plain=plain(len(lives)))
        lives.append(life)
        here = fingerprint_at(root, name)
        differs += [f"{name}: {line}" for line in differences(here, reference)]
        diverges += [f"{name}: {line}" for line in divergence(here, reference, TOLERANCE)]
        is_same = "not the same bits" if differs else "the same bits"
        told = "; ".join(str(moment) for moment in life.kills)
        say(f"{name}: killed {len(life.kills)} times ({told}), {life.seconds:.0f} s, {is_same}")
    tensors = sum(
        len(part) for c in reference.checkpoints.values() for n, part in c.items() if n == "member"
    )
    return Proof(whole, tuple(lives), tuple(differs), tuple(diverges), tensors)


def rounds_anew(config: RunConfig) -> bool:
    """Say whether the machine may round otherwise each time: a GPU that nobody told not to."""
    return prepare_device(config.compute).name != "cpu" and not config.compute.deterministic


def sentence(proof: Proof, config: RunConfig) -> str:
    """Return what a proof has shown, as a person would say it."""
    killed = f"The run was killed {proof.kills} times"
    if not proof.differs:
        return f"{killed} and ended with the same bits as the undisturbed one."
    if rounds_anew(config) and not proof.diverges:
        return (
            f"{killed} and went on each time. Bits differ, as on this GPU they do from run to run; "
            f"decisions are the same and losses within {TOLERANCE:.0%}. For the same bits, set "
            "compute.deterministic=true."
        )
    return f"{killed} and did not end as the undisturbed one did; see above where they differ."


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
        "confirm.steps_frac": 0.2,
        "optimiser.warmup_steps": min(10, config.optimiser.warmup_steps),
    }
    for name in PHASES:
        if config.phase(name).population:
            changes[f"phases.{name}.population"] = min(3, config.phase(name).population)
            changes[f"phases.{name}.rung_steps"] = min(3, config.phase(name).rung_steps)
    short = changed(config, changes)
    steps = min(config.budget.steps, lifecycle.smallest_budget(short))
    every = {"gates.eval_every": max(2, steps // 35), "storage.save_every": max(2, steps // 14)}
    return changed(short, {"budget.steps": steps, **every})


# --- how a process is watched and killed


class _Watch:
    """Sees from outside, by its files and its words, what a process is at."""

    def __init__(self, process: Process, home: Path, log: Path) -> None:
        self.process = process
        self.home = home
        self.log = log
        self.said = log.stat().st_size if log.exists() else 0
        self.claimed_at: float | None = None
        self.lease = _mtime(home / "LEASE")
        self.blobs = _names(home / "checkpoints" / "blobs")
        self.manifests = _names(home / "checkpoints" / "manifests")
        self.half_done = self._half_done()

    def until(self, moment: Moment | None, deadline: float) -> int | None:
        """Wait for a moment, or for the end; return how the process ended, None if it lives."""
        seen_at: float | None = None
        while time.monotonic() < deadline:
            code = self.process.poll()
            if code is not None:
                return code
            self._note_claim()
            if moment is not None:
                if seen_at is None and self._is_at(moment.aim):
                    seen_at = time.monotonic()
                if seen_at is not None and time.monotonic() >= seen_at + moment.delay_s:
                    return None
            time.sleep(POLL_S if moment is not None else IDLE_S)
        return None

    def is_torn(self) -> bool:
        """Say whether the process has left something half done that was not so before."""
        return bool(self._half_done() - self.half_done)

    def _half_done(self) -> frozenset[str]:
        """Return parts of files, and blobs that no manifest names."""
        folder = self.home / "checkpoints"
        blobs, manifests = _names(folder / "blobs"), _names(folder / "manifests")
        used = "".join(_text(folder / "manifests" / name) for name in manifests)
        others = manifests | _names(self.home) | _names(self.home / "journal")
        parts = {name for name in others if name.startswith(".part-")}
        return frozenset(parts | {name for name in blobs if name not in used})

    def _note_claim(self) -> None:
        if self.claimed_at is None and _mtime(self.home / "LEASE") != self.lease:
            self.claimed_at = time.monotonic()

    def _is_at(self, aim: str) -> bool:
        if aim == "start":
            return True
        if self.claimed_at is None:
            return False
        match aim:
            case "search":
                return self._last_words().find("searching") >= 0
            case "final":
                return self._last_words().find("confirming") >= 0
            case "save":
                return self._is_saving()
            case "battery":
                return self._last_event() == "trained"
            case "decision":
                return self._last_event() == "written"
        return True

    def _is_saving(self) -> bool:
        # Blobs come first and the manifest last, so new blobs alone are a save under way.
        manifests = _names(self.home / "checkpoints" / "manifests")
        blobs = _names(self.home / "checkpoints" / "blobs")
        if manifests != self.manifests:
            self.blobs, self.manifests = blobs, manifests
        return not blobs <= self.blobs

    def _last_words(self) -> str:
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self.said)
            return file.read().decode(errors="replace").rstrip().rpartition("\n")[2]
        return ""

    def _last_event(self) -> str:
        newest = max(_names(self.home / "journal"), default="")
        *_, last = _text(self.home / "journal" / newest).split("\n")[:-1] or [""]
        with suppress(ValueError):
            return str(json.loads(last).get("event", ""))
        return ""


def kill_tree(process: Process) -> None:
    """Kill a process and all that it has started, also in sessions of their own."""
    started = list(descendants(process.pid))
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pid in started:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    while process.poll() is None:
        time.sleep(POLL_S)


def descendants(pid: int) -> Iterator[int]:
    """Yield the numbers of all living processes below one, where the system tells them."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            text = entry.read_text(encoding="utf-8", errors="replace")
            if int(text.rpartition(")")[2].split()[1]) == pid:
                child = int(entry.parent.name)
                yield child
                yield from descendants(child)


def _leaves(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _names(folder: Path) -> frozenset[str]:
    with suppress(OSError):
        return frozenset(os.listdir(folder))
    return frozenset()


def _mtime(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
