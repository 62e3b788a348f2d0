"""A lasting shift raises one alarm; noise, trends, bends and single spikes raise next to none."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.monitors import cusum_alarms, in_control_run_length, threshold_for
from symbio_core.streams import generator

Series = npt.NDArray[np.float64]


def run_length_by_markov_chain(threshold: float, allowance: float, cells: int = 400) -> float:
    """Brook & Evans (1972): the sum as a chain over cells of its range."""
    width = 2 * threshold / (2 * cells - 1)
    centres = np.arange(cells) * width
    # Normal distribution function by numerical integration: nothing of the code under test.
    grid = np.linspace(-12, 12, 48_001)
    table = np.cumsum(np.exp(-(grid**2) / 2)) * (grid[1] - grid[0]) / np.sqrt(2 * np.pi)
    steps = centres[None, :] - centres[:, None] + allowance
    chances = np.interp(steps + width / 2, grid, table) - np.interp(steps - width / 2, grid, table)
    chances[:, 0] = np.interp(steps[:, 0] + width / 2, grid, table)
    return float(np.linalg.solve(np.eye(cells) - chances, np.ones(cells))[0])


@pytest.mark.parametrize("threshold", [3.0, 4.0, 5.0, 6.0])
def test_the_approximate_run_length_is_near_the_exact_one(threshold: float) -> None:
    exact = run_length_by_markov_chain(threshold, 0.5)
    assert in_control_run_length(threshold) == pytest.approx(exact, rel=0.05)


@given(st.floats(10, 1e7), st.floats(0.1, 2.0))
def test_the_threshold_gives_the_run_length_that_was_asked_for(
    wanted: float, allowance: float
) -> None:
    threshold = threshold_for(wanted, allowance=allowance)
    found = in_control_run_length(threshold, allowance)
    assert found == pytest.approx(wanted, rel=1e-6) or (threshold == 0.0 and found >= wanted)


def test_two_sides_need_a_higher_threshold() -> None:
    assert threshold_for(500, two_sided=True) == pytest.approx(threshold_for(1000))


STEPS = np.arange(1_000)
HEALTHY = {
    "noise": 0.0 * STEPS,
    "a power law": (3 + 4 * (STEPS + 20) ** -0.3) / 0.03,
    "a steeper one": (2 + 9 * (STEPS + 100) ** -0.5) / 0.05,
    "one with a decayed learning rate": (2 + 9 * (STEPS + 100) ** -0.5) / 0.05
    - np.where(STEPS > 500, (STEPS - 500) / 125, 0.0),
}


@pytest.mark.parametrize("curve", HEALTHY)
def test_false_alarms_come_as_often_as_stated_to_within_a_fifth(curve: str) -> None:
    rng = generator(0, "in control")
    wanted, points, alarms = 500, 0, 0
    for _ in range(80):
        series = HEALTHY[curve] + rng.standard_normal(STEPS.size)
        found = len(cusum_alarms(series, side="upper", run_length=wanted))
        alarms += found
        points += STEPS.size - 50 * (1 + found)
    assert 0.8 * wanted <= points / alarms <= 1.2 * wanted


def test_a_shift_is_found_where_it_begins_and_told_once() -> None:
    rng = generator(1, "shift")
    for _ in range(10):
        series = rng.standard_normal(400)
        series[250:] += 3.0
        (alarm,) = cusum_alarms(series, run_length=10_000)
        assert alarm.side == "upper"
        assert 225 <= alarm.start <= alarm.index <= 260
        assert alarm.shift > 0.5


def test_throughput_that_falls_is_seen_from_below_only() -> None:
    rng = generator(2, "throughput")
    series = 9000 + 200 * rng.standard_normal(300)
    series[200:] /= 10
    assert [alarm.side for alarm in cusum_alarms(series, side="lower")] == ["lower"]
    assert cusum_alarms(series, side="upper") == ()


def test_a_healthy_learning_curve_is_silent() -> None:
    rng = generator(3, "curve")
    t = np.arange(800)
    curves = [3 + 4 * (t + 20) ** -0.3, 2 + 9 * (t + 100) ** -0.5]
    alarms = [
        cusum_alarms(curve + 0.05 * rng.standard_normal(800), side="upper", run_length=10_000)
        for curve in curves
        for _ in range(6)
    ]
    # Nine thousand points at one false alarm in ten thousand.
    assert sum(map(len, alarms)) <= 3


def test_a_single_spike_is_seldom_taken_for_a_shift_and_three_in_a_row_always() -> None:
    rng = generator(4, "spike")
    fooled = seen = 0
    for _ in range(20):
        series = rng.standard_normal(200)
        series[120] = 1e6
        fooled += bool(cusum_alarms(series, run_length=10_000))
        series[120:123] = 1e6
        told = cusum_alarms(series, run_length=10_000)
        seen += any(120 <= alarm.index <= 125 for alarm in told)
    assert fooled <= 3
    assert seen == 20


def test_a_spike_in_the_baseline_does_not_blind() -> None:
    rng = generator(5, "blind")
    series = rng.standard_normal(200)
    series[10] = 1e6
    series[120:] += 4.0
    assert [alarm.side for alarm in cusum_alarms(series)] == ["upper"]


def test_a_loss_that_turns_upward_is_found() -> None:
    rng = generator(6, "turn")
    t = np.arange(500)
    loss = 3 - 0.002 * t + 0.02 * rng.standard_normal(500)
    loss[300:] += 0.01 * (t[300:] - 300)
    found = cusum_alarms(loss, side="upper")
    assert found
    assert 300 <= found[0].index <= 330


def test_each_of_two_shifts_far_apart_is_told() -> None:
    rng = generator(7, "two")
    series = rng.standard_normal(600)
    series[200:] += 4.0
    series[400:] -= 8.0
    assert [alarm.side for alarm in cusum_alarms(series)] == ["upper", "lower"]


def test_a_constant_is_silent_and_its_change_is_not() -> None:
    series = np.full(200, 0.25)
    assert cusum_alarms(series) == ()
    series[150:] = 0.75
    assert [alarm.side for alarm in cusum_alarms(series)] == ["upper"]


def test_a_baseline_that_is_not_over_says_nothing() -> None:
    assert cusum_alarms(np.r_[np.zeros(30), np.full(20, 9.0)]) == ()
    assert cusum_alarms([]) == ()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 10**6))
def test_units_and_holes_do_not_matter(scale: float, level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    series: Series = rng.standard_normal(140)
    series[90:] += 3.0
    told = [(a.index, a.start, a.side) for a in cusum_alarms(series)]
    assert [(a.index, a.start, a.side) for a in cusum_alarms(scale * series + level)] == told
    holed = np.insert(series, [20, 100], np.nan)
    moved = [a.index - (a.index > 100) - 1 for a in cusum_alarms(holed)]
    assert moved == [index for index, _, _ in told]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"baseline": 49}, "50 or more"), ({"window": 49}, "shorter"), ({"run_length": 2}, "10 or")],
)
def test_what_would_alarm_falsely_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cusum_alarms(np.zeros(100), **settings)  # type: ignore[arg-type]


def test_a_table_is_not_a_series() -> None:
    with pytest.raises(ValueError, match="one axis"):
        cusum_alarms(np.zeros((60, 2)))


def test_a_threshold_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        in_control_run_length(-1.0)
