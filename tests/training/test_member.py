import numpy as np
import pytest
import torch

from symbio_core.config import RunConfig, changed
from symbio_core.profiles import smoke
from symbio_core.training import Batch, Consensus, Device, Member, prepare_device, restore
from symbio_core.training.evaluation import bits_per_byte, losses_per_batch

VOCABULARY = 40


@pytest.fixture(scope="module")
def device() -> Device:
    return prepare_device(smoke().compute)


def batch_at(step: int) -> Batch:
    rng = np.random.default_rng(step)
    start = rng.integers(0, VOCABULARY, size=(8, 1))
    rows = (start + np.arange(33)) % VOCABULARY  # counting: learnable in a few steps
    return rows[:, :-1].copy(), rows[:, 1:].copy()


def member(device: Device, *, formula: str = "gelu(x)", **changes: object) -> Member:
    config: RunConfig = changed(smoke(), changes)
    return Member(config, VOCABULARY, formula, device, seed=1)


def steady(_: int) -> float:
    return 1.0


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_training_lowers_the_loss(device: Device, optimiser: str) -> None:
    trained = member(device, **{"optimiser.name": optimiser})
    before = losses_per_batch(trained.model, [batch_at(999)], device).mean()
    trained.train(60, batch_at, steady)
    after = losses_per_batch(trained.model, [batch_at(999)], device).mean()
    assert after < 0.5 * before


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_stored_member_goes_on_bit_for_bit(device: Device, optimiser: str) -> None:
    whole = member(device, **{"optimiser.name": optimiser})
    whole.train(12, batch_at, steady)
    first = member(device, **{"optimiser.name": optimiser})
    first.train(7, batch_at, steady)
    second = Member.from_arrays(first.config, VOCABULARY, first.formula, device, first.arrays())
    second.train(5, batch_at, steady)
    expected, got = whole.arrays(), second.arrays()
    assert expected.keys() == got.keys()
    for name, array in expected.items():
        assert np.array_equal(array, got[name]), name


def test_a_fork_leaves_its_parent_alone(device: Device) -> None:
    parent = member(device)
    parent.train(5, batch_at, steady)
    before = parent.arrays()
    child = parent.fork("relu(x)²")
    child.train(5, batch_at, steady)
    assert child.formula == "relu(x)²"
    for name, array in parent.arrays().items():
        assert np.array_equal(array, before[name]), name


def test_two_forks_of_one_function_train_alike(device: Device) -> None:
    parent = member(device)
    parent.train(3, batch_at, steady)
    one, two = parent.fork(), parent.fork()
    one.train(4, batch_at, steady)
    two.train(4, batch_at, steady)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_with_a_broken_gradient_is_skipped_and_counted(device: Device) -> None:
    trained = member(device)
    trained.train(30, batch_at, steady)
    with torch.no_grad():
        saved = trained.model.head.weight.clone()
        trained.model.head.weight.fill_(float("nan"))
    before = trained.model.embedding.weight.clone()
    stretch = trained.train(3, batch_at, steady)
    assert stretch.skipped == 3
    assert torch.equal(trained.model.embedding.weight, before)
    with torch.no_grad():
        trained.model.head.weight.copy_(saved)
    assert trained.train(3, batch_at, steady).skipped == 0


def test_a_gradient_far_above_its_median_is_a_spike(device: Device) -> None:
    trained = member(device)
    trained.train(30, batch_at, steady)
    trained.norms = [1e-6] * 30
    assert trained.train(1, batch_at, steady).skipped == 1


def test_clipped_steps_are_counted(device: Device) -> None:
    assert member(device).train(5, batch_at, steady, clip_scale=1e-4).clipped == 5


def test_a_wish_to_stop_ends_a_stretch_between_two_steps(device: Device) -> None:
    trained = member(device)
    stretch = trained.train(50, batch_at, steady, should_stop=lambda: trained.line_step >= 4)
    assert (stretch.steps, trained.line_step) == (4, 4)


def test_averaged_weights_lie_behind_the_live_ones(device: Device) -> None:
    trained = member(device)
    trained.train(30, batch_at, steady)
    live = trained.model.head.weight
    average = trained.averaged().head.weight
    assert not torch.equal(live, average)
    assert torch.nn.functional.cosine_similarity(live.flatten(), average.flatten(), dim=0) > 0.9


def test_consensus_pulls_and_a_refused_pull_is_undone(device: Device) -> None:
    parent = member(device)
    one, two = parent.fork(), parent.fork()
    one.train(4, batch_at, steady)
    two.train(4, lambda step: batch_at(step + 100), steady)
    consensus = Consensus(parent)
    consensus.follow([one, two], rate=1.0, steps=1)
    mean = (one.model.head.weight + two.model.head.weight) / 2
    assert torch.allclose(consensus.weights[-1], mean)
    before = one.model.head.weight.clone()
    undo = consensus.pull(one, strength=0.5, steps=1)
    assert torch.allclose(one.model.head.weight, (before + mean) / 2, atol=1e-6)
    restore(one, undo)
    assert torch.equal(one.model.head.weight, before)


def test_bits_per_byte_of_a_byte_model_is_its_loss_in_bits() -> None:
    assert bits_per_byte(np.log(2.0), 100, 100) == pytest.approx(1.0)
    assert bits_per_byte(np.log(2.0), 100, 300) == pytest.approx(1 / 3)
