"""Memorisation, collapse and complexity are seen where planted, alone, and nowhere else."""

import numpy as np
import pytest

from symbio_core.activations import diversity, parse
from symbio_core.gates.siblings import ALIKE, complexity, memorisation
from symbio_core.records import Candidate, Generation, MemberRecord, Score
from symbio_core.search import rank
from symbio_core.streams import generator
from tests.gates.planted import (
    FORMULAS,
    course,
    failed,
    generation,
    healthy,
    measured,
    member,
    one_function,
    verdicts,
)

MEMORISATION, COLLAPSE, COMPLEXITY = NAMES = (
    "candidate memorisation",
    "population collapse",
    "complexity overfitting",
)
SIMULATIONS = 300
AT_MOST = 0.05 * SIMULATIONS
FLAT = np.full(8, 3.0)


def with_gaps(rng: np.random.Generator, *truths: tuple[float, ...]) -> Generation:
    """A generation whose members' gaps of validation over train are these, rung by rung."""
    members = tuple(
        member(formula, rung=len(truth) - 1, gaps=tuple(measured(rng, gap) for gap in truth))
        for formula, truth in zip(FORMULAS, truths, strict=False)
    )
    return generation(rng, members=members)


@pytest.mark.parametrize("seed", range(10))
def test_a_member_that_learns_by_heart_is_memorisation_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "memorises")
    grown = (0.0, 0.01), (0.0, 0.01), (0.01, 0.01), (0.0, 0.0), (0.005, 0.01), (0.0, 0.08)
    outcome = healthy(rng, generations=(generation(rng), with_gaps(rng, *grown)))
    assert failed(outcome) == {MEMORISATION}
    verdict = verdicts(outcome)[MEMORISATION]
    assert FORMULAS[5] in verdict.reason
    assert verdict.interval is not None
    assert verdict.interval.above_zero


def test_after_one_rung_the_gap_itself_is_compared() -> None:
    rng = generator(0, "one rung")
    outcome = healthy(rng, generations=(with_gaps(rng, (0.08,), (0.0,), (0.01,), (0.0,)),))
    assert MEMORISATION in failed(outcome)


def test_a_gap_that_was_there_from_the_first_rung_did_not_grow() -> None:
    rng = generator(0, "constant")
    truths = (0.08, 0.08), (0.0, 0.0), (0.0, 0.0), (0.01, 0.01)
    outcome = healthy(rng, generations=(with_gaps(rng, *truths),))
    assert MEMORISATION not in failed(outcome)


def test_gaps_that_grow_alike_in_all_members_are_let_pass() -> None:
    rng = generator(0, "alike")
    outcome = healthy(rng, generations=(with_gaps(rng, *[(0.0, 0.1, 0.2)] * 6),))
    assert MEMORISATION not in failed(outcome)


def test_the_last_survivor_is_compared_where_it_had_siblings() -> None:
    rng = generator(0, "survivor")
    truths = (0.0, 0.1, 0.2), (0.0, 0.0), (0.0, 0.0), (0.0,)
    assert MEMORISATION in failed(healthy(rng, generations=(with_gaps(rng, *truths),)))


@pytest.mark.parametrize("truths", [((0.1, 0.2),), ()])
def test_without_siblings_there_is_nothing_to_compare_with(truths: tuple[float, ...]) -> None:
    rng = generator(0, "alone")
    outcome = healthy(rng, generations=(with_gaps(rng, *truths),))  # type: ignore[arg-type]
    verdict = verdicts(outcome)[MEMORISATION]
    assert verdict.passed
    assert verdict.reason == "no siblings to compare with"


def random_members(rng: np.random.Generator) -> tuple[MemberRecord, ...]:
    """Eight members as good as each other, some large, dropped rung by rung; noise alone."""
    found = []
    for i in range(8):
        rungs = 3 if i < 1 else 2 if i < 3 else 1
        score = Score(loss_nats=measured(rng, 0.0), train_nats=float(rng.normal()), steps=50)
        gaps = tuple(measured(rng, 0.02 * k) for k in range(rungs))
        one = member(f"{i}·x", nodes=1 + 2 * i, rung=rungs - 1, gaps=gaps)
        found.append(one.model_copy(update={"score": score}))
    return tuple(found)


def test_noise_alone_is_seldom_called_memorisation_or_complexity() -> None:
    alarms = {MEMORISATION: 0, COMPLEXITY: 0}
    rng = generator(0, "base")
    base = healthy(rng, generations=())
    one, two = generation(rng), generation(rng, index=1)
    for seed in range(SIMULATIONS):
        rng = generator(seed, "noise")
        found = tuple(g.model_copy(update={"members": random_members(rng)}) for g in (one, two))
        outcome = base.model_copy(update={"generations": found})
        alarms[MEMORISATION] += not memorisation(outcome).passed
        alarms[COMPLEXITY] += not complexity(outcome).passed
    assert max(alarms.values()) <= AT_MOST, alarms


def of_functions(
    rng: np.random.Generator, formulas: list[str], *, found: bool = False
) -> Generation:
    """A generation of these functions, with the diversity and novelty that they really have."""
    scored = [
        (Candidate(formula=f), Score(loss_nats=measured(rng, 0.0), train_nats=0.0, steps=9))
        for f in formulas
    ]
    ranked = rank(scored, diversity_bonus=0.1, complexity_price=0.01)
    members = tuple(member(r.candidate.formula, novelty=r.novelty, gaps=()) for r in ranked)
    measure = diversity([parse(formula) for formula in formulas])
    return generation(rng, members=members, diversity=measure, found=found)


