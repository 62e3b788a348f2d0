"""The small arithmetic that verdicts share: shares, repeats, and what a line should learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.gates.evidence import (
    TRAINING_NOISE_NATS,
    repeated,
    share_interval,
    trained_difference,
)
from symbio_core.gates.expected import course_of, learning_done
from symbio_core.monitors import difference_interval
from symbio_core.records import Interval
from symbio_core.streams import generator
from tests.gates.planted import at_steps, law

FINITE = st.floats(-1.0, 1.0)
HALF = st.floats(0.0, 0.5)


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def test_a_share_has_wilsons_interval() -> None:
    # 15 of 50: solving |p − 0.3| = 1.96·√(p(1 − p)/50) for p gives 0.191 and 0.438.
    found = share_interval(15, 50, confidence=0.95)
    assert found.value == 0.3
    assert found.low == pytest.approx(0.1910, abs=5e-4)
    assert found.high == pytest.approx(0.4375, abs=5e-4)


@given(whole=st.integers(1, 500), part=st.integers(0, 500))
def test_a_share_lies_in_its_interval_and_that_between_none_and_all(whole: int, part: int) -> None:
    found = share_interval(min(part, whole), whole, confidence=0.95)
    assert 0.0 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12 <= 1.0 + 1e-12


def test_the_share_of_nothing_is_unknown() -> None:
    found = share_interval(0, 0, confidence=0.9)
    assert (found.low, found.high, found.confidence) == (0.0, 1.0, 0.9)


@given(value=FINITE, half=HALF)
def test_a_repeat_adds_the_training_noise_in_squares(value: float, half: float) -> None:
    found = repeated(interval(value, half))
    expected = math.hypot(half, 1.959964 * TRAINING_NOISE_NATS)
    assert found.value == value
    assert found.high - value == pytest.approx(expected, abs=1e-6)
    assert value - found.low == pytest.approx(expected, abs=1e-6)


@given(one=FINITE, two=FINITE, half=HALF, comparisons=st.integers(1, 20))
def test_a_trained_difference_is_wider_than_its_batches_alone_say(
    one: float, two: float, half: float, comparisons: int
) -> None:
    first, second = interval(one, half), interval(two, half)
    bare = difference_interval(first, second, comparisons=comparisons)
    found = trained_difference(first, second, comparisons=comparisons)
    assert found.value == bare.value
    assert found.low < bare.low
    assert found.high > bare.high


def test_a_step_at_half_the_learning_rate_counts_half() -> None:
    steps, rates = np.array([100.0, 200.0, 300.0]), np.array([1.0, 0.5, 0.5])
    done = learning_done(at_steps(steps, np.zeros(3), rates))
    assert np.exp(done) == pytest.approx([100.0, 175.0, 225.0])


def test_a_line_that_keeps_its_law_keeps_its_pace_at_a_falling_learning_rate() -> None:
    steps = np.arange(100.0, 2100.0, 100.0)
    rates = np.where(steps <= 1000.0, 1.0, np.linspace(1.9, 0.1, steps.size))
    line = at_steps(steps, law(steps, rates, pace=0.4), rates)
    found = course_of(line[:9], line[9:], confidence=0.95)
    assert found.before is not None
    assert found.before.value == pytest.approx(-0.4)
    assert found.own.value == pytest.approx(-0.4)
    fall = line[9].val_nats - line[-1].val_nats
    assert found.expected_nats == pytest.approx(fall)


def test_only_recent_points_tell_the_pace() -> None:
    steps = np.array([1.0, 10.0, 50.0, *np.arange(400.0, 1300.0, 100.0)])
    flat = np.ones(steps.size)
    losses = law(steps, flat) + np.where(steps < 100.0, 5.0, 0.0)
    found = course_of(at_steps(steps, losses, flat), at_steps(
        np.array([1300.0]), np.array([0.0]), np.ones(1)
    ), confidence=0.95)  # fmt: skip
    assert found.before is not None
    assert found.before.value == pytest.approx(-0.3, abs=0.01)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_too_few_points_before_tell_no_pace(known: int) -> None:
    steps = np.arange(100.0, 900.0, 100.0)
    line = at_steps(steps, law(steps, np.ones(8)), np.ones(8))
    found = course_of(line[:known], line[known:], confidence=0.95)
    assert found.before is None
    assert found.expected_nats is None


def test_a_line_that_did_not_surely_fall_before_promises_nothing() -> None:
    steps = np.arange(100.0, 1700.0, 100.0)
    noise = generator(0, "flat").normal(0.0, 0.01, steps.size)
    line = at_steps(steps, 3.0 + noise, np.ones(steps.size))
    assert course_of(line[:8], line[8:], confidence=0.95).before is None


def test_no_points_at_all_are_no_course() -> None:
    found = course_of((), (), confidence=0.95)
    assert found.before is None
    assert found.gained == 0.0
    assert found.own.high == math.inf
