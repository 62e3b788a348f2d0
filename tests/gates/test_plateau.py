"""Each plateau is told by itself, and none hides another."""

from typing import Any

import numpy as np
import pytest

from symbio_core.lifecycle import adapt
from symbio_core.records import Adaptation, EvalPoint, Generation, Outcome
from symbio_core.streams import generator
from tests.gates.planted import (
    TRAINING_SD,
    Numbers,
    at_steps,
    course,
    failed,
    generation,
    healthy,
    law,
    member,
    one_function,
    verdicts,
)

EXHAUSTION, EQUILIBRIUM, STAGNATION, MISMATCH = NAMES = (
    "activation space exhaustion",
    "punctuated equilibrium",
    "consensus stagnation",
    "learning-rate mismatch",
)
FLAT = np.full(8, 3.0)
SIMULATIONS = 300
AT_MOST = 0.05 * SIMULATIONS
LOCKED = (0.5, 0.97, 0.97)


def test_healthy_phases_are_silent() -> None:
    found = [failed(healthy(generator(seed, "healthy"))) for seed in range(100)]
    assert not [names for names in found if names & set(NAMES)]


def test_synchrony_alone_is_no_plateau_while_the_loss_falls() -> None:
    for seed in range(100):
        rng = generator(seed, "locked")
        locked = generation(rng, sync=LOCKED, found=False)
        outcome = healthy(rng, generations=(generation(rng), locked))
        assert STAGNATION not in failed(outcome)


def test_a_fall_seen_batch_by_batch_counts_where_points_are_few() -> None:
    rng = generator(0, "few")
    locked = generation(rng, sync=LOCKED, found=False)
    val = np.array([3.0, 2.9])
    assert STAGNATION not in failed(course(rng, val, val, generations=(locked,)))
    assert STAGNATION in failed(course(rng, val[::-1], val, generations=(locked,)))


@pytest.mark.parametrize("seed", range(10))
def test_a_space_of_known_functions_is_exhausted_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "exhausted")
    known = [
        generation(rng, index=i, proposals=40, duplicates=36, front_moved=False) for i in (0, 1)
    ]
    assert failed(healthy(rng, generations=tuple(known))) == {EXHAUSTION}


@pytest.mark.parametrize(
    "change", [{"front_moved": True}, {"duplicates": 32}, {"proposals": 0, "duplicates": 0}]
)
def test_a_front_that_moves_or_new_offspring_are_no_exhaustion(change: dict[str, int]) -> None:
    rng = generator(0, "new")
    facts = {"proposals": 40, "duplicates": 36, "front_moved": False} | change
    assert EXHAUSTION not in failed(healthy(rng, generations=(generation(rng, **facts),)))


def flat(rng: np.random.Generator, *generations: Generation) -> Outcome:
    """An outcome whose line stands still."""
    outcome = course(rng, FLAT, FLAT - 0.1, generations=generations)
    # On flat ground a batch-by-batch fall of 2.5% of seeds is chance; the end here is the start.
    return outcome.model_copy(update={"end": outcome.start})


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("diversities", [(0.5, 0.5), (0.4, 0.35)])
def test_stasis_of_a_diverse_population_is_equilibrium_and_nothing_else(
    seed: int, diversities: tuple[float, float]
) -> None:
    rng = generator(seed, "stasis")
    still = [generation(rng, index=i, found=False, diversity=d) for i, d in enumerate(diversities)]
    assert failed(flat(rng, *still)) == {EQUILIBRIUM}
    assert failed(healthy(rng, generations=tuple(still))) == set(), "the line itself goes on"


def test_stasis_tells_how_far_other_members_would_differ() -> None:
    rng = generator(0, "stasis")
    dry = generation(rng, found=False, diversity=0.5, diversity_ci=0.1)
    verdict = verdicts(flat(rng, dry, dry))[EQUILIBRIUM]
    assert verdict.interval is not None
    assert (verdict.interval.low, verdict.interval.high) == (0.4, 0.6)
    two = dry.model_copy(update={"diversity_ci": None})
    assert verdicts(flat(rng, two, two))[EQUILIBRIUM].interval is None


