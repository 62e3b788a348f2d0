"""What the FFN of each layer does with its signal: entropy, rank, information."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from symbio_core.model import GPT
from symbio_core.model.gpt import Block
from symbio_core.monitors import effective_rank, sliced_information, weight_entropy
from symbio_core.records import LayerReading
from symbio_core.training.device import Device
from symbio_core.training.evaluation import Batch

SAMPLES = 2048
"""Most tokens that a reading looks at."""


def read_layers(
    model: GPT, batch: Batch, device: Device, rng: np.random.Generator
) -> tuple[LayerReading, ...]:
    """Read every FFN on one batch, first layer first; weights and training state stay as they are.

    Args:
        model: whose layers.
        batch: inputs and targets, int64, shape (batch, context).
        device: where the model lives.
        rng: draws tokens, where there are too many, and the directions of sliced information.

    Returns:
        One reading a layer; none where a signal is not finite.

    Source:
        Tishby & Zaslavsky (2015), arXiv 1503.02406, for following information layer by layer.
    """
    signals = _signals(model, batch, device)
    if not all(np.isfinite(x).all() for layer in signals for x in layer):
        return ()
    tokens = len(signals[0][0])
    drawn = rng.permutation(tokens)[:SAMPLES]
    return tuple(
        _reading(block.ffn, *(x[drawn] for x in layer), rng=rng)
        for block, layer in zip(_blocks(model), signals, strict=True)
    )


def _blocks(model: GPT) -> list[Block]:
    return [cast(Block, block) for block in model.blocks]


def _reading(
    ffn: nn.Module,
    inputs: npt.NDArray[np.float64],
    hidden: npt.NDArray[np.float64],
    outputs: npt.NDArray[np.float64],
    *,
    rng: np.random.Generator,
) -> LayerReading:
    matrices = [p.detach().float().cpu().numpy() for p in ffn.parameters() if p.ndim == 2]
    return LayerReading(
        weight_entropy_nats=_kept(np.mean([weight_entropy(matrix) for matrix in matrices])),
        effective_rank=_kept(effective_rank(hidden)),
        width=hidden.shape[1],
        input_hidden_nats=_kept(sliced_information(inputs, hidden, rng=rng)),
        hidden_output_nats=_kept(sliced_information(hidden, outputs, rng=rng)),
    )


def _kept(number: float | np.floating[Any]) -> float:
    # Another processor's linear algebra differs in the last bits, and a journal should not.
    return round(float(number), 4)


@torch.no_grad()
def _signals(model: GPT, batch: Batch, device: Device) -> list[tuple[npt.NDArray[np.float64], ...]]:
    """Return inputs, hidden states and outputs of each FFN, each (tokens, width)."""
    seen: list[dict[str, Tensor]] = [{} for _ in model.blocks]

    def watch(layer: dict[str, Tensor]) -> tuple[Any, Any]:
        def hidden(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            layer["hidden"] = arguments[0]

        def whole(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            layer["inputs"], layer["outputs"] = arguments[0], output

        return hidden, whole

    hooks = []
    for block, layer in zip(_blocks(model), seen, strict=True):
        hidden, whole = watch(layer)
        hooks.append(block.ffn.down.register_forward_pre_hook(hidden))
        hooks.append(block.ffn.register_forward_hook(whole))
    was_training = model.training
    model.eval()
    try:
        with device.autocast():
            model.loss(*(torch.from_numpy(ids).to(device.name) for ids in batch))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return [tuple(_flat(layer[name]) for name in ("inputs", "hidden", "outputs")) for layer in seen]


def _flat(signal: Tensor) -> npt.NDArray[np.float64]:
    return signal.float().reshape(-1, signal.shape[-1]).double().cpu().numpy()
