"""Fusion inside a warm generation: members' phases, their consensus, and a twin left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from symbio_core.monitors import paired_interval
from symbio_core.records import FusionCheck
from symbio_core.runner.workbench import Workbench
from symbio_core.search import Rung, kuramoto
from symbio_core.streams import generator, seed_for
from symbio_core.training import Batch, Consensus, Member, ffn_entropy, restore

if TYPE_CHECKING:
    from symbio_core.runner.generation import Setting, Trial


class Coupling:
    """Pulls the members of a generation to their consensus where that does no harm."""

    def __init__(
        self, bench: Workbench, parent: Member, setting: Setting, name: tuple[str | int, ...]
    ) -> None:
        self.bench = bench
        self.setting = setting
        self.name = name
        self.parent = parent
        self.twin = parent.fork()
        self.start_nats = bench.measure(parent.model, bench.searched)
        self.consensus = self._new_consensus()
        self.angles: dict[str, float] = {}
        self.entropies = [ffn_entropy(parent.model)]
        self.sync: list[float] = []
        self.gaps: list[float] = []
        self.hidden: list[float] = []
        self.accepted = 0
        self.refused = 0

    def _new_consensus(self) -> Consensus:
        consensus = Consensus(self.parent)
        noise = self.setting.adaptation.perturb_consensus
        if noise:
            seed = seed_for(self.bench.config.seed, "perturb", *self.name)
            consensus.perturb(noise, torch.Generator().manual_seed(seed))
        return consensus

    def train_twin(
        self,
        steps: int,
        batches: Callable[[int], Batch],
        lr_at: Callable[[int], float],
        on_step: Callable[[int, float], None],
    ) -> int:
        """Train the control's twin, which nothing pulls; return the steps it took."""
        clip = self.setting.adaptation.clip_scale
        return self.twin.train(steps, batches, lr_at, clip_scale=clip, on_step=on_step).steps

    def fuse(self, living: Sequence[Trial], rung: Rung) -> None:
        """Advance the phases, then pull each member to the consensus where that does no harm."""
        fusion = self.setting.settings.fusion
        angles = self._advanced(living, rung)
        r, _ = kuramoto.order_parameter(angles)
        self.sync.append(r)
        self.gaps.append(kuramoto.largest_gap(angles))
        if self.setting.adaptation.reset_consensus >= 0.5:
            self.consensus = Consensus(living[0].member)
        self.consensus.follow(
            [t.member for t in living], rate=fusion.consensus_rate, steps=rung.steps
        )
        self.entropies.append(self._consensus_entropy(living[0].member))
        for trial, strength in zip(living, self.strengths(angles), strict=True):
            self._try(trial, float(strength), rung)

    def strengths(self, angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return each member's pull, shape (n_members,), share a step; alike without Kuramoto."""
        fusion = self.setting.settings.fusion
        if not self.bench.config.has("kuramoto"):
            return np.full(len(angles), (fusion.base + fusion.max) / 2)
        return kuramoto.pull(angles, fusion.base, fusion.max)

    def _advanced(self, living: Sequence[Trial], rung: Rung) -> npt.NDArray[np.float64]:
        rng = generator(self.bench.config.seed, "angles", *self.name)
        for trial in living:
            self.angles.setdefault(trial.candidate.formula, float(rng.uniform(0, 2 * np.pi)))
        names = [trial.candidate.formula for trial in living]
        rates = np.array([(t.start_nats - _mean(t)) / max(1, t.steps) for t in living])
        angles = kuramoto.integrate(
            np.array([self.angles[name] for name in names]),
            kuramoto.natural_frequencies(rates),
            coupling=self.setting.settings.coupling,
            damping=self.setting.settings.fusion.damping,
            n=rung.steps,
        )
        self.angles |= dict(zip(names, (float(a) for a in angles), strict=True))
        return angles

    def _try(self, trial: Trial, strength: float, rung: Rung) -> None:
        assert trial.nats is not None
        before = self.consensus.pull(trial.member, strength=strength, steps=rung.steps)
        fused = self.bench.measure(trial.member.model, self.bench.searched)
        if float(fused.mean()) <= float(trial.nats.mean()):
            self.accepted += 1
            trial.nats = fused
            rate = self.setting.settings.fusion.consensus_rate
            self.hidden.append(kuramoto.hidden_lr_factor(rate, strength))
        else:
            self.refused += 1
            restore(trial.member, before)

    def _consensus_entropy(self, like: Member) -> float:
        return ffn_entropy(self._served(like).model)

    def _served(self, like: Member) -> Member:
        member = like.fork()
        restore(member, self.consensus.weights)
        return member

    def told(self, living: Sequence[Trial]) -> dict[str, Any]:
        """Return what a generation's record says of its fusion."""
        best = min(living, key=_mean)
        assert best.nats is not None
        control = living[0]
        assert control.nats is not None
        level = self.bench.config.gates.confidence
        measure, batches = self.bench.measure, self.bench.searched
        consensus = measure(self._served(best.member).model, batches)
        twin = measure(self.twin.model, batches)
        check = FusionCheck(
            entropy_nats=tuple(self.entropies),
            consensus_nats=paired_interval(consensus, best.nats, confidence=level),
            twin_nats=paired_interval(twin, self.start_nats, confidence=level),
            coupled_nats=paired_interval(control.nats, self.start_nats, confidence=level),
        )
        return {
            "fusion": check,
            "sync": tuple(self.sync),
            "angle_gaps": tuple(self.gaps),
            "fusions_accepted": self.accepted,
            "fusions_refused": self.refused,
            "hidden_lr_factor": float(np.mean(self.hidden)) if self.hidden else 1.0,
        }


def _mean(trial: Trial) -> float:
    assert trial.nats is not None
    return float(trial.nats.mean())