CLOTHES = ["gelu(x)", "2·gelu(x)", "gelu(x)+gelu(x)", "0.5·gelu(x)", "3·gelu(x)-gelu(x)"]
HARDLY = ["gelu(x)", "0.97·gelu(x)+0.03·x", "0.95·gelu(x)+0.05·x", "0.98·gelu(x)+0.02·silu(x)"]
LIKE_RELU2 = ["relu(x)²", "gelu(x)²", "gelu(x)·silu(x)", "relu(x)·relu(x)²", "x·gelu(x)"]
CLASSICS = ["gelu(x)", "silu(x)", "relu(x)"]


@pytest.mark.parametrize("formulas", [CLOTHES, HARDLY, CLOTHES[:2]])
@pytest.mark.parametrize("seed", range(5))
def test_one_function_in_different_clothes_is_a_collapse_and_nothing_else(
    formulas: list[str], seed: int
) -> None:
    rng = generator(seed, "clothes")
    outcome = healthy(rng, generations=(generation(rng), of_functions(rng, formulas)))
    assert failed(outcome) == {COLLAPSE}


@pytest.mark.parametrize("formulas", [LIKE_RELU2, CLASSICS])
def test_a_close_family_of_distinct_functions_is_no_collapse(formulas: list[str]) -> None:
    for seed in range(20):
        rng = generator(seed, "family")
        last = of_functions(rng, formulas)
        assert last.diversity < 0.3
        assert COLLAPSE not in failed(healthy(rng, generations=(generation(rng), last)))


def test_two_clusters_of_equal_functions_are_no_collapse() -> None:
    rng = generator(0, "clusters")
    last = of_functions(rng, ["gelu(x)", "2·gelu(x)", "x²", "3·x²"])
    assert np.median([m.novelty for m in last.members]) < 1.0
    assert COLLAPSE not in failed(healthy(rng, generations=(last,)))


@pytest.mark.parametrize(
    "change", [{"found": True}, {"diversity": 0.3}, {"members": (member("gelu(x)"),)}]
)
def test_a_find_or_difference_or_a_lone_member_is_no_collapse(change: dict[str, object]) -> None:
    rng = generator(0, "no collapse")
    assert COLLAPSE in failed(healthy(rng, generations=(one_function(rng),)))
    assert COLLAPSE not in failed(healthy(rng, generations=(one_function(rng, **change),)))


def test_random_members_at_the_border_of_alikeness_decide_by_their_median() -> None:
    rng = generator(0, "border")
    base = one_function(rng)
    for novelty, expected in ((ALIKE - 0.01, True), (ALIKE, False)):
        members = tuple(m.model_copy(update={"novelty": novelty}) for m in base.members)
        outcome = healthy(rng, generations=(base.model_copy(update={"members": members}),))
        assert (COLLAPSE in failed(outcome)) is expected


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
    assert failed(outcome) == {COMPLEXITY}
    verdict = verdicts(outcome)[COMPLEXITY]
    assert "9 nodes" in verdict.reason
    assert "silu(x)" in verdict.reason
    assert verdict.interval is not None
    assert verdict.interval.above_zero


@pytest.mark.parametrize(
    "change",
    [{"nodes": 6}, {"train": 0.05}, {"train": -0.005}, {"loss": 0.012}, {"rung": 0}, {"half": 0.2}],
)
def test_small_or_honest_or_doubtful_trees_are_let_pass(change: dict[str, float]) -> None:
    outcome = healthy(generator(0, "honest"), generations=(bloated(**change),))
    assert COMPLEXITY not in failed(outcome)


def test_members_without_a_score_are_passed_over() -> None:
    rng = generator(0, "unscored")
    unscored = tuple(m.model_copy(update={"score": None}) for m in bloated().members)
    outcome = healthy(rng, generations=(generation(rng, members=unscored),))
    assert COMPLEXITY not in failed(outcome)


def test_a_phase_without_search_says_so() -> None:
    found = verdicts(course(generator(0, "no search"), FLAT, FLAT))
    for name in NAMES:
        assert found[name].passed
        assert found[name].reason == "no search in this phase"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        (MEMORISATION, {"rung_scale": ("scale", 0.5), "mutation_scale": ("scale", 1.5)}),
        (
            COLLAPSE,
            {
                "immigrants": ("add", 0.2),
                "mutation_scale": ("scale", 1.5),
                "coupling_scale": ("scale", 0.5),
            },
        ),
        (COMPLEXITY, {"price_scale": ("scale", 2.0), "extra_nodes": ("add", -2.0)}),
    ],
)
def test_each_level_answers_with_its_own_response(
    name: str, asked: dict[str, tuple[str, float]]
) -> None:
    verdict = verdicts(healthy(generator(3, "response")))[name]
    assert {c.setting: (c.op, c.value) for c in verdict.changes} == asked


def test_a_collapse_tells_how_far_other_members_would_differ() -> None:
    rng = generator(0, "interval")
    alike = one_function(rng, diversity=0.02, diversity_ci=0.05)
    verdict = verdicts(healthy(rng, generations=(alike,)))["population collapse"]
    assert not verdict.passed
    assert verdict.interval is not None
    assert (verdict.interval.low, verdict.interval.high) == (0.0, pytest.approx(0.07))
