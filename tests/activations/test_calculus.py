import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    LEAVES,
    RESERVE,
    Leaf,
    Limits,
    derivative,
    evaluate,
    normaliser,
    parse,
    random_expression,
    second_moment,
)

AWAY_FROM_THE_KINK = np.concatenate([np.linspace(-5, -0.05, 40), np.linspace(0.05, 5, 40)])

BY_HAND = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
    "identity": lambda x: x,
    "square": lambda x: x**2,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "erf": math.erf,
    "sin": math.sin,
    "bell": lambda x: math.exp(-(x**2)),
}


@pytest.mark.parametrize("name", LEAVES + RESERVE)
def test_each_leaf_has_the_values_of_its_formula(name):
    x = np.array([-6.0, -1.3, -0.2, 0.0, 0.4, 1.0, 5.5])
    expected = [BY_HAND[name](v) for v in x]
    np.testing.assert_allclose(evaluate(Leaf(name), x), expected, rtol=1e-6, atol=1e-12)


def assert_slope_is_that_of_the_values(expr):
    x, step = AWAY_FROM_THE_KINK, 1e-5
    measured = (evaluate(expr, x + step) - evaluate(expr, x - step)) / (2 * step)
    size = 1 + np.max(np.abs(measured))
    np.testing.assert_allclose(derivative(expr, x), measured, rtol=1e-6, atol=1e-7 * size)


@pytest.mark.parametrize("name", LEAVES + RESERVE)
def test_each_leaf_has_the_slope_of_its_values(name):
    assert_slope_is_that_of_the_values(Leaf(name))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_tree_has_the_slope_of_its_values(seed):
    rng = np.random.default_rng(seed)
    assert_slope_is_that_of_the_values(random_expression(rng, Limits(5, 12), LEAVES + RESERVE))


def test_relu_has_no_slope_at_its_kink():
    assert derivative(Leaf("relu"), np.zeros(1)) == 0.0


def test_shape_is_kept_and_overflow_is_silent():
    x = np.full((2, 3), 1e200)
    values = evaluate(parse("x⁴"), x)
    assert values.shape == (2, 3)
    assert np.isinf(values).all()


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("relu(x)", 0.5),
        ("x", 1.0),
        ("x²", 3.0),
        ("relu(x)²", 1.5),
        ("x³", 15.0),
        ("relu(x)³", 7.5),
        ("relu(x)+0.5·x", 0.5 + 0.25 + 0.5),
        ("bell(x)", 1 / math.sqrt(5)),
        ("sin(x)", (1 - math.exp(-2)) / 2),
        ("erf(x)", 2 / math.pi * math.asin(2 / 3)),
    ],
)
def test_second_moments_are_those_of_the_closed_forms(name, moment):
    assert second_moment(parse(name)) == pytest.approx(moment, rel=1e-12)
    assert normaliser(parse(name)) == pytest.approx(moment**-0.5, rel=1e-12)


def test_the_second_moment_of_gelu_is_that_of_a_very_fine_sum():
    x = np.linspace(-14, 14, 2_800_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    fine = np.sum(evaluate(Leaf("gelu"), x) ** 2 * density) * (x[1] - x[0])
    assert second_moment(Leaf("gelu")) == pytest.approx(fine, rel=1e-10)


def test_functions_without_a_size_have_no_normaliser():
    assert normaliser(parse("x-x")) == math.inf
    assert math.isnan(normaliser(parse("1e200·x")))
