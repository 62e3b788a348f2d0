import numpy as np
import pytest
import torch

from symbio_core.activations import (
    LEAVES,
    RESERVE,
    Limits,
    evaluate,
    formula,
    normaliser,
    parse,
    random_expression,
)
from symbio_core.model import Activation
from symbio_core.model.activation import LEAF_FUNCTIONS
from symbio_core.streams import generator


def test_every_leaf_has_a_torch_function() -> None:
    assert set(LEAF_FUNCTIONS) == {*LEAVES, *RESERVE}


@pytest.mark.parametrize("seed", range(20))
def test_torch_computes_what_the_tree_says(seed: int) -> None:
    rng = generator(seed, "tree")
    tree = random_expression(rng, Limits(max_depth=4, max_nodes=9), (*LEAVES, *RESERVE))
    x = np.linspace(-4.0, 4.0, 101)
    got = Activation(formula(tree))(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, evaluate(tree, x) * normaliser(tree), rtol=1e-9, atol=1e-9)


def test_output_has_unit_second_moment_on_normal_input() -> None:
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name in ("gelu(x)", "relu(x)²", "gelu(x)·silu(x)"):
        moment = float(Activation(name)(x).square().mean())
        assert moment == pytest.approx(1.0, rel=0.05), name


def test_gradient_matches_finite_differences() -> None:
    x = torch.tensor([-1.3, 0.4, 2.1], dtype=torch.float64, requires_grad=True)
    function = Activation("0.8·gelu(x)+0.2·relu(x)²")
    assert torch.autograd.gradcheck(function, x)


def test_equal_subtrees_are_computed_once() -> None:
    calls = []
    original = LEAF_FUNCTIONS["gelu"]
    LEAF_FUNCTIONS["gelu"] = lambda x: (calls.append(1), original(x))[1]
    try:
        Activation("gelu(x)²+gelu(x)")(torch.zeros(3))
    finally:
        LEAF_FUNCTIONS["gelu"] = original
    assert len(calls) == 1
    assert parse("gelu(x)") is not None
