"""Each plateau is told by itself, and none hides another."""

import numpy as np
import pytest

from symbio_core.lifecycle import adapt
from symbio_core.records import Adaptation
from symbio_core.streams import generator
from tests.gates.planted import course, failed, generation, healthy, member, verdicts

EXHAUSTION, EQUILIBRIUM, STAGNATION, MISMATCH = NAMES = (
    "activation space exhaustion",
    "punctuated equilibrium",
    "consensus stagnation",
    "learning-rate mismatch",
)
FLAT = np.full(8, 3.0)
LOCKED = (0.5, 0.97, 0.97)


@pytest.mark.parametrize("name", NAMES)
def test_healthy_phases_are_silent(name: str) -> None:
    false = sum(name in failed(healthy(generator(seed, "healthy"))) for seed in range(200))
    assert false == 0


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


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("diversities", [(0.5, 0.5), (0.4, 0.35)])
def test_stasis_of_a_diverse_population_is_equilibrium_and_nothing_else(
    seed: int, diversities: tuple[float, float]
) -> None:
    rng = generator(seed, "stasis")
    still = [generation(rng, index=i, found=False, diversity=d) for i, d in enumerate(diversities)]
    assert failed(healthy(rng, generations=tuple(still))) == {EQUILIBRIUM}


def test_rising_diversity_is_equilibrium_too_and_falls_under_collapse_as_well() -> None:
    rng = generator(0, "rising")
    still = [generation(rng, found=False, diversity=d) for d in (0.1, 0.25)]
    found = failed(healthy(rng, generations=tuple(still)))
    assert found == {EQUILIBRIUM, "population collapse"}


@pytest.mark.parametrize("diversities", [(0.1, 0.1), (0.1, 0.12), (0.4, 0.1)])
def test_a_collapsed_population_is_not_waited_for(diversities: tuple[float, float]) -> None:
    rng = generator(0, "collapsed")
    still = [generation(rng, found=False, diversity=d) for d in diversities]
    assert failed(healthy(rng, generations=tuple(still))) == {"population collapse"}


def test_the_generations_of_earlier_attempts_count_towards_stasis() -> None:
    rng = generator(0, "history")
    now = generation(rng, found=False, diversity=0.5)
    outcome = healthy(rng, generations=(now,))
    assert EQUILIBRIUM not in failed(outcome)
    assert EQUILIBRIUM in failed(outcome, (generation(rng, found=False),))
    assert EQUILIBRIUM not in failed(outcome, (generation(rng, found=True),))


def test_patience_has_a_limit() -> None:
    rng = generator(0, "patience")
    still = tuple(generation(rng, found=False, diversity=0.5) for _ in range(2))
    verdict = verdicts(healthy(rng, generations=still))[EQUILIBRIUM]
    adaptation = Adaptation()
    for _ in range(20):
        adaptation, _ = adapt(adaptation, [verdict])
    assert adaptation.extra_patience == 4.0


@pytest.mark.parametrize("seed", range(10))
def test_members_that_run_as_one_on_flat_ground_stagnate_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "stagnant")
    generations = (generation(rng), generation(rng, sync=LOCKED, found=False, diversity=0.4))
    outcome = course(rng, FLAT, FLAT - 0.1, generations=generations)
    # On flat ground a batch-by-batch fall of 2.5% of seeds is chance; the end here is the start.
    outcome = outcome.model_copy(update={"end": outcome.start})
    assert failed(outcome) == {STAGNATION}


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


@pytest.mark.parametrize(
    ("change", "lr_scale"),
    [
        ({"skipped": 80}, 0.5),
        ({"clipped": 740}, 0.5),
        ({"lr_probe": (2.9, 3.0, 3.2), "lr_probe_ci": 0.01}, 0.5),
        ({"lr_probe": (3.1, 3.0, 2.9), "lr_probe_ci": 0.01}, 1.5),
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


@pytest.mark.parametrize(
    "change",
    [
        {"skipped": 79},
        {"clipped": 700},
        {"lr_probe": (2.995, 3.0, 2.995), "lr_probe_ci": 0.01},
        {"lr_probe": (2.986, 3.0, 3.01), "lr_probe_ci": 0.003},
        {"lr_probe": (np.inf, 3.0, np.nan), "lr_probe_ci": 0.01},
        {"lr_probe": (3.1, np.nan, 3.1), "lr_probe_ci": 0.01},
    ],
)
def test_some_spikes_much_clipping_and_a_level_probe_are_normal(
    change: dict[str, object],
) -> None:
    assert failed(healthy(generator(0, "normal"), **change)) == set()


def test_spikes_never_raise_the_learning_rate() -> None:
    change = {"skipped": 200, "lr_probe": (3.1, 3.0, 2.9), "lr_probe_ci": 0.01}
    verdict = verdicts(healthy(generator(0, "spiky"), **change))[MISMATCH]
    adaptation, _ = adapt(Adaptation(), [verdict])
    assert adaptation.lr_scale < 1.0
    assert adaptation.clip_scale < 1.0


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
