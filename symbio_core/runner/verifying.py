"""Are two runs the same, to the bit? What of a run must not depend on when and how often it died.

What a clock fills in is left out, by the names in `CLOCK`. Nothing else is: weights, optimisers,
averages, populations, hall of fame, monitors, verdicts, decisions, texts and steps are compared.
A clock decides nothing in a run without a cap on seconds: costs of functions are counted, not
timed; a phase that takes too long goes on from its checkpoint; alarms of throughput are told to
people and read by no gate.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from symbio_core.errors import CheckpointDamaged
from symbio_core.runner.run import Run
from symbio_core.storage import Loaded, Manifest

CLOCK = ("at", "seconds", "seconds_per_step", "seconds_spent", "paces")
"""Fields that a clock fills in."""
CLOCKED_ALARM = "throughput"
"""Alarms that begin with this tell of a clock."""
ABOUT_PROCESSES = ("noted",)
"""Events that tell of processes, not of the run: damage met, time overrun."""
PLACES = ("root",)
"""Settings that say where a run lies."""
_ID = re.compile(r"\b(\d{10})-[0-9a-f]{16}\b")
_TOLD = 12
"""Differences told of, at most."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that two runs of one configuration and seed must have in common; JSON both ways.

    Names of checkpoints count the saves of a run, so an `id` stands here as the number of its first
    mention, and what it names is compared by content.
    """

    events: tuple[dict[str, Any], ...]
    state: dict[str, Any]
    checkpoints: dict[str, Any]
    """What is retained: plain parts as they are, of each tensor its hash, shape and length."""
    files: dict[str, str]
    """sha256 of each file of the model to take away."""

    @property
    def sha256(self) -> str:
        """One number for all of it, hex."""
        text = json.dumps(self.plain, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def plain(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        whole = {name: getattr(self, name) for name in self.__slots__}
        content: dict[str, Any] = json.loads(json.dumps(whole))
        return content


def fingerprint(run: Run) -> Fingerprint:
    """Read what is compared of a run, finished or not.

    Raises:
        CheckpointDamaged: a checkpoint that it holds is not whole.
    """
    names = _Names()
    events = [event for event in run.events if event["event"] not in ABOUT_PROCESSES]
    told = tuple(names.put(_timeless(event)) for event in events)
    manifests, damaged = run.store.checkpoints.survey()
    if damaged:
        raise CheckpointDamaged("; ".join(damaged))
    checkpoints: dict[str, Any] = {}
    for manifest in manifests:
        loaded = run.store.checkpoints.load(manifest.id)
        checkpoints[_name_of(manifest, checkpoints)] = names.put(_content(loaded))
    return Fingerprint(
        events=told,
        state=names.put(_timeless(run.plain_state)),
        checkpoints=checkpoints,
        files=_files(run, names),
    )


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return in words where two runs differ, a line each, at most a dozen; none if nowhere.

    The story comes first: its earliest difference explains those of the weights.
    """
    found: list[str] = []
    here, there = one.plain, other.plain
    for part in Fingerprint.__slots__:
        for path, mine, others in _unequal(here[part], there[part], (part,)):
            if len(found) == _TOLD:
                return [*found, "and more"]
            found.append(f"{_place(path, one)}: {_shown(mine)} and {_shown(others)}")
    return found


def divergence(one: Fingerprint, other: Fingerprint, tolerance: float) -> list[str]:
    """Return where two runs differ beyond ``tolerance``, for machines that round anew each time.

    Compared are the story (phases, decisions, steps) exactly, and losses and lengths of tensors by
    their relative difference.
    """
    found = []
    for path, here, there in _unequal(_measured(one), _measured(other), ()):
        numbers = isinstance(here, float) and isinstance(there, float)
        if numbers and np.isclose(here, there, rtol=tolerance, atol=0.0, equal_nan=True):
            continue
        found.append(f"{'.'.join(path)}: {_shown(here)} and {_shown(there)}")
    return found[:_TOLD]


# --- what is left out


