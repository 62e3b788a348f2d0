"""Readings of the FFNs: bounds, rank, and that reading changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symbio_core.config import ComputeSettings, ModelSettings
from symbio_core.model import GPT
from symbio_core.training import prepare_device, read_layers

SETTINGS = ModelSettings(n_layer=3, n_head=2, n_embd=16, context=16)


@pytest.fixture
def model() -> GPT:
    return GPT(SETTINGS, 64, "relu(x)", seed=1)


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(seed).integers(64, size=(8, 17))
    return ids[:, :-1], ids[:, 1:]


def read(model: GPT):
    return read_layers(
        model, batch(), prepare_device(ComputeSettings(threads=1)), np.random.default_rng(0)
    )


def test_every_layer_is_read_within_its_bounds(model: GPT) -> None:
    with torch.no_grad():
        for block in model.blocks:
            block.ffn.down.weight.normal_(generator=torch.Generator().manual_seed(2))
    layers = read(model)
    assert len(layers) == 3
    for layer in layers:
        assert layer.width == 64
        assert 1.0 <= layer.effective_rank <= 64
        assert 3.0 < layer.weight_entropy_nats < 3.6, "drawn weights are near the normal law"
        assert layer.input_hidden_nats > 0.0
        assert layer.hidden_output_nats > 0.0


def test_reading_twice_tells_the_same_and_leaves_the_model_alone(model: GPT) -> None:
    model.train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    first, second = read(model), read(model)
    assert first == second
    assert model.training
    assert not any(block.ffn._forward_hooks for block in model.blocks)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_hidden_units_that_say_the_same_have_rank_one(model: GPT) -> None:
    with torch.no_grad():
        up = model.blocks[1].ffn.up.weight
        up.copy_(up[:1].expand_as(up))
    layers = read(model)
    assert layers[1].effective_rank == pytest.approx(1.0, abs=1e-3)
    assert layers[0].effective_rank > 5.0


def test_an_output_that_is_nothing_tells_nothing(model: GPT) -> None:
    with torch.no_grad():
        model.blocks[2].ffn.down.weight.zero_()
    assert read(model)[2].hidden_output_nats == 0.0


def test_a_broken_model_has_no_readings(model: GPT) -> None:
    with torch.no_grad():
        model.blocks[0].ffn.up.weight.fill_(float("nan"))
    assert read(model) == ()
