"""Each level of overfitting is seen where it was planted, alone, and nowhere else."""

import numpy as np
import pytest

from symbio_core.records import Generation
from symbio_core.streams import generator
from tests.gates.planted import course, failed, generation, healthy, member, verdicts

NAMES = ("train/validation divergence", "population collapse", "complexity overfitting")


@pytest.mark.parametrize("name", NAMES)
def test_healthy_phases_are_silent(name: str) -> None:
    false = sum(name in failed(healthy(generator(seed, "healthy"))) for seed in range(200))
    assert false <= 6


def test_a_phase_that_stands_still_does_not_diverge() -> None:
    flat = np.full(8, 3.0)
    outcomes = [course(generator(seed, "flat"), flat, flat - 0.1) for seed in range(200)]
    assert sum(NAMES[0] in failed(outcome) for outcome in outcomes) <= 6


def test_train_that_falls_while_validation_stands_still_does_not_diverge_yet() -> None:
    flat, falling = np.full(8, 3.0), 3.0 - 0.05 * np.arange(8)
    outcomes = [course(generator(seed, "flat"), flat, falling) for seed in range(200)]
    assert sum(NAMES[0] in failed(outcome) for outcome in outcomes) <= 10


@pytest.mark.parametrize("seed", range(10))
def test_learning_by_heart_is_divergence_and_nothing_else(seed: int) -> None:
    rng, t = generator(seed, "by heart"), np.arange(8)
    found = (generation(rng), generation(rng, index=1))
    outcome = course(rng, 3.0 + 0.02 * t, 3.0 - 0.05 * t, generations=found)
    assert failed(outcome) == {NAMES[0]}


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_after_a_fall_within_one_phase_is_divergence(seed: int) -> None:
    rng, t = generator(seed, "turn"), np.arange(10)
    val = 3.5 - 0.06 * np.minimum(t, 4) + 0.03 * np.maximum(t - 4, 0)
    assert not verdicts(course(rng, val, 3.4 - 0.05 * t))[NAMES[0]].passed


def test_three_points_are_too_few_to_speak_of_divergence() -> None:
    rng, t = generator(0, "few"), np.arange(3)
    verdict = verdicts(course(rng, 3.0 + 0.1 * t, 3.0 - 0.1 * t))[NAMES[0]]
    assert verdict.passed
    assert "a trend takes" in verdict.reason


def test_validation_that_rises_with_train_is_no_overfitting() -> None:
    rng, t = generator(1, "both"), np.arange(8)
    assert NAMES[0] not in failed(course(rng, 3.0 + 0.05 * t, 2.9 + 0.05 * t))


def test_a_rise_too_small_to_tell_from_noise_is_let_pass() -> None:
    rng, t = generator(2, "small"), np.arange(8)
    outcome = course(rng, 3.0 + 0.0001 * t, 3.0 - 0.05 * t, sd=0.0)
    outcome = outcome.model_copy(update={"best": outcome.end})
    assert verdicts(outcome)[NAMES[0]].value > 0.0
    assert NAMES[0] not in failed(outcome)


@pytest.mark.parametrize("seed", range(10))
def test_members_that_became_one_function_are_a_collapse_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "collapse")
    alike = generation(rng, index=1, diversity=0.12, found=False)
    earlier = generation(rng, diversity=0.2, found=False)
    assert failed(healthy(rng, generations=(earlier, alike))) == {NAMES[1]}


@pytest.mark.parametrize(
    "change",
    [
        {"found": True},
        {"diversity": 0.3},
        {"members": (member("gelu(x)"),)},
    ],
)
def test_a_find_or_difference_or_a_lone_member_is_no_collapse(change: dict[str, object]) -> None:
    rng = generator(0, "no collapse")
    base: dict[str, object] = {"diversity": 0.12, "found": False}
    last = generation(rng, **(base | change))
    assert NAMES[1] not in failed(healthy(rng, generations=(generation(rng), last)))


def bloated(**large: float) -> Generation:
    rng = generator(0, "bloated")
    facts = {"nodes": 9, "loss": 0.08, "train": -0.05} | large
    members = (
        member("tanh(x)+sin(x)*gelu(x)^2-x", **facts),  # type: ignore[arg-type]
        member("silu(x)", nodes=2),
        member("relu(x)", nodes=2, loss=0.005, train=0.004),
    )
    return generation(rng, members=members)


def test_a_large_tree_that_learns_train_by_heart_is_complexity_and_nothing_else() -> None:
    outcome = healthy(generator(0, "complex"), generations=(bloated(),))
    assert failed(outcome) == {NAMES[2]}
    verdict = verdicts(outcome)[NAMES[2]]
    assert "9 nodes" in verdict.reason
    assert "silu(x)" in verdict.reason
    assert verdict.interval is not None
    assert verdict.interval.above_zero


@pytest.mark.parametrize(
    "change", [{"nodes": 6}, {"train": 0.05}, {"loss": 0.012}, {"rung": 0}, {"half": 0.2}]
)
def test_small_or_honest_or_doubtful_trees_are_let_pass(change: dict[str, float]) -> None:
    outcome = healthy(generator(0, "honest"), generations=(bloated(**change),))
    assert NAMES[2] not in failed(outcome)


def test_members_without_a_score_are_passed_over() -> None:
    rng = generator(0, "unscored")
    unscored = tuple(m.model_copy(update={"score": None}) for m in bloated().members)
    outcome = healthy(rng, generations=(generation(rng, members=unscored),))
    assert NAMES[2] not in failed(outcome)


def test_a_phase_without_search_says_so() -> None:
    found = verdicts(healthy(generator(0, "no search"), generations=()))
    for name in NAMES[1:]:
        assert found[name].passed
        assert found[name].reason == "no search in this phase"


def test_each_level_answers_with_its_own_response() -> None:
    rng = generator(3, "response")
    found = verdicts(healthy(rng, generations=(generation(rng, diversity=0.1, found=False),)))
    asked = {change.setting: (change.op, change.value) for change in found[NAMES[1]].changes}
    assert asked["immigrants"][1] > 0.0
    assert asked["mutation_scale"][1] > 1.0 > asked["coupling_scale"][1]
