"""Divergence is seen where the model learns by heart, not where its evaluations wander."""

import numpy as np
import pytest

from symbio_core.gates.overfitting import divergence
from symbio_core.streams import generator
from tests.gates.planted import GATES, course, failed, generation, verdicts, walk

NAME = "train/validation divergence"
SIMULATIONS = 300
AT_MOST = 0.05 * SIMULATIONS


def false_alarms(label: str, n: int, val: float, train: float, *, iid: float, wander: float) -> int:
    """Count alarms on lines that fall by these much a point, beside noise of two kinds."""
    count = 0
    for seed in range(SIMULATIONS):
        rng, t = generator(seed, label), np.arange(n)
        together = walk(rng, n, wander)
        outcome = course(rng, 3.0 - val * t + together, 3.0 - train * t + together / 2, sd=iid)
        count += not divergence(outcome, GATES).passed
    return count


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("wander", [0.005, 0.01])
def test_a_flat_line_that_wanders_while_train_falls_seldom_diverges(n: int, wander: float) -> None:
    found = false_alarms("wandering", n, 0.0, 0.05, iid=0.001, wander=wander)
    assert found <= AT_MOST


@pytest.mark.parametrize(("val", "train"), [(0.03, 0.04), (0.0, 0.0), (0.0, 0.05)])
def test_a_line_that_falls_or_stands_still_seldom_diverges(val: float, train: float) -> None:
    assert false_alarms("noise", 8, val, train, iid=0.005, wander=0.0) <= AT_MOST
    assert false_alarms("walk", 8, val, train, iid=0.003, wander=0.007) <= AT_MOST


@pytest.mark.parametrize("wander", [0.0, 0.005, 0.01])
def test_learning_by_heart_is_seen_through_the_wandering(wander: float) -> None:
    seen = 0
    for seed in range(50):
        rng, t = generator(seed, "seen"), np.arange(12)
        val = 3.5 - 0.1 * np.minimum(t, 3) + 0.04 * np.maximum(t - 3, 0)
        together = walk(rng, t.size, wander)
        outcome = course(rng, val + together, 3.4 - 0.06 * t + together / 2)
        seen += not divergence(outcome, GATES).passed
    assert seen >= 45


@pytest.mark.parametrize("seed", range(10))
def test_learning_by_heart_is_divergence_and_nothing_else(seed: int) -> None:
    rng, t = generator(seed, "by heart"), np.arange(8)
    found = (generation(rng), generation(rng, index=1))
    outcome = course(rng, 3.0 + 0.02 * t, 3.0 - 0.05 * t, generations=found)
    assert failed(outcome) == {NAME}


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_after_a_steep_fall_within_one_phase_is_divergence(seed: int) -> None:
    rng, t = generator(seed, "turn"), np.arange(12)
    val = 3.0 + 3.0 * np.exp(-2.0 * t) + 0.03 * np.maximum(t - 4, 0)
    assert not verdicts(course(rng, val, 3.4 - 0.05 * t))[NAME].passed


def test_three_points_are_too_few_to_speak_of_divergence() -> None:
    rng, t = generator(0, "few"), np.arange(3)
    verdict = verdicts(course(rng, 3.0 + 0.1 * t, 3.0 - 0.1 * t))[NAME]
    assert verdict.passed
    assert "a trend takes" in verdict.reason


def test_validation_that_rises_with_train_is_no_overfitting() -> None:
    rng, t = generator(1, "both"), np.arange(8)
    assert NAME not in failed(course(rng, 3.0 + 0.05 * t, 2.9 + 0.05 * t))


def test_a_last_point_that_jumps_up_is_no_trend() -> None:
    rng, t = generator(3, "jump"), np.arange(8)
    val = np.where(t < 7, 3.0, 3.4)
    assert NAME not in failed(course(rng, val, 3.0 - 0.05 * t))


def test_a_rise_that_is_not_sure_batch_by_batch_is_let_pass() -> None:
    rng, t = generator(2, "small"), np.arange(8)
    outcome = course(rng, 3.0 + 0.02 * t, 3.0 - 0.05 * t, sd=0.0)
    assert NAME in failed(outcome)
    assert NAME not in failed(outcome.model_copy(update={"best": outcome.end}))


def test_the_verdict_shows_the_rise_and_what_a_wandering_line_would_show() -> None:
    rng, t = generator(4, "shown"), np.arange(8)
    verdict = verdicts(course(rng, 3.0 + 0.02 * t, 3.0 - 0.05 * t))[NAME]
    assert verdict.interval is not None
    assert verdict.value == pytest.approx(0.14, abs=0.01)
    assert 0.0 < verdict.threshold < verdict.interval.low


@pytest.mark.parametrize("lost", [0, 3, 5, 7])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_losses_that_are_no_numbers_are_judged_all_the_same(lost: int, value: float) -> None:
    rng, t = generator(5, "lost"), np.arange(8)
    val = np.where(t >= lost, value, 3.0 - 0.01 * t)
    outcome = course(rng, 3.0 + 0.0 * t, 3.0 - 0.05 * t)
    points = tuple(
        point.model_copy(update={"val_nats": float(v)})
        for point, v in zip(outcome.points, val, strict=True)
    )
    assert NAME not in failed(outcome.model_copy(update={"points": points}))
