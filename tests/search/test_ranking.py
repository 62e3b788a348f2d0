"""Ranking, selection and the winner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.records import Interval
from symbio_core.search import (
    bonus_decay,
    functional_distance,
    rank,
    select_winner,
    top_k,
    tournament,
    widened,
)

NAMES = ["gelu(x)", "relu(x)²", "x³", "gelu(x)·silu(x)", "0.8·gelu(x)+0.2·x", "relu(x)"]


def ranked(scene, values, *, half=0.002, bonus=0.0, price=0.0):
    members = [
        (scene.candidate(name), scene.score(value, half))
        for name, value in zip(NAMES, values, strict=False)
    ]
    return rank(members, diversity_bonus=bonus, complexity_price=price)


def order(ranks):
    return [r.candidate.formula for r in ranks]


def test_without_bonus_and_price_the_lowest_loss_leads(scene):
    assert order(ranked(scene, [0.03, -0.01, 0.02, 0.0])) == [NAMES[i] for i in (1, 3, 2, 0)]


@given(
    values=st.lists(st.integers(-50, 50), min_size=2, max_size=6),
    unit=st.sampled_from([0.001, 1.0, 37.0]),
)
@settings(deadline=None)
def test_the_order_does_not_depend_on_the_unit_of_the_loss(scene, values, unit):
    found = [
        ranked(scene, [v * u for v in values], half=2.0 * u, bonus=0.2, price=0.05)
        for u in (1.0, unit)
    ]
    assert order(found[0]) == order(found[1])
    assert np.allclose([r.rank_value for r in found[0]], [r.rank_value for r in found[1]])


def test_novelty_is_the_distance_to_the_nearest_better_sibling(scene):
    found = {r.candidate.formula: r.novelty for r in ranked(scene, [-0.03, -0.02, -0.01])}
    assert found[NAMES[0]] == 1.0
    assert found[NAMES[1]] == functional_distance(NAMES[0], NAMES[1])
    nearest = min(functional_distance(NAMES[2], other) for other in NAMES[:2])
    assert found[NAMES[2]] == nearest


def test_a_novel_member_overtakes_a_copy_of_the_best_when_losses_are_level(scene):
    names = ["gelu(x)", "0.98·gelu(x)+0.02·relu(x)", "x³"]
    members = [
        (scene.candidate(n), scene.score(v))
        for n, v in zip(names, [-0.010, -0.0099, -0.0098], strict=True)
    ]
    plain = rank(members, diversity_bonus=0.0, complexity_price=0.0)
    bonus = rank(members, diversity_bonus=0.2, complexity_price=0.0)
    assert order(plain) == names
    assert order(bonus)[1] == "x³"


def test_nodes_cost_their_price(scene):
    members = [(scene.candidate(n), scene.score(0.0)) for n in (NAMES[4], NAMES[0])]
    found = rank(members, diversity_bonus=0.0, complexity_price=0.5)
    assert order(found) == [NAMES[0], NAMES[4]]
    assert found[1].rank_value - found[0].rank_value == pytest.approx(0.5 * 4)


def test_a_loss_that_is_not_finite_comes_last_and_does_not_disturb_the_others(scene):
    clean = ranked(scene, [0.03, -0.01, 0.02])
    broken = ranked(scene, [0.03, -0.01, 0.02, float("nan"), float("inf")])
    assert order(broken)[:3] == order(clean)
    assert [r.rank_value for r in broken][:3] == [r.rank_value for r in clean]


def test_differences_far_below_the_measurements_own_noise_weigh_little(scene):
    noisy = ranked(scene, [0.0, -1e-6, 1e-6], half=0.01, price=0.05)
    assert order(noisy)[0] == NAMES[0]


def test_the_bonus_falls_from_all_to_nothing():
    assert [bonus_decay(p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([1, 1, 0.5, 0, 0])


def test_top_k_takes_the_first_and_a_tournament_prefers_them():
    assert top_k("abcdef", 2) == ("a", "b")
    assert top_k("ab", 5) == ("a", "b")
    rng = np.random.default_rng(0)
    drawn = np.array([tournament(range(4), rng, size=2) for _ in range(4000)])
    shares = np.bincount(drawn, minlength=4) / 4000
    assert shares == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16], abs=0.03)


def test_a_clear_lead_wins(scene):
    assert select_winner(ranked(scene, [0.01, -0.05])).candidate.formula == NAMES[1]


def test_the_parent_stays_when_nothing_beats_it_surely(scene):
    assert select_winner([]) is None
    assert select_winner(ranked(scene, [0.01, 0.02])) is None
    assert select_winner(ranked(scene, [-0.004, 0.0])) is None
    assert select_winner(ranked(scene, [float("-inf"), float("nan")])) is None


def test_more_candidates_must_show_more(scene):
    few = ranked(scene, [-0.0112])
    many = ranked(scene, [-0.0112, 0.0, 0.01, 0.02, 0.03, 0.04])
    assert select_winner(few) is not None
    assert select_winner(many) is None


def test_a_simpler_tree_within_the_interval_of_the_best_is_preferred(scene):
    members = [
        (scene.candidate(NAMES[4]), scene.score(-0.050)),
        (scene.candidate(NAMES[1]), scene.score(-0.049)),
        (scene.candidate(NAMES[0]), scene.score(-0.030)),
    ]
    found = rank(members, diversity_bonus=0.0, complexity_price=0.0)
    assert select_winner(found).candidate.formula == NAMES[1]


def test_a_simpler_tree_that_is_paired_and_surely_behind_the_best_does_not_win(scene):
    members = [
        (scene.candidate(NAMES[4]), scene.score(-0.050)),
        (scene.candidate(NAMES[1]), scene.score(-0.049)),
    ]
    found = rank(members, diversity_bonus=0.0, complexity_price=0.0)
    asked = []

    def always(member, best):
        asked.append((member.candidate.formula, best.candidate.formula))
        return True

    assert select_winner(found, is_behind=always).candidate.formula == NAMES[4]
    assert asked == [(NAMES[1], NAMES[4])]
    assert select_winner(found, is_behind=lambda *_: False).candidate.formula == NAMES[1]


def test_a_widened_interval_covers_the_narrow_one():
    narrow = Interval(value=-0.01, low=-0.012, high=-0.008)
    same = widened(narrow, comparisons=1, training_noise_nats=0.0)
    wide = widened(narrow, comparisons=4)
    assert (same.low, same.high) == pytest.approx((narrow.low, narrow.high))
    assert wide.low < narrow.low
    assert wide.high > narrow.high


@pytest.mark.parametrize("members", [1, 4])
def test_among_equal_functions_a_winner_is_declared_in_at_most_one_run_of_forty(scene, members):
    # Evaluation noise over 12 batches, training noise beside it; the truth is 0 for all.
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(1500):
        values = []
        for _ in range(members):
            batches = rng.normal(rng.normal(0, 0.004), 0.004, size=12)
            half = 2.201 * batches.std(ddof=1) / np.sqrt(12)
            values.append((float(batches.mean()), float(half)))
        scored = [
            (scene.candidate(n), scene.score(v, h))
            for n, (v, h) in zip(NAMES, values, strict=False)
        ]
        ranks = rank(scored, diversity_bonus=0.0, complexity_price=0.0, distance=lambda a, b: 1.0)
        found += select_winner(ranks) is not None
    assert found / 1500 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 1500)
