"""One training replica: weights, optimisers, averaged weights, and its own short memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from symbio_core.config import RunConfig
from symbio_core.model import GPT
from symbio_core.training.device import Device
from symbio_core.training.evaluation import Batch

NORMS_KEPT = 64
"""Gradient norms remembered; their median is what a spike is measured against."""
LEARNED = ".activation."
"""In the names of a function's learned constants, and in no other name."""
NORMS_NEEDED = 20
"""No step is called a spike before so many norms are known."""
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(slots=True)
class Stretch:
    """What a run of steps did."""

    steps: int = 0
    skipped: int = 0
    """Steps thrown away as spikes or non-finite."""
    clipped: int = 0
    loss: float = float("nan")
    """Loss of the last step (nats a token)."""
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Loss of every step (nats a token)."""
    norms: list[float] = field(default_factory=list)
    """Gradient norm of every step, before clipping."""
    clips: list[bool] = field(default_factory=list)
    """Whether the gradient of each step was clipped."""
    paces: list[float] = field(default_factory=list)
    """Wall time of every step (s)."""


class Member:
    """Weights, optimisers and averaged weights that train together.

    ``line_step`` counts the steps in these weights' own history; it addresses the data, so members
    cloned from one parent read the same batches.
    """

    def __init__(
        self, config: RunConfig, n_vocab: int, formula: str, device: Device, *, seed: int
    ) -> None:
        self.config = config
        self.device = device
        self.n_vocab = n_vocab
        self.model = GPT(config.model, n_vocab, formula, seed).to(device.name)
        self.optimisers = _optimisers(config, self.model, device)
        decay = config.optimiser.ema_decay
        self.ema = [p.detach().clone() for p in self.model.parameters()] if decay else []
        self.shadow: list[Tensor] = []
        """Consensus weights that are judged beside the live ones; empty where nothing is fused."""
        self.norms: list[float] = []
        self.line_step = 0

    @property
    def formula(self) -> str:
        """The activation's name."""
        return self.model.formula

    def train(
        self,
        steps: int,
        batch_at: Callable[[int], Batch],
        lr_at: Callable[[int], float],
        *,
        clip_scale: float = 1.0,
        on_step: Callable[[int, float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Stretch:
        """Take ``steps`` optimiser steps and tell what happened.

        Args:
            steps: optimiser steps; a skipped one counts, it has cost as much.
            batch_at: the batch of a line step.
            lr_at: learning rate over peak at a line step.
            clip_scale: multiplies the norm that gradients are clipped to.
            on_step: called after each step with its number here and its loss (nats a token).
            should_stop: asked after each step; True ends the stretch early, between two steps.
        """
        began = time.perf_counter()
        stretch = Stretch()
        self.model.train()
        for index in range(steps):
            at = time.perf_counter()
            loss, norm, skipped, clipped = self._step(
                batch_at(self.line_step), lr_at(self.line_step), clip_scale
            )
            stretch.losses.append(loss)
            stretch.norms.append(norm)
            stretch.clips.append(clipped)
            stretch.paces.append(time.perf_counter() - at)
            self.line_step += 1
            stretch.steps += 1
            stretch.skipped += skipped
            stretch.clipped += clipped
            stretch.loss = loss
            if on_step is not None:
                on_step(index, loss)
            if should_stop is not None and should_stop():
                break
        stretch.seconds = time.perf_counter() - began
        return stretch

    def _step(self, batch: Batch, lr: float, clip_scale: float) -> tuple[float, float, bool, bool]:
        ids_BT = torch.from_numpy(batch[0]).to(self.device.name)
        targets_BT = torch.from_numpy(batch[1]).to(self.device.name)
        with self.device.autocast():
            loss = self.model.loss(ids_BT, targets_BT)
        loss.backward()  # type: ignore[no-untyped-call]
        settings = self.config.optimiser
        limit = settings.clip_norm * clip_scale
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        value = float(loss.detach())
        skipped = self._is_spike(value, norm)
        if not skipped:
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak_lr"] * lr
                optimiser.step()
            self._average()
            self.norms = [*self.norms, norm][-NORMS_KEPT:]
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        return value, norm, skipped, not skipped and norm > limit

    def _is_spike(self, loss: float, norm: float) -> bool:
        if not (np.isfinite(loss) and np.isfinite(norm)):
            return True
        if len(self.norms) < NORMS_NEEDED:
            return False
        return norm > self.config.optimiser.spike_factor * float(np.median(self.norms))

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema:
            # A young average follows faster, or the initial weights would linger in it.
            decay = min(
                self.config.optimiser.ema_decay, (1 + self.line_step) / (10 + self.line_step)
            )
            torch._foreach_lerp_(self.ema, list(self.model.parameters()), 1.0 - decay)

    @torch.no_grad()
    def follow_shadow(self, rate: float, steps: int) -> None:
        """Move the shadow towards the live weights at ``rate`` a step, compounded over ``steps``.

        A line that trains alone is a population of one, and its consensus a slow average of it.
        """
        live: list[Tensor] = list(self.model.parameters())
        if not self.shadow:
            self.shadow = [p.detach().clone() for p in live]
        torch._foreach_lerp_(self.shadow, live, 1.0 - (1.0 - rate) ** steps)

    @torch.no_grad()
    def averaged(self, kind: str = "ema") -> GPT:
        """Return a copy of the model that holds the ``ema`` or the ``shadow`` weights."""
        average = self.ema if kind == "ema" else self.shadow
        other = GPT(self.config.model, self.n_vocab, self.formula, 0).to(self.device.name)
        for target, value in zip(
            other.parameters(), average or self.model.parameters(), strict=True
        ):
            target.copy_(value)
        return other

    def fork(self, formula: str | None = None) -> Member:
        """Return an independent copy, with another activation where ``formula`` names one.

        Terms that both functions have keep what their constants have learned.
        """
        arrays = self.arrays()
        if formula is None or formula == self.formula:
            return Member.from_arrays(self.config, self.n_vocab, self.formula, self.device, arrays)
        arrays = {key: array for key, array in arrays.items() if LEARNED not in key}
        child = Member.from_arrays(self.config, self.n_vocab, formula, self.device, arrays)
        child.inherit_terms(self)
        return child

    @torch.no_grad()
    def inherit_terms(self, parent: Member) -> None:
        """Take over what the constants of a parent's function have learned, averages too."""
        for own, other in zip(self.model.activations, parent.model.activations, strict=True):
            own.inherit(other)
        if self.ema:
            for average, (name, value) in zip(self.ema, self.model.named_parameters(), strict=True):
                if LEARNED in name:
                    average.copy_(value)

    @torch.no_grad()
    def renew_ffn(self, fresh: Member, share: float) -> None:
        """Mix ``share`` (0..1) of another member's FFN weights into this one's."""
        theirs = dict(fresh.model.named_parameters())
        for name, parameter in self.model.named_parameters():
            if ".ffn." in name and LEARNED not in name:
                parameter.lerp_(theirs[name], share)

    def arrays(self) -> Arrays:
        """Return everything that training goes on from, as numpy arrays by name."""
        arrays: Arrays = {}
        names = [name for name, _ in self.model.named_parameters()]
        owner: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            arrays[f"weights/{name}"] = _numpy(parameter)
        for kind, averages in (("ema", self.ema), ("shadow", self.shadow)):
            for name, average in zip(names, averages, strict=False):
                arrays[f"{kind}/{name}"] = _numpy(average)
        for optimiser in self.optimisers:
            for weight, state in optimiser.state.items():
                for key, value in state.items():
                    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                    arrays[f"optimiser/{owner[weight]}/{key}"] = _numpy(tensor)
        arrays["norms"] = np.array(self.norms, dtype=np.float64)
        arrays["line_step"] = np.array(self.line_step, dtype=np.int64)
        return arrays

    @classmethod
    def from_arrays(
        cls,
        config: RunConfig,
        n_vocab: int,
        formula: str,
        device: Device,
        arrays: Mapping[str, npt.NDArray[np.generic]],
    ) -> Member:
        """Return the member that ``arrays`` tell of; the inverse of `arrays`, to the bit."""
        member = cls(config, n_vocab, formula, device, seed=0)
        member._load(arrays)
        return member

    @torch.no_grad()
    def _load(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        states: dict[str, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            if key.startswith("optimiser/"):
                _, name, field = key.split("/")
                states.setdefault(name, {})[field] = torch.from_numpy(np.array(array))
        for name, parameter in self.model.named_parameters():
            if f"weights/{name}" in arrays or LEARNED not in name:
                parameter.copy_(torch.from_numpy(np.array(arrays[f"weights/{name}"])))
        has_shadow = any(key.startswith("shadow/") for key in arrays)
        self.ema = self._averages("ema", arrays) if self.ema else []
        self.shadow = self._averages("shadow", arrays) if has_shadow else []
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                for name, parameter in zip(group["names"], group["params"], strict=True):
                    if name in states:
                        # A step counter stays where the optimiser keeps it; moments follow.
                        optimiser.state[parameter] = {
                            field: value.to(parameter.device)
                            if value.ndim or group["fused"]
                            else value
                            for field, value in states[name].items()
                        }
        self.norms = [float(norm) for norm in arrays["norms"]]
        self.line_step = int(arrays["line_step"])

    def _averages(self, kind: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> list[Tensor]:
        """Return the averages of ``kind``; a new function's constants begin as they are."""
        found = []
        for name, parameter in self.model.named_parameters():
            stored = arrays.get(f"{kind}/{name}")
            value = parameter.detach() if stored is None else torch.from_numpy(np.array(stored))
            found.append(value.clone().to(self.device.name))
        return found


def _numpy(tensor: Tensor) -> npt.NDArray[np.generic]:
    return tensor.detach().cpu().numpy().copy()


def _optimisers(config: RunConfig, model: GPT, device: Device) -> list[torch.optim.Optimizer]:
    settings = config.optimiser
    named = list(model.named_parameters())
    matrices = [(n, p) for n, p in named if n.startswith("blocks.") and p.ndim == 2]
    tables = [(n, p) for n, p in named if not (n.startswith("blocks.") and p.ndim == 2)]
    made: list[torch.optim.Optimizer] = []
    by_adamw = tables
    if settings.name == "muon":
        group = _group(matrices, settings.muon_lr, settings.weight_decay)
        made.append(torch.optim.Muon([group], lr=settings.muon_lr, momentum=0.95))
    else:
        by_adamw = tables + matrices
    decayed = [(n, p) for n, p in by_adamw if n.startswith("blocks.") and p.ndim == 2]
    plain = [(n, p) for n, p in by_adamw if not (n.startswith("blocks.") and p.ndim == 2)]
    groups = [
        _group(members, settings.peak_lr, decay)
        for members, decay in ((plain, 0.0), (decayed, settings.weight_decay))
        if members
    ]
    made.append(torch.optim.AdamW(groups, lr=settings.peak_lr, betas=(0.9, 0.95), fused=True))
    return made


def _group(
    members: list[tuple[str, nn.Parameter]], peak_lr: float, weight_decay: float
) -> dict[str, object]:
    return {
        "params": [parameter for _, parameter in members],
        "names": [name for name, _ in members],
        "peak_lr": peak_lr,
        "weight_decay": weight_decay,
    }
