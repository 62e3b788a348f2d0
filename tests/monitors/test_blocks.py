"""Contenders over shared seeds: coverage, error rates and power by simulation; Holm by hand."""

from __future__ import annotations

import numpy as np
import pytest

from symbio_core.monitors import block_differences, holm

LIVES = 2_000


def lives(truth: list[float], *, seeds: int = 3) -> list[np.ndarray]:
    """Losses of contenders over seeds that lift and lower all of them together."""
    rng = np.random.default_rng(7)
    shape = (LIVES, len(truth), seeds)
    blocks = rng.normal(3.5, 0.05, (LIVES, 1, seeds))
    return list(np.array(truth)[None, :, None] + blocks + rng.normal(0.0, 0.004, shape))


def test_all_intervals_together_hold_the_truth_as_often_as_they_say() -> None:
    truth = [0.0, 0.01, -0.02, 0.0]
    held = [
        all(
            span.low <= truth[0] - other <= span.high
            for (span, _), other in zip(block_differences(table), truth[1:], strict=True)
        )
        for table in lives(truth)
    ]
    assert 0.945 <= np.mean(held) <= 0.985


def test_equal_contenders_are_seldom_called_different() -> None:
    false = [
        min(holm([p for _, p in block_differences(table)])) < 0.05 for table in lives([0.0] * 4)
    ]
    assert np.mean(false) <= 0.06


def test_all_contenders_together_see_what_one_pair_does_not() -> None:
    truth = [-0.02, 0.0, 0.0, 0.0]
    seen = [all(span.below_zero for span, _ in block_differences(table)) for table in lives(truth)]
    assert np.mean(seen) > 0.75


def test_a_seed_that_is_hard_for_all_changes_nothing() -> None:
    table = np.array([[3.0, 3.2, 3.1], [3.1, 3.3, 3.25], [3.05, 3.2, 3.2]])
    moved = table + np.array([0.0, 5.0, -1.0])
    for (span, p), (other, q) in zip(
        block_differences(table), block_differences(moved), strict=True
    ):
        assert (span.value, span.low, p) == pytest.approx((other.value, other.low, q))


def test_a_difference_without_any_noise_is_sure_and_none_is_none() -> None:
    (span, p_value), (same, nothing) = block_differences([[1.0, 2.0], [1.5, 2.5], [1.0, 2.0]])
    assert (span.low, span.high, p_value) == pytest.approx((-0.5, -0.5, 0.0))
    assert (same.value, nothing) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [np.nan, 1.0]]])
def test_too_little_or_broken_is_refused(table: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="losses of shape"):
        block_differences(table)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
