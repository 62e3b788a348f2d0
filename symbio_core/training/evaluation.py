"""Loss on fixed batches, batch by batch, so that differences can be paired."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from symbio_core.model import GPT
from symbio_core.monitors import weight_entropy
from symbio_core.training.device import Device

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Inputs and targets, int64, each of shape (batch, context)."""


@torch.no_grad()
def losses_per_batch(
    model: GPT, batches: Sequence[Batch], device: Device
) -> npt.NDArray[np.float64]:
    """Return the loss of each batch, shape (n_batches,), nats a token."""
    was_training = model.training
    model.eval()
    losses = []
    for inputs, targets in batches:
        ids_BT = torch.from_numpy(inputs).to(device.name)
        targets_BT = torch.from_numpy(targets).to(device.name)
        with device.autocast():
            losses.append(model.loss(ids_BT, targets_BT))
    model.train(was_training)
    return torch.stack(losses).double().cpu().numpy()


@torch.no_grad()
def ffn_entropy(model: GPT) -> float:
    """Return the mean weight entropy of the FFN matrices (nats)."""
    matrices = [p for name, p in model.named_parameters() if ".ffn." in name and p.ndim == 2]
    return float(np.mean([weight_entropy(p.float().cpu().numpy()) for p in matrices]))


def bits_per_byte(nats_per_token: float, n_tokens: int, n_bytes: int) -> float:
    """Turn a mean loss a token into bits a byte of the text that these tokens spell.

    The unit that survives a change of tokenizer: total nats over ln 2 over bytes.
    """
    return nats_per_token * n_tokens / (math.log(2.0) * n_bytes)
