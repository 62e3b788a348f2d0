"""Members and search states in and out of checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from symbio_core.config import RunConfig
from symbio_core.errors import BadInput, CheckpointDamaged
from symbio_core.model import GPT
from symbio_core.records import CheckpointRef, PhasePlan, Weights
from symbio_core.runner.workbench import Workbench
from symbio_core.search import SearchState
from symbio_core.storage import Loaded, Manifest, RunStore
from symbio_core.storage.checkpoints import Part
from symbio_core.training import Member

STEPS_KEPT = 2
"""Saves of a phase under way that stay: the newest, and the one before in case that is damaged."""
CHECKPOINTS_HELD = 16
"""Checkpoints that a run may hold at once: ends, bests, dormant ones, the last steps."""
NUMBER_BYTES = 4
"""float32, in which everything is saved."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A main line with the search's knowledge, and where an attempt stands if one is under way."""

    member: Member
    search: SearchState
    best: Snapshot | None = None
    """The line as it was at the attempt's lowest validation loss."""
    progress: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, member: Member, search: SearchState) -> Snapshot:
        """Return a copy that further training leaves alone."""
        return cls(member.fork(), search)


class Vault:
    """Saves and loads what training goes on from.

    The training thread only copies what is saved into memory; hashing, writing and syncing happen
    in one thread beside it. One save is under way at a time, so they come in order, and whatever
    names a checkpoint waits for it: see `join`.
    """

    def __init__(self, store: RunStore, bench: Workbench) -> None:
        self.checkpoints = store.checkpoints
        self.bench = bench
        self.stalled_s = 0.0
        """How long training has stood still for saves so far (s)."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="symbio-save")
        self._under_way: Future[Manifest] | None = None
        self._stored_best: tuple[Member, Part] | None = None

    def join(self) -> None:
        """Wait until everything handed over so far is saved.

        Raises:
            StorageError: it could not be.
        """
        with self._standing_still():
            if self._under_way is not None:
                saved, self._under_way = self._under_way, None
                saved.result()

    @property
    def is_saving(self) -> bool:
        """Whether something handed over is not on disk yet."""
        return self._under_way is not None and not self._under_way.done()

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stalled_s += time.perf_counter() - began

    def save_start(self, member: Member, search: SearchState) -> CheckpointRef:
        """Save what the first phase starts from."""
        return self._save_line("abiogenesis", 0, member, search, step=0, kind="start")

    def save_end(
        self, plan: PhasePlan, member: Member, search: SearchState, *, step: int
    ) -> CheckpointRef:
        """Save the line at the end of an attempt."""
        return self._save_line(plan.phase, plan.attempt, member, search, step=step, kind="end")

    def save_best(self, plan: PhasePlan, best: Snapshot, *, step: int) -> CheckpointRef:
        """Save the line as it was at its lowest validation loss."""
        return self._save_line(
            plan.phase, plan.attempt, best.member, best.search, step=step, kind="best"
        )

    def save_step(
        self,
        plan: PhasePlan,
        line: Snapshot,
        *,
        step: int,
    ) -> None:
        """Save an attempt under way; returns before it is on disk, see `join`.

        Raises:
            StorageError: the save before could not be finished.
        """
        self.join()
        with self._standing_still():
            parts: dict[str, Any] = {
                "member": line.member.arrays(),
                "search": line.search.model_dump(mode="json"),
                "progress": dict(line.progress or {}),
            }
            meta = {"phase": plan.phase, "attempt": plan.attempt, "formula": line.member.formula}
            if line.best is not None:
                parts["best"] = self._stored(line.best.member) or line.best.member.arrays()
                parts["best_search"] = line.best.search.model_dump(mode="json")
                meta["best_formula"] = line.best.member.formula
            best = line.best.member if line.best is not None else None
            self._under_way = self._thread.submit(self._write_step, parts, meta, step, best)

    def _write_step(
        self, parts: dict[str, Any], meta: dict[str, Any], step: int, best: Member | None
    ) -> Manifest:
        if _same_bytes(parts["member"], parts.get("best")):
            parts["member"] = parts["best"] = self.checkpoints.put(parts["member"])
        manifest = self.checkpoints.save(parts, meta, step=step, kind="step")
        # A long phase would fill the disk with saves that nobody goes back to.
        self.checkpoints.thin("step", STEPS_KEPT)
        if best is not None:
            self._stored_best = (best, manifest.parts["best"])
        return manifest

    def _stored(self, best: Member) -> Part | None:
        """Return the blob of a member that was saved before and has not been trained since."""
        if self._stored_best is None or self._stored_best[0] is not best:
            return None
        part = self._stored_best[1]
        return part if self.checkpoints.has(part) else None

    def load_step(self, plan: PhasePlan, tell: Callable[[str], None]) -> Snapshot | None:
        """Return the newest whole step checkpoint of an attempt, or None; ``tell`` of damage."""
        self.join()
        loaded, damaged = self.checkpoints.load_newest("step")
        for damage in damaged:
            tell(damage)
        if loaded is None:
            return None
        meta = loaded.manifest.meta
        if (meta.get("phase"), meta.get("attempt")) != (plan.phase, plan.attempt):
            return None
        with _understood(loaded.manifest.id):
            return self._step_of(loaded)

    def _step_of(self, loaded: Loaded) -> Snapshot:
        meta = loaded.manifest.meta
        best = None
        if "best_formula" in meta:
            best = Snapshot(
                self._member(meta["best_formula"], loaded.arrays("best")),
                SearchState.model_validate(loaded.json("best_search")),
            )
        return Snapshot(
            self._member(meta["formula"], loaded.arrays("member")),
            SearchState.model_validate(loaded.json("search")),
            best,
            loaded.json("progress"),
        )

    def load(self, ref: str) -> Snapshot:
        """Return the line and the search of a checkpoint.

        Raises:
            CheckpointDamaged: a file of it is missing or does not match its hash.
        """
        loaded = self.checkpoints.load(ref)
        with _understood(ref):
            return Snapshot(
                self._member(loaded.manifest.meta["formula"], loaded.arrays("member")),
                SearchState.model_validate(loaded.json("search")),
            )

    def load_model(self, ref: str) -> GPT:
        """Return the model a checkpoint serves: its live, averaged or shadow weights."""
        loaded = self.checkpoints.load(ref)
        with _understood(ref):
            member = self._member(loaded.manifest.meta["formula"], loaded.arrays("member"))
            serves = loaded.manifest.meta["serves"]
            return member.model if serves == "live" else member.averaged(serves)

    def _member(self, formula: str, arrays: Mapping[str, Any]) -> Member:
        bench = self.bench
        member = Member.from_arrays(bench.config, bench.n_vocab, formula, bench.device, arrays)
        shapes = {name: tuple(p.shape) for name, p in member.model.named_parameters()}
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            wanted = shapes.get(name.rpartition("/")[0] if kind == "optimiser" else name)
            # A copy would stretch what is too small over the whole parameter.
            if wanted is not None and array.shape not in (
                (wanted, ()) if kind == "optimiser" else (wanted,)
            ):
                raise ValueError(f"{key} has the shape {array.shape} instead of {wanted}")
        return member

    def _put_all(self, content: Mapping[str, Any]) -> dict[str, Part]:
        return {name: self.checkpoints.put(part) for name, part in sorted(content.items())}

    @torch.no_grad()
    def _save_line(
        self,
        phase: str,
        attempt: int,
        member: Member,
        search: SearchState,
        *,
        step: int,
        kind: str,
    ) -> CheckpointRef:
        bench = self.bench
        self.join()
        with self._standing_still():
            content = {"member": member.arrays(), "search": search.model_dump(mode="json")}
            # Saved before it is evaluated, and while it is.
            stored = self._thread.submit(self._put_all, content)
        losses: dict[Weights, npt.NDArray[np.float64]] = {
            "live": bench.measure(member.model, bench.validation)
        }
        if member.ema and bench.config.has("averaging"):
            losses["ema"] = bench.measure(member.averaged(), bench.validation)
        if member.shadow and bench.config.has("fusion"):
            losses["shadow"] = bench.measure(member.averaged("shadow"), bench.validation)
        serves = min(losses, key=lambda name: np.nan_to_num(losses[name].mean(), nan=np.inf))
        nats: Sequence[float] = [float(x) for x in losses[serves]]
        bpb = {name: _mean_bpb(bench, loss) for name, loss in losses.items()}
        val_bpb = bpb[serves]
        meta = {
            "phase": phase,
            "attempt": attempt,
            "formula": member.formula,
            "serves": serves,
            "val_bpb": val_bpb,
            "val_nats": nats,
        }
        with self._standing_still():
            saved = self.checkpoints.save(stored.result(), meta, step=step, kind=kind)
        return CheckpointRef(
            id=saved.id,
            phase=phase,
            attempt=max(1, attempt),
            step=step,
            formula=member.formula,
            val_bpb=val_bpb,
            val_nats=tuple(nats),
            serves=serves,
            weights_bpb=bpb,
        )


def _mean_bpb(bench: Workbench, nats: npt.NDArray[np.float64]) -> float:
    return bench.bpb(sum(float(x) for x in nats) / len(nats), bench.validation)


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the disk space of all checkpoints that a run may hold at once (bytes)."""
    model = config.model
    tables = (1 if model.tie_embeddings else 2) * config.data.vocab_size * model.n_embd
    blocks = model.n_layer * model.n_embd**2 * (4 + 2 * model.ffn_ratio)
    weights = 1 + (config.optimiser.ema_decay > 0.0) + config.has("fusion")
    moments = 2 * tables + (1 if config.optimiser.name == "muon" else 2) * blocks
    return round((weights * (tables + blocks) + moments) * NUMBER_BYTES * CHECKPOINTS_HELD)


def _same_bytes(one: Mapping[str, Any], other: Any) -> bool:
    """Say whether two sets of arrays would be saved alike: cheaper than to hash both."""
    if not isinstance(other, Mapping) or one.keys() != other.keys():
        return False
    return all(
        (a.dtype, a.shape) == (other[name].dtype, other[name].shape)
        # As bytes: 0 is not −0 here.
        and np.array_equal(a.reshape(-1).view(np.uint8), other[name].reshape(-1).view(np.uint8))
        for name, a in one.items()
    )


_NO_MODEL = (KeyError, ValueError, TypeError, RuntimeError, IndexError, AttributeError)


@contextmanager
def _understood(checkpoint: str) -> Iterator[None]:
    """Say in one line that a checkpoint, though true to its hashes, is none of this model."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (BadInput, *_NO_MODEL) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointDamaged(
            f"checkpoint {checkpoint} does not fit the run's model ({why}); "
            "go on from another checkpoint"
        ) from error
