"""Processes that live a run, seen from outside: what each is at, and how all of it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

POLL_S, IDLE_S = 0.002, 0.05
"""How often a living process is looked at that is to be killed, and one that is not (s)."""
PLACES = {
    "start": "its start",
    "life": "its life",
    "search": "a search",
    "save": "a save",
    "battery": "a battery",
    "decision": "a decision",
    "final": "the final",
}
"""What a kill can wait for, in words: the process, its claim of the run, the midst of something."""
AIMS = tuple(PLACES)


class Process(Protocol):
    """A started run."""

    @property
    def pid(self) -> int:
        """Its number, which is that of its group too."""

    def poll(self) -> int | None:
        """Return how it ended, or None while it lives."""


Launch = Callable[[Sequence[str], Path], Process]
"""Starts `symbio` with words in a process group of its own; all it says goes into a file."""


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
        return f"{self.delay_s:.3f} s into {PLACES[self.aim]}"


class Watch:
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