def _timeless(value: Any) -> Any:
    """Return plain data without what a clock or a place filled in."""
    if isinstance(value, Mapping):
        return {
            key: _told_by_no_clock(item) if key == "alarms" else _timeless(item)
            for key, item in value.items()
            if key not in CLOCK and not (key in PLACES and isinstance(item, str))
        }
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    return value


def _told_by_no_clock(alarms: Sequence[str]) -> list[str]:
    return [alarm for alarm in alarms if not alarm.startswith(CLOCKED_ALARM)]


class _Names:
    """Numbers the checkpoints of a run by their first mention."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def put(self, value: Any) -> Any:
        """Return plain data with numbers in the place of names."""
        if isinstance(value, str):
            return _ID.sub(self._name, value)
        if isinstance(value, Mapping):
            return {self.put(key): self.put(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.put(item) for item in value]
        return value

    def _name(self, found: re.Match[str]) -> str:
        number = len(self.known) + 1
        return self.known.setdefault(found[0], f"checkpoint {number} at step {int(found[1])}")


# --- what is read


def _name_of(manifest: Manifest, taken: Mapping[str, Any]) -> str:
    name = f"{manifest.kind} at step {manifest.step}"
    again = 2
    while name in taken:
        name = f"{manifest.kind} at step {manifest.step}, {again}"
        again += 1
    return name


def _content(loaded: Loaded) -> dict[str, Any]:
    parts = loaded.manifest.parts
    content: dict[str, Any] = {"meta": _timeless(loaded.manifest.meta)}
    for name, part in parts.items():
        if part.media == "json":
            content[name] = _timeless(loaded.json(name))
        else:
            content[name] = {key: _tensor(array) for key, array in loaded.arrays(name).items()}
    return content


def _tensor(array: npt.NDArray[np.generic]) -> dict[str, Any]:
    data = np.ascontiguousarray(array)
    return {
        "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
        "shape": list(array.shape),
        "length": float(np.linalg.norm(data.astype(np.float64).ravel())),
    }


def _files(run: Run, names: _Names) -> dict[str, str]:
    found = {}
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        if run.store.has_file(f"model/{name}"):
            data = run.store.read_file(f"model/{name}")
            if name == "config.json":
                data = json.dumps(names.put(json.loads(data)), sort_keys=True).encode()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _measured(whole: Fingerprint) -> dict[str, Any]:
    """Return what two runs share even where each rounds anew."""
    phases = {}
    for event in whole.events:
        if event["event"] == "trained":
            outcome = event["outcome"]
            phases[f"{outcome['phase']}, try {outcome['attempt']}"] = {
                "steps": outcome["line_steps"] + outcome["search_steps"] + outcome["confirm_steps"],
                "val_bpb": outcome["end"]["val_bpb"],
            }
    return {
        "phases": phases,
        "decisions": [e["decision"]["kind"] for e in whole.events if e["event"] == "decided"],
        "steps": whole.state["steps_spent"],
    }


# --- how a difference is told


def _unequal(
    one: Any, other: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield place, one and other of each leaf that differs; what only one has is None."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _unequal(one.get(key), other.get(key), (*path, key))
        return
    if isinstance(one, list) and isinstance(other, list):
        for index in range(max(len(one), len(other))):
            here, there = (side[index] if index < len(side) else None for side in (one, other))
            yield from _unequal(here, there, (*path, str(index)))
        return
    # Not ==: nan equals itself here, and 0 is not 0.0.
    if repr(one) != repr(other):
        yield path, one, other


def _place(path: tuple[str, ...], whole: Fingerprint) -> str:
    if path[0] == "events" and len(path) > 1:
        index = int(path[1])
        event: dict[str, Any] = whole.events[index] if index < len(whole.events) else {"event": "–"}
        inner: dict[str, Any] = event.get("plan") or event.get("outcome") or {}
        where = f" of {inner['phase']}, try {inner['attempt']}" if "phase" in inner else ""
        return f"event {index + 1} ({event['event']}{where}) {'.'.join(path[2:])}".rstrip()
    if path[0] == "checkpoints" and len(path) > 3:
        return f"checkpoint {path[1]}, {path[2]}: {'.'.join(path[3:])}"
    return ".".join(path)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
