"""What a bucket saw of a run's phases: how far each start was, and what it saved, in order."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from symbio_core.storage.checkpoints import Manifest, Pointer
from symbio_core.storage.post import Pulse
from tests.cloud.storage_world import Stored, World

PULSE = re.compile(r".*/elsewhere/(?P<phase>[^/]+)/pulse\.json")
MANIFEST = re.compile(r".*/checkpoints/manifests/[^/]+\.json")
LATEST = re.compile(r".*/checkpoints/LATEST")


@dataclass
class Start:
    """One start of a phase."""

    turn: int
    pulses: list[Pulse] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    """Steps of the run at which it saved the phase under way."""

    @property
    def told(self) -> list[int]:
        """Steps of the run that its pulses told."""
        return [pulse.step for pulse in self.pulses if pulse.step]


class Past:
    """The starts of every phase, by phase and attempt, as in `cambrian-1`."""

    def __init__(self, world: World) -> None:
        self.starts: dict[str, list[Start]] = defaultdict(list)
        self._written: dict[str, Manifest] = {}
        """Those that LATEST has not named yet: nobody goes on from them."""
        world.seen = self.see

    def see(self, stored: Stored) -> None:
        """Take in what was written: nothing is missed, as whoever looks now and then would."""
        if found := PULSE.fullmatch(stored.name):
            self._hear(found["phase"], Pulse.model_validate_json(stored.data))
        elif MANIFEST.fullmatch(stored.name):
            manifest = Manifest.model_validate_json(stored.data)
            self._written[manifest.id] = manifest
        elif LATEST.fullmatch(stored.name):
            named = Pointer.model_validate_json(stored.data).id
            if named in self._written:
                self._keep(self._written.pop(named))

    def _hear(self, phase: str, pulse: Pulse) -> None:
        starts = self.starts[phase]
        if not starts or starts[-1].turn != pulse.turn:
            starts.append(Start(pulse.turn))
        starts[-1].pulses.append(pulse)

    def _keep(self, manifest: Manifest) -> None:
        starts = self.starts.get("{phase}-{attempt}".format(**manifest.meta))
        if manifest.kind == "step" and starts:
            starts[-1].saved.append(manifest.step)

    def turn(self, phase: str) -> int:
        """Return the newest turn that a phase was heard of in; 0 before the first."""
        starts = self.starts.get(phase)
        return starts[-1].turn if starts else 0

    def saved(self, phase: str) -> list[int]:
        """Return the steps at which the newest start of a phase has saved so far."""
        starts = self.starts.get(phase)
        return list(starts[-1].saved) if starts else []

    def wrong(self) -> list[str]:
        """Return which starts did not go on at the step that was saved last before them."""
        return [
            f"{phase}, turn {start.turn}: step {step} was saved, but it told {start.told[:3]} and "
            f"saved {start.saved[:3]}"
            for phase, starts in self.starts.items()
            for step, start in zip(_reached(starts), starts, strict=True)
            if not _goes_on(start, step)
        ]


def _reached(starts: list[Start]) -> list[int]:
    """Return for each start the furthest step that was saved before it."""
    return [
        max((s for one in starts[:i] for s in one.saved), default=0) for i in range(len(starts))
    ]


def _goes_on(start: Start, step: int) -> bool:
    # Whoever trains a stretch again saves at its steps again.
    steps = [step, *start.saved]
    return steps == sorted(set(steps)) and all(told >= step for told in start.told)
