"""Entropies have the values that theory gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.monitors import (
    effective_rank,
    population_entropy,
    shannon_entropy,
    weight_entropy,
)
from symbio_core.streams import generator

SHARES = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12).filter(lambda s: sum(s) > 1e-3)


@given(SHARES)
def test_entropy_lies_between_nothing_and_even_shares(shares: list[float]) -> None:
    assert 0.0 <= shannon_entropy(shares) <= np.log(len(shares)) + 1e-9


def test_even_shares_have_the_logarithm_of_their_number() -> None:
    assert shannon_entropy([3.0] * 8) == pytest.approx(np.log(8))


@pytest.mark.parametrize("shares", [[], [0.0, 0.0], [1.0, -0.1], [1.0, np.nan]])
def test_what_are_not_shares_is_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        shannon_entropy(shares)


def test_normal_weights_have_the_entropy_of_the_normal_law() -> None:
    weights = 0.02 * generator(0, "weights").standard_normal((300, 400))
    expected = 0.5 * np.log(2 * np.pi * np.e) - np.log(8 / 64)
    assert weight_entropy(weights) == pytest.approx(expected, abs=0.01)


@given(st.floats(1e-30, 1e30))
def test_weight_entropy_does_not_depend_on_scale(scale: float) -> None:
    weights = generator(1, "scale").standard_normal(200)
    assert weight_entropy(scale * weights) == pytest.approx(weight_entropy(weights), abs=0.05)


def test_weights_that_die_lower_the_entropy() -> None:
    weights = generator(2, "dying").standard_normal(10_000)
    alive = weight_entropy(weights)
    weights[:9_000] = 0.0
    assert weight_entropy(weights) < alive / 2
    assert weight_entropy(np.zeros(5)) == 0.0


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        weight_entropy([1.0, np.inf])
    with pytest.raises(ValueError, match="2 bins"):
        weight_entropy([1.0], bins=1)


@given(st.integers(1, 8), st.floats(1e-20, 1e20))
def test_a_projection_has_the_effective_rank_of_its_directions(rank: int, scale: float) -> None:
    basis, _ = np.linalg.qr(generator(3, "basis").standard_normal((10, rank)))
    assert effective_rank(scale * basis @ basis.T) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_weighs_small_directions_little() -> None:
    assert 1.0 < effective_rank(np.diag([1.0, 0.01, 0.01])) < 1.2
    assert effective_rank(np.zeros((3, 2))) == 0.0


@pytest.mark.parametrize("matrix", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_what_is_not_a_matrix_has_no_rank(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="matrix"):
        effective_rank(matrix)


@given(st.integers(1, 12))
def test_copies_are_one_and_strangers_are_many(n: int) -> None:
    assert population_entropy(np.zeros((n, n))) == pytest.approx(0.0)
    assert population_entropy(1.0 - np.eye(n)) == pytest.approx(np.log(n))


@given(SHARES)
def test_without_likeness_population_entropy_is_shannons(shares: list[float]) -> None:
    n = len(shares)
    found = population_entropy(1.0 - np.eye(n), shares)
    assert found == pytest.approx(shannon_entropy(shares), abs=1e-9)


def test_a_copy_under_another_name_adds_nothing() -> None:
    two = np.array([[0.0, 0.8], [0.8, 0.0]])
    three = np.array([[0.0, 0.8, 0.8], [0.8, 0.0, 0.0], [0.8, 0.0, 0.0]])
    assert population_entropy(three, [0.5, 0.25, 0.25]) == pytest.approx(population_entropy(two))


@pytest.mark.parametrize(
    "distances",
    [np.zeros((2, 3)), np.array([[0, 1], [0.5, 0]]), np.full((2, 2), 2.0), np.zeros((0, 0))],
)
def test_what_are_not_distances_is_refused(distances: np.ndarray) -> None:
    with pytest.raises(ValueError, match="distances"):
        population_entropy(distances)


def test_shares_that_do_not_fit_the_population_are_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        population_entropy(np.zeros((2, 2)), [1.0])
