"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.monitors import difference_interval, paired_interval, robust_slope, t_interval
from symbio_core.records import Interval
from symbio_core.streams import generator

LOSSES = st.lists(st.floats(-50, 50), min_size=2, max_size=30)


def test_the_interval_of_three_numbers_is_the_textbook_one() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


@given(LOSSES)
def test_identical_inputs_give_an_interval_without_width(losses: list[float]) -> None:
    found = paired_interval(losses, losses)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.above_zero
    assert not found.below_zero


@given(LOSSES, st.floats(0.5, 0.99))
def test_a_swap_of_the_two_turns_the_interval_over(losses: list[float], confidence: float) -> None:
    other = losses[::-1]
    there = paired_interval(losses, other, confidence=confidence)
    back = paired_interval(other, losses, confidence=confidence)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_ninety_five_intervals_in_a_hundred_hold_the_truth() -> None:
    rng = generator(0, "coverage")
    found = [t_interval(rng.normal(0.3, 2.0, 8)) for _ in range(2000)]
    assert np.mean([i.low <= 0.3 <= i.high for i in found]) == pytest.approx(0.95, abs=0.015)


def test_what_is_common_to_both_cancels() -> None:
    rng = generator(1, "common")
    hard = rng.normal(4.0, 1.0, 24)
    found = paired_interval(hard - 0.01 + rng.normal(0, 0.004, 24), hard)
    assert found.below_zero


@pytest.mark.parametrize("losses", [[], [1.0]])
def test_fewer_than_two_batches_are_refused(losses: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        paired_interval(losses, losses)


def test_batches_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_difference_looked_at_among_many_is_less_sure() -> None:
    first, second = Interval(value=1.0, low=0.4, high=1.6), Interval(value=0.0, low=-0.8, high=0.8)
    alone = difference_interval(first, second)
    assert alone.high - alone.value == pytest.approx(1.0)
    among = difference_interval(first, second, comparisons=10)
    assert among.high - among.value == pytest.approx(2.807 / 1.96, rel=1e-3)


def test_the_best_of_many_equal_pairs_seldom_looks_different() -> None:
    rng = generator(2, "many")
    fooled = 0
    for _ in range(1000):
        draws = rng.standard_normal((20, 2))
        pairs = [[Interval(value=v, low=v - 1.96, high=v + 1.96) for v in two] for two in draws]
        gaps = [difference_interval(a, b, comparisons=20) for a, b in pairs]
        fooled += any(gap.above_zero or gap.below_zero for gap in gaps)
    assert fooled <= 65


def test_intervals_of_unlike_confidence_are_refused() -> None:
    one = Interval(value=0.0, low=-1.0, high=1.0)
    with pytest.raises(ValueError, match="confidences"):
        difference_interval(one, one.model_copy(update={"confidence": 0.9}))
    with pytest.raises(ValueError, match="1 or more"):
        difference_interval(one, one, comparisons=0)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_an_outlier_does_not_move_the_slope_of_a_line(slope: float, level: float) -> None:
    x = np.arange(40.0)
    y = level + slope * x
    y[7] = 1e6
    assert robust_slope(x, y).value == pytest.approx(slope, abs=1e-6)


def test_noise_seldom_has_a_sure_slope() -> None:
    rng = generator(3, "flat")
    found = [robust_slope(np.arange(12), rng.standard_normal(12)) for _ in range(600)]
    assert np.mean([s.above_zero or s.below_zero for s in found]) <= 0.07


def test_points_that_are_not_finite_are_left_out() -> None:
    found = robust_slope([0, 1, 2, 3, 4], [0.0, 2.0, np.nan, 6.0, np.inf])
    assert found.value == 2.0


@pytest.mark.parametrize(("x", "y"), [([0, 1], [0, 1]), ([3, 3, 3], [1, 2, 3])])
def test_where_nothing_can_be_known_the_interval_is_the_whole_line(
    x: list[int], y: list[int]
) -> None:
    found = robust_slope(x, y)
    assert (found.low, found.high) == (-np.inf, np.inf)
