"""What a generation may contain."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    RESERVE,
    TRAINED,
    Limits,
    Scale,
    canonical,
    distance,
    n_nodes,
    overlap,
    parse,
    rejection,
    small_expressions,
    within,
)
from symbio_core.config import RunConfig
from symbio_core.records import Adaptation
from symbio_core.search import initial_state, propose, tell

CONFIG = RunConfig()


def ask(state, n=8, *, parent="gelu(x)", seed=0, phase="cambrian", search=None, pool=None, **niche):
    own = {k: niche.pop(k) for k in list(niche) if k in {"max_depth", "max_nodes", "mutation"}}
    return propose(
        state,
        parent=parent,
        n=n,
        settings=CONFIG.phase(phase).model_copy(update=own),
        search=CONFIG.search.model_copy(update=search or {}),
        adaptation=Adaptation(**niche),
        rng=np.random.default_rng(seed),
        pool=pool,
    )


def lived(scene, rounds=3, n=8, seed=0, **more):
    """Return a state after some generations whose scores come from a hidden target."""
    state = initial_state()
    target = parse("relu(x)²")
    for index in range(rounds):
        found = ask(state, n, parent=state.line, seed=seed + index, **more)
        losses = [0.2 * distance(parse(c.formula), target) for c in found.candidates]
        zero = 0.2 * distance(parse(state.line), target)
        members = [
            scene.member(c.formula, v - zero, mutation=c.mutation, parents=c.parents)
            for c, v in zip(found.candidates, losses, strict=True)
        ]
        best = min(members, key=lambda m: m.score.loss_nats.value)
        wins = best.score.loss_nats.value < -0.01
        winner = best.candidate.formula if wins else None
        state = tell(state, scene.generation(state.line, members, winner=winner, index=index))
    return state


def kinds(proposal):
    return [candidate.mutation for candidate in proposal.candidates]


def test_founders_are_the_fixed_functions_that_the_parent_is_not_then_small_ones():
    names = [c.formula for c in ask(initial_state(), 8).candidates]
    assert names[:3] == ["silu(x)", "relu(x)", "relu(x)²"]
    assert names[3:5] == ["gelu(x)²", "silu(x)²"], "then their squares, and products by pairs"
    assert "relu(x)·silu(x)" in names
    assert all(n_nodes(parse(name)) <= 3 for name in names)
    for parent in ("silu(x)", "relu(x)²", "x³"):
        names = [c.formula for c in ask(initial_state(), 8, parent=parent).candidates]
        assert parent not in names
        assert "gelu(x)" in names


def test_founders_past_the_compositions_are_spread_wider_than_small_functions_drawn_by_chance():
    founders = [parse("gelu(x)"), *(parse(c.formula) for c in ask(initial_state(), 13).candidates)]
    first, spread = founders[:9], founders[9:]

    def nearest(exprs):
        others = [*first, *exprs]
        return min(distance(a, b) for a in exprs for b in others if a is not b)

    rng = np.random.default_rng(0)
    small = small_expressions(("gelu", "silu", "relu", "identity", "square"), 3)
    drawn = [
        nearest([small[i] for i in rng.choice(len(small), len(spread), replace=False)])
        for _ in range(50)
    ]
    assert nearest(spread) > np.quantile(drawn, 0.8)


@given(
    seed=st.integers(0, 10_000),
    rounds=st.integers(0, 3),
    n=st.integers(1, 14),
    phase=st.sampled_from(["primordial", "cambrian", "oxidation"]),
    selection=st.sampled_from(["top-k", "tournament"]),
    crossover=st.sampled_from([0.0, 0.25, 1.0]),
    mutation=st.sampled_from([0.0, 0.5, 1.0]),
    immigrants=st.sampled_from([0.0, 0.1, 0.8]),
)
@settings(max_examples=40, deadline=None)
def test_every_generation_keeps_every_promise(
    scene, seed, rounds, n, phase, selection, crossover, mutation, immigrants
):
    state = lived(scene, rounds, seed=seed)
    found = ask(
        state, n, parent=state.line, seed=seed, phase=phase, immigrants=immigrants,
        mutation=mutation, search={"selection": selection, "crossover": crossover},
    )  # fmt: skip
    assert len(found.candidates) == n
    limits = Limits(CONFIG.phase(phase).max_depth, CONFIG.phase(phase).max_nodes)
    trees = [parse(c.formula) for c in found.candidates]
    for candidate, tree in zip(found.candidates, trees, strict=True):
        assert within(tree, limits)
        assert candidate.nodes == n_nodes(tree)
        assert rejection(tree) is None
        assert distance(tree, parse(state.line)) > 1e-3
        mirror = canonical(Scale(-1.0, tree))
        goes_against = overlap(tree, parse(state.line), TRAINED) < 0.0
        assert not goes_against or candidate.mutation == "elite" or not within(mirror, limits)
        known = candidate.formula in state.known
        assert known == (candidate.mutation == "elite")
    assert all(distance(a, b) > 1e-3 for a, b in combinations(trees, 2))
    elites = kinds(found).count("elite")
    assert elites <= n // 4
    assert found.proposals - found.duplicates == n - elites


def test_the_same_stream_gives_the_same_candidates(scene):
    state = lived(scene)
    assert ask(state, seed=4) == ask(state, seed=4)
    assert ask(state, seed=4) != ask(state, seed=5)


def test_elites_are_hall_members_that_may_still_beat_the_line(scene):
    state = lived(scene, 3)
    # Sent back to its origin, the search re-tests the best that it knows first.
    found = ask(state, 8, parent=state.origin)
    elites = [c.formula for c in found.candidates if c.mutation == "elite"]
    best = min(state.hall, key=lambda entry: entry.loss_nats.low)
    assert elites[0] == best.formula
    level = {entry.formula: entry.loss_nats for entry in state.hall}
    assert all(level[name].low < 0.0 for name in elites)


def test_elites_that_outgrew_the_limits_are_not_tested_again(scene):
    state = lived(scene, 3)
    found = ask(state, 8, parent=state.origin, max_nodes=1, max_depth=1)
    assert all(c.nodes == 1 for c in found.candidates)


def test_offspring_name_their_parents_and_their_change(scene):
    state = lived(scene, 3)
    found = ask(state, 12, immigrants=0.0, search={"crossover": 0.5})
    pool = {entry.formula for entry in state.hall} | set(state.known)
    young = [c for c in found.candidates if c.mutation not in {"elite", "immigrant"}]
    assert young
    for child in young:
        assert set(child.parents) <= pool
        assert len(child.parents) == (2 if "crossover" in child.mutation else 1)


def test_crossover_and_mutation_happen_as_often_as_asked(scene):
    state = lived(scene, 4)

    def shares(crossover, mutation):
        names = []
        for seed in range(12):
            found = ask(
                state, 12, seed=seed, immigrants=0.0, mutation=mutation,
                search={"crossover": crossover},
            )  # fmt: skip
            names += [k for k in kinds(found) if k not in {"elite", "immigrant"}]
        crossed = np.mean(["crossover" in k for k in names])
        return crossed, np.mean([k != "crossover" for k in names])

    assert shares(0.0, 0.5) == (0.0, 1.0)
    assert shares(1.0, 0.0)[0] > 0.7
    rare, often = shares(0.1, 0.8), shares(0.6, 0.3)
    assert rare[0] < often[0]
    assert rare[1] > often[1]


def test_the_share_of_immigrants_is_right_on_average(scene):
    state = lived(scene, 2)
    shares = [
        np.mean([kinds(ask(state, 6, seed=s, immigrants=i)).count("immigrant") for s in range(40)])
        for i in (0.0, 0.25, 0.8)
    ]
    assert shares == pytest.approx([0.0, 1.5, 4.8], abs=0.6)


def test_the_reserve_pool_is_used_only_once_it_is_open(scene):
    state = lived(scene, 2)

    def uses_reserve(opened):
        found = [ask(state, 12, seed=s, immigrants=0.5, open_reserve=opened) for s in range(4)]
        text = " ".join(c.formula for p in found for c in p.candidates)
        return any(name in text for name in RESERVE)

    assert not uses_reserve(0.0)
    assert uses_reserve(1.0)


def test_a_mirror_image_is_turned_to_go_the_parents_way():
    for seed in range(30):
        trees = [parse(c.formula) for c in ask(initial_state(), 12, seed=seed, immigrants=0.8,
                                               max_nodes=12, max_depth=6).candidates]  # fmt: skip
        assert all(
            overlap(tree, parse("gelu(x)"), TRAINED) >= 0.0 for tree in trees if n_nodes(tree) < 9
        )


def test_an_exhausted_space_gives_fewer_candidates_and_says_how_many_were_known(scene):
    narrow = {"pool": ("gelu", "relu"), "max_depth": 2, "max_nodes": 2}
    state = initial_state()
    first = ask(state, 12, **narrow)
    names = {c.formula for c in first.candidates}
    assert names == {"silu(x)", "relu(x)", "relu(x)²", "gelu(x)²"}
    members = [scene.member(name, 0.1) for name in sorted({*names, "silu(x)²"})]
    state = tell(state, scene.generation("gelu(x)", members))
    again = ask(state, 12, **narrow)
    assert [c for c in again.candidates if c.mutation != "elite"] == []
    assert again.duplicates == again.proposals > 0


def test_a_function_in_other_clothes_is_a_duplicate(scene):
    state = tell(
        initial_state(),
        scene.generation("gelu(x)", [scene.member("2·relu(x)·relu(x)", 0.1)]),
    )
    found = ask(state, 12, pool=("relu",), max_nodes=2, max_depth=2, immigrants=0.8)
    assert "relu(x)²" not in [c.formula for c in found.candidates]
    assert found.duplicates > 0
