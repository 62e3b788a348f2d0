"""Mutual information of signals whose value is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.monitors import mutual_information, sliced_information
from symbio_core.streams import generator


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_a_gaussian_pair_has_the_information_of_its_correlation(correlation: float) -> None:
    rng = generator(0, "gaussian")
    x = rng.standard_normal(20_000)
    y = correlation * x + np.sqrt(1 - correlation**2) * rng.standard_normal(20_000)
    truth = -0.5 * np.log(1 - correlation**2)
    assert mutual_information(x, y) == pytest.approx(truth, rel=0.06, abs=0.01)


def test_independent_signals_tell_nothing_of_each_other_even_in_small_samples() -> None:
    rng = generator(1, "independent")
    found = [mutual_information(*rng.standard_normal((2, 200))) for _ in range(100)]
    assert np.mean(found) < 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_information_is_symmetric_bounded_and_blind_to_monotone_scales(
    seed: int, bins: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(300)
    y = x + rng.standard_normal(300)
    found = mutual_information(x, y, bins=bins)
    assert found == pytest.approx(mutual_information(y, x, bins=bins))
    # Doubling and cubing keep the order, and quantile edges are interpolated between neighbours.
    assert found == pytest.approx(mutual_information(x**3, 2 * y, bins=bins), abs=0.1)
    assert 0.0 <= found <= np.log(bins)


def test_a_signal_tells_all_of_itself() -> None:
    x = np.arange(1000.0)
    found = mutual_information(x, x, bins=10)
    # Ten full cells on the diagonal: the correction takes (10 − 10 − 10 + 1) / 2000 off.
    assert found == pytest.approx(np.log(10), abs=0.006)


def test_a_dead_unit_tells_nothing() -> None:
    rng = generator(2, "dead")
    assert mutual_information(rng.standard_normal(500), np.zeros(500)) < 1e-12
    relu = np.maximum(rng.standard_normal(500), 0.0)
    assert mutual_information(relu, rng.standard_normal(500)) < 0.05


def test_slices_of_one_dimension_are_the_whole() -> None:
    rng = generator(3, "slices")
    x = rng.standard_normal(4000)
    y = 0.8 * x + 0.6 * rng.standard_normal(4000)
    whole = mutual_information(x, y)
    sliced = sliced_information(x[:, None], y[:, None], rng=rng, slices=3)
    assert sliced == pytest.approx(whole, abs=0.02)


def test_a_layer_that_drops_its_input_has_less_information() -> None:
    rng = generator(4, "layers")
    inputs = rng.standard_normal((2000, 6))
    kept = np.tanh(inputs @ rng.standard_normal((6, 6)))
    dropped = kept + 5.0 * rng.standard_normal(kept.shape)
    told = [sliced_information(inputs, h, rng=generator(5, "directions")) for h in (kept, dropped)]
    assert told[0] > 2 * told[1]


@pytest.mark.parametrize(
    ("x", "y", "bins", "message"),
    [
        (np.zeros(9), np.zeros(8), None, "do not pair"),
        (np.zeros(7), np.zeros(7), None, "8 samples"),
        (np.full(9, np.nan), np.zeros(9), None, "finite"),
        (np.zeros(9), np.zeros(9), 1, "2 bins"),
    ],
)
def test_signals_that_cannot_be_compared_are_refused(
    x: np.ndarray, y: np.ndarray, bins: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mutual_information(x, y, bins=bins)


def test_layers_that_do_not_pair_are_refused() -> None:
    rng = generator(6, "refused")
    with pytest.raises(ValueError, match="pair"):
        sliced_information(np.zeros((9, 2)), np.zeros((8, 2)), rng=rng)
    with pytest.raises(ValueError, match="slice"):
        sliced_information(np.zeros((9, 2)), np.zeros((9, 2)), rng=rng, slices=0)
