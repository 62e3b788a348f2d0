"""The gate on progress lets the better through, chance seldom, and a loss of quality never."""

import numpy as np
import pytest

from symbio_core.gates import judge_battery
from symbio_core.records import Battery, Interval, Outcome, Verdict
from symbio_core.streams import generator
from tests.gates.planted import GATES, answers, batches, battery, healthy, ref

SAME = np.full((20, 3), 0.5)


def judged(
    outcome: Outcome,
    after: Battery,
    before: Battery | None = None,
    best: Battery | None = None,
    best_quality: Interval | None = None,
) -> dict[str, Verdict]:
    found = judge_battery(
        outcome, before=before, after=after, best_battery=best, gates=GATES, seed=3,
        best_quality=best.quality if best else best_quality,
    )  # fmt: skip
    return {verdict.name: verdict for verdict in found}


def moved(change: float, seed: int = 0) -> Outcome:
    """An outcome whose validation loss changed by this much (nats a token)."""
    start, end = batches(generator(seed, "moved"), 3.0, 3.0 + change)
    rng = generator(seed, "outcome")
    return healthy(rng, start=ref("start", start), end=ref("end", end))


def test_both_verdicts_are_given_also_when_all_is_well() -> None:
    found = judged(moved(-0.1), battery(SAME))
    assert list(found) == ["progress", "regression"]
    assert all(verdict.passed and verdict.gate == "battery" for verdict in found.values())


def test_in_the_first_phase_only_validation_counts() -> None:
    poor = battery(np.zeros((20, 3)))
    assert judged(moved(-0.05), poor)["progress"].passed
    assert not judged(moved(+0.05), poor)["progress"].passed


def test_a_lower_loss_at_equal_quality_is_progress() -> None:
    verdict = judged(moved(-0.05), battery(SAME), before=battery(SAME))["progress"]
    assert verdict.passed
    assert verdict.value < verdict.threshold
    assert verdict.reason.startswith("better")


def test_better_answers_at_an_equal_loss_are_progress() -> None:
    rng = generator(1, "answers")
    before, after = battery(answers(rng, 0.3)), battery(answers(rng, 0.6))
    verdict = judged(moved(0.0), after, before=before)["progress"]
    assert verdict.passed
    assert "quality" in verdict.metric
    assert verdict.interval is not None
    assert verdict.interval.above_zero


def test_a_lower_loss_does_not_buy_worse_answers() -> None:
    rng = generator(2, "answers")
    before, after = battery(answers(rng, 0.6)), battery(answers(rng, 0.4))
    verdict = judged(moved(-0.1), after, before=before)["progress"]
    assert not verdict.passed
    assert verdict.reason.startswith("mixed")


def test_better_answers_do_not_buy_a_higher_loss() -> None:
    rng = generator(3, "answers")
    before, after = battery(answers(rng, 0.4)), battery(answers(rng, 0.6))
    assert not judged(moved(+0.1), after, before=before)["progress"].passed


def test_what_is_worse_is_called_worse() -> None:
    verdict = judged(moved(+0.1), battery(SAME), before=battery(SAME))["progress"]
    assert not verdict.passed
    assert verdict.reason.startswith("worse")


def test_the_same_model_twice_is_no_progress() -> None:
    outcome = moved(0.0)
    outcome = outcome.model_copy(update={"end": outcome.start})
    verdict = judged(outcome, battery(SAME), before=battery(SAME))["progress"]
    assert not verdict.passed
    assert verdict.reason.startswith("not surely better")


def test_two_equal_models_pass_in_at_most_one_seed_of_twenty() -> None:
    passed = 0
    for seed in range(200):
        rng = generator(seed, "equal")
        hard = rng.normal(0.5, 0.1, (20, 1))
        one, two = (battery(np.clip(hard + rng.normal(0, 0.1, (20, 3)), 0, 1)) for _ in "ab")
        passed += judged(moved(0.0, seed), two, before=one)["progress"].passed
    assert passed <= 10


def test_trainings_that_differ_in_luck_alone_pass_in_at_most_one_seed_of_twenty() -> None:
    passed = 0
    for seed in range(400):
        rng = generator(seed, "twins")
        # Evaluated so often that only what each training drew by luck is left.
        start, end = (3.0 + rng.normal(0.0, 0.003) + rng.normal(0, 1e-4, 24) for _ in "ab")
        outcome = healthy(
            rng, start=ref("start", tuple(start.tolist())), end=ref("end", tuple(end.tolist()))
        )
        hard = rng.normal(0.5, 0.1, (20, 1))
        one, two = (battery(np.clip(hard + rng.normal(0, 0.1, (20, 3)), 0, 1)) for _ in "ab")
        passed += judged(outcome, two, before=one)["progress"].passed
    assert passed <= 20


def test_without_batteries_two_equal_models_pass_as_seldom() -> None:
    passed = sum(judged(moved(0.0, s), battery(SAME))["progress"].passed for s in range(600))
    assert passed <= 30


@pytest.mark.parametrize("nats", [(), (3.0,), (3.0,) * 7, (np.nan,) * 24, (np.inf,) * 24])
def test_losses_that_cannot_be_compared_are_no_progress(nats: tuple[float, ...]) -> None:
    outcome = moved(-0.1).model_copy(update={"end": ref("end", nats)})
    assert not judged(outcome, battery(SAME), before=battery(SAME))["progress"].passed


def test_a_great_loss_of_quality_is_a_regression() -> None:
    rng = generator(4, "regression")
    best, after = battery(answers(rng, 0.6)), battery(answers(rng, 0.3))
    verdict = judged(moved(-0.1), after, best=best)["regression"]
    assert not verdict.passed
    assert verdict.value < verdict.threshold
    assert verdict.interval is not None
    assert verdict.interval.high < 1.0


def test_a_small_loss_of_quality_is_none() -> None:
    rng = generator(5, "small")
    best, after = battery(answers(rng, 0.6)), battery(answers(rng, 0.5))
    assert judged(moved(-0.1), after, best=best)["regression"].passed


def test_a_great_loss_within_chance_is_none() -> None:
    rng = generator(6, "chance")
    rare = np.zeros((20, 3))
    rare[rng.integers(0, 20, 3), 0] = 0.9
    other = np.zeros((20, 3))
    other[rng.integers(0, 20, 1), 0] = 0.9
    verdict = judged(moved(-0.1), battery(other), best=battery(rare))["regression"]
    assert verdict.value < verdict.threshold
    assert verdict.passed
    assert "within chance" in verdict.reason


def test_without_the_best_battery_the_two_intervals_decide() -> None:
    after = battery(np.full((20, 3), 0.2)).model_copy(
        update={"quality": Interval(value=0.2, low=0.15, high=0.25)}
    )
    sure = Interval(value=0.6, low=0.55, high=0.65)
    vague = Interval(value=0.6, low=0.1, high=1.1)
    assert not judged(moved(-0.1), after, best_quality=sure)["regression"].passed
    assert judged(moved(-0.1), after, best_quality=vague)["regression"].passed


def test_nothing_can_be_lost_where_nothing_was() -> None:
    none = Interval(value=0.0, low=0.0, high=0.0)
    assert judged(moved(-0.1), battery(SAME), best_quality=none)["regression"].passed