def test_rising_diversity_is_equilibrium_too_and_falls_under_collapse_as_well() -> None:
    rng = generator(0, "rising")
    still = [one_function(rng, diversity=d) for d in (0.1, 0.25)]
    assert failed(flat(rng, *still)) == {EQUILIBRIUM, "population collapse"}


@pytest.mark.parametrize("diversities", [(0.1, 0.1), (0.1, 0.12), (0.4, 0.1)])
def test_a_collapsed_population_is_not_waited_for(diversities: tuple[float, float]) -> None:
    rng = generator(0, "collapsed")
    still = [one_function(rng, diversity=d) for d in diversities]
    assert failed(flat(rng, *still)) == {"population collapse"}


def test_the_generations_of_earlier_attempts_count_towards_stasis() -> None:
    rng = generator(0, "history")
    now = generation(rng, found=False, diversity=0.5)
    outcome = flat(rng, now)
    assert EQUILIBRIUM not in failed(outcome)
    assert EQUILIBRIUM in failed(outcome, (generation(rng, found=False),))
    assert EQUILIBRIUM not in failed(outcome, (generation(rng, found=True),))


def test_patience_has_a_limit() -> None:
    rng = generator(0, "patience")
    still = tuple(generation(rng, found=False, diversity=0.5) for _ in range(2))
    verdict = verdicts(flat(rng, *still))[EQUILIBRIUM]
    adaptation = Adaptation()
    for _ in range(20):
        adaptation, _ = adapt(adaptation, [verdict])
    assert adaptation.extra_patience == 4.0


@pytest.mark.parametrize("seed", range(10))
def test_members_that_run_as_one_on_flat_ground_stagnate_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "stagnant")
    locked = generation(rng, sync=LOCKED, found=False, diversity=0.4)
    assert failed(flat(rng, generation(rng), locked)) == {STAGNATION}


def test_two_members_in_step_are_no_synchrony() -> None:
    rng = generator(0, "two")
    last = (member("a", rung=1), member("b", rung=0), member("c", rung=0))
    generations = (generation(rng, sync=(0.3, 0.99), found=False, members=last),)
    outcome = course(rng, FLAT, FLAT, generations=generations)
    assert verdicts(outcome)[STAGNATION].value == 0.3
    assert STAGNATION not in failed(outcome)


def test_members_out_of_step_do_not_stagnate() -> None:
    rng = generator(0, "free")
    free = generation(rng, sync=(0.4, 0.9, 0.9), found=False)
    assert STAGNATION not in failed(course(rng, FLAT, FLAT, generations=(free,)))


ENDLESS: dict[str, object] = {"clipped": 800}
"""Every step clipped, as under a low norm."""


@pytest.mark.parametrize(
    ("change", "lr_scale"),
    [
        ({"skipped": 100}, 0.5),
        (ENDLESS | {"lr_probe": (2.97, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}, 0.5),
        ({"lr_probe": (2.9, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}, 0.5),
        ({"lr_probe": (3.1, 3.0, 2.9), "lr_probe_ci": (0.01, 0.01)}, 1.5),
    ],
)
def test_a_wrong_learning_rate_is_a_mismatch_and_nothing_else(
    change: dict[str, object], lr_scale: float
) -> None:
    outcome = healthy(generator(0, "mismatch"), **change)
    assert failed(outcome) == {MISMATCH}
    verdict = verdicts(outcome)[MISMATCH]
    adaptation, _ = adapt(Adaptation(), [verdict])
    assert adaptation.lr_scale == lr_scale
    assert verdict.value >= verdict.threshold
    assert verdict.interval is not None
    assert verdict.interval.low <= verdict.value <= verdict.interval.high


@pytest.mark.parametrize(
    "change",
    [
        {"skipped": 90},
        ENDLESS,
        ENDLESS | {"lr_probe": (2.985, 3.0, 3.01), "lr_probe_ci": (0.003, 0.003)},
        {"lr_probe": (2.97, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)},
        {"lr_probe": (2.96, 3.0, 2.97), "lr_probe_ci": (0.01, 0.01)},
        {"lr_probe": (2.9, 3.0, 2.95), "lr_probe_ci": (0.2, 0.001)},
        {"lr_probe": (2.995, 3.0, 2.995), "lr_probe_ci": (0.01, 0.01)},
        {"lr_probe": (3.1, 3.0, 2.993), "lr_probe_ci": (0.001, 0.001)},
        {"lr_probe": (2.986, 3.0, 3.01), "lr_probe_ci": (0.003, 0.003)},
        {"lr_probe": (np.inf, 3.0, np.nan), "lr_probe_ci": (0.01, 0.01)},
        {"lr_probe": (3.1, np.nan, 3.1), "lr_probe_ci": (0.01, 0.01)},
    ],
)
def test_some_spikes_much_clipping_and_a_level_probe_are_normal(
    change: dict[str, object],
) -> None:
    assert failed(healthy(generator(0, "normal"), **change)) == set()


def test_endless_clipping_never_tightens_the_clip() -> None:
    change = ENDLESS | {"lr_probe": (2.97, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}
    verdict = verdicts(healthy(generator(0, "clipped"), **change))[MISMATCH]
    assert "100% of the steps were clipped" in verdict.reason
    adaptation, _ = adapt(Adaptation(), [verdict])
    assert (adaptation.lr_scale, adaptation.clip_scale) == (0.5, 1.0)


def test_each_rate_of_a_probe_is_judged_by_its_own_interval() -> None:
    change = {"lr_probe": (2.9, 3.0, 2.95), "lr_probe_ci": (0.01, 0.2)}
    verdict = verdicts(healthy(generator(0, "half"), **change))[MISMATCH]
    assert not verdict.passed
    assert verdict.interval is not None
    assert (verdict.value, verdict.threshold) == (pytest.approx(0.1), 0.05)
    assert verdict.interval.low == pytest.approx(0.087, abs=0.001)
    assert adapt(Adaptation(), [verdict])[0].lr_scale == 0.5


def test_spikes_never_raise_the_learning_rate() -> None:
    change = {"skipped": 200, "lr_probe": (3.1, 3.0, 2.9), "lr_probe_ci": (0.01, 0.01)}
    verdict = verdicts(healthy(generator(0, "spiky"), **change))[MISMATCH]
    adaptation, _ = adapt(Adaptation(), [verdict])
    assert adaptation.lr_scale < 1.0
    assert adaptation.clip_scale < 1.0


SPOILED = 2.4 + np.array([0.0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.2, 0.2])


def test_a_line_that_lost_ground_had_too_high_a_learning_rate() -> None:
    probe = {"lr_probe": (2.98, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}
    outcome = course(generator(0, "spoiled"), SPOILED, SPOILED - 0.1, **probe)
    assert MISMATCH in failed(outcome)
    verdict = verdicts(outcome)[MISMATCH]
    assert verdict.value == pytest.approx(0.2, abs=0.02)
    assert adapt(Adaptation(), [verdict])[0].lr_scale == 0.5
    assert MISMATCH not in failed(healthy(generator(0, "well"), **probe)), "annealing"


def test_lost_ground_is_told_as_exactly_as_the_gap_of_both_losses_allows() -> None:
    probe = {"lr_probe": (2.98, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}
    outcome = course(generator(0, "spoiled"), SPOILED, SPOILED - 0.1, **probe)
    *before, last = outcome.points
    for gap_ci, passed in ((0.05, True), (0.25, False)):
        points = (*before, last.model_copy(update={"gap_ci": gap_ci}))
        verdict = verdicts(outcome.model_copy(update={"points": points}))[MISMATCH]
        assert verdict.passed is not passed
        if passed:
            assert verdict.interval is not None
            assert verdict.interval.low == pytest.approx(verdict.value - 0.05)
            assert verdict.interval.high == pytest.approx(verdict.value + 0.05)


def test_lost_ground_that_a_lower_rate_does_not_mend_has_another_cause() -> None:
    worse = {"lr_probe": (3.01, 3.0, 3.0), "lr_probe_ci": (0.01, 0.01)}
    for probe in (worse, {}):
        outcome = course(generator(0, "spoiled"), SPOILED, SPOILED - 0.1, **probe)
        assert MISMATCH not in failed(outcome)


def test_a_line_that_learns_by_heart_has_not_lost_ground() -> None:
    probe = {"lr_probe": (2.95, 3.0, 3.2), "lr_probe_ci": (0.01, 0.01)}
    rise = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    found = failed(course(generator(0, "by heart"), 2.4 + rise, 2.3 - rise, **probe))
    assert MISMATCH not in found
    assert found


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_small_pool_that_is_not_exhausted_is_seldom_called_so(share: float) -> None:
    rng = generator(0, "base")
    base, one = healthy(rng, generations=()), generation(rng, front_moved=False)
    alarms = 0
    for seed in range(SIMULATIONS):
        rng = generator(seed, "pool")
        n = int(rng.integers(3, 13))
        drawn = {"proposals": n, "duplicates": int(rng.binomial(n, share))}
        outcome = base.model_copy(update={"generations": (one.model_copy(update=drawn),)})
        alarms += EXHAUSTION in failed(outcome)
    assert alarms <= AT_MOST


def test_a_level_probe_is_seldom_called_a_mismatch() -> None:
    base = healthy(generator(0, "base"), generations=())
    alarms = 0
    for seed in range(SIMULATIONS):
        rng = generator(seed, "level")
        half, same, double = 3.0 + rng.normal(0.0, TRAINING_SD / 2**0.5, 3)
        probe = {"lr_probe": (half - 0.02, same, double), "lr_probe_ci": (0.002, 0.002)}
        alarms += MISMATCH in failed(base.model_copy(update=probe))
    assert alarms <= AT_MOST


STEPS = np.arange(100.0, 1300.0, 100.0)
LATER = np.arange(1200.0, 2100.0, 100.0)


def before(rng: np.random.Generator) -> tuple[EvalPoint, ...]:
    """What the line did at its peak learning rate before the attempt."""
    full = np.ones(STEPS.size)
    return at_steps(STEPS, law(STEPS, full) + rng.normal(0.0, 0.003, STEPS.size), full)


def attempt(rng: np.random.Generator, val: Numbers, rates: Numbers, **more: Any) -> Outcome:
    """An attempt whose line went through these losses at these learning rates."""
    outcome = course(rng, val, val - 0.1, sd=0.0, **more)
    noisy = val + rng.normal(0.0, 0.003, val.size)
    return outcome.model_copy(update={"points": at_steps(LATER, noisy, rates)})


def still(rng: np.random.Generator, **more: Any) -> dict[str, Any]:
    quiet = {"found": False, "sync": LOCKED, "diversity": 0.5, "fusion": None, "transfers": ()}
    return {"generations": tuple(generation(rng, index=i, **(quiet | more)) for i in (0, 1))}


def continued(rates: Numbers) -> Numbers:
    """Losses of a line that goes on as before, at these learning rates."""
    steps = np.concatenate([STEPS[:-1], LATER])
    return law(steps, np.concatenate([np.ones(STEPS.size - 1), rates]))[STEPS.size - 1 :]


FULL, COLD = np.ones(LATER.size), np.linspace(1.0, 0.2, LATER.size)


@pytest.mark.parametrize("rates", [FULL, COLD])
def test_a_locked_line_that_goes_on_as_its_learning_rate_allows_is_seldom_called_still(
    rates: Numbers,
) -> None:
    alarms = 0
    for seed in range(100):
        rng = generator(seed, "goes on")
        outcome = attempt(rng, continued(rates), rates, **still(rng))
        alarms += STAGNATION in failed(outcome, (), before(rng))
    assert alarms <= 5


@pytest.mark.parametrize("rates", [FULL, COLD])
def test_a_locked_line_that_learns_a_tenth_of_what_it_could_stands_still(rates: Numbers) -> None:
    # Its fall is sure, so against zero it would pass; against its own pace it does not.
    seen = 0
    for seed in range(20):
        rng = generator(seed, "slow")
        val = continued(rates)
        slow = val[0] + 0.1 * (val - val[0])
        seen += STAGNATION in failed(attempt(rng, slow, rates, **still(rng)), (), before(rng))
    assert seen >= 15


def test_where_the_learning_rate_allows_no_fall_a_flat_line_is_neither_still_nor_in_stasis() -> (
    None
):
    rates, alarms = np.full(LATER.size, 0.002), 0
    for seed in range(20):
        rng = generator(seed, "frozen")
        outcome = attempt(rng, np.full(LATER.size, 3.8), rates, **still(rng))
        found = verdicts(outcome, (), before(rng))
        assert found[STAGNATION].passed
        assert found[EQUILIBRIUM].passed
        assert "not surely stand still" in found[EQUILIBRIUM].reason
        alarms += EQUILIBRIUM in failed(outcome.model_copy(update={"end": outcome.start}))
    assert alarms >= 17, "without earlier points a line is still that does not fall"


def test_a_line_far_below_its_pace_is_in_stasis_and_one_that_keeps_it_is_not() -> None:
    rng, val = generator(0, "stasis"), continued(FULL)
    slow = val[0] + 0.1 * (val - val[0])
    quiet = still(rng, sync=(0.3, 0.4))
    assert failed(attempt(rng, slow, FULL, **quiet), (), before(rng)) == {EQUILIBRIUM}
    assert failed(attempt(rng, val, FULL, **quiet), (), before(rng)) == set()


def test_the_verdict_on_a_locked_line_shows_its_share_of_the_expected_fall() -> None:
    rng = generator(0, "shown")
    verdict = verdicts(attempt(rng, continued(FULL), FULL, **still(rng)), (), before(rng))
    shown = verdict[STAGNATION]
    assert shown.passed
    assert shown.interval is not None
    assert shown.value == pytest.approx(1.0, abs=0.15)
    assert shown.threshold == 0.25


def test_earlier_points_of_another_line_say_nothing() -> None:
    rng = generator(0, "other")
    outcome = course(rng, FLAT, FLAT, **still(rng))
    later = at_steps(STEPS + 5000.0, law(STEPS, np.ones(STEPS.size)), np.ones(STEPS.size))
    assert verdicts(outcome, (), later) == verdicts(outcome)


def test_all_four_are_reported_together() -> None:
    rng = generator(0, "all")
    facts = {
        "found": False, "front_moved": False, "proposals": 40, "duplicates": 39, "sync": LOCKED,
        "diversity": 0.5,
    }  # fmt: skip
    generations = tuple(generation(rng, index=i, **facts) for i in (0, 1))
    outcome = course(rng, FLAT, FLAT, generations=generations, skipped=200)
    outcome = outcome.model_copy(update={"end": outcome.start})
    assert failed(outcome) == set(NAMES)


def test_a_phase_without_search_or_steps_passes_and_says_why() -> None:
    outcome = healthy(generator(0, "none"), generations=(), line_steps=0, skipped=0, clipped=0)
    found = verdicts(outcome)
    assert all(verdict.passed for verdict in found.values())
    for name in (EXHAUSTION, EQUILIBRIUM, STAGNATION):
        assert found[name].reason == "no search in this phase"


def test_every_verdict_has_a_sentence_and_survives_json() -> None:
    for verdict in verdicts(healthy(generator(0, "json"))).values():
        assert len(verdict.reason.split()) >= 4
        assert type(verdict).model_validate_json(verdict.model_dump_json()) == verdict
