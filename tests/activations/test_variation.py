import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    BASELINES,
    DISTINCT,
    LEAVES,
    MUTATIONS,
    RESERVE,
    KnownFunctions,
    Leaf,
    Limits,
    NoMutation,
    canonical,
    crossover,
    depth,
    distance,
    formula,
    mutate,
    n_nodes,
    parse,
    random_expression,
    rejection,
    small_expressions,
    within,
)
from symbio_core.activations.tree import Scale, spots
from symbio_core.errors import SymbioError

ALL = LEAVES + RESERVE
PRIMORDIAL, CAMBRIAN = Limits(3, 6), Limits(5, 12)
seeds = st.integers(0, 2**32 - 1)
limits_ = st.builds(Limits, st.integers(1, 6), st.integers(1, 14))
pools = st.sampled_from([LEAVES, ALL, ("gelu", "identity"), ("relu", "silu", "square")])


def rng_of(seed):
    return np.random.default_rng(seed)


def assert_sound(child, limits, *parents):
    assert canonical(child) == child
    assert parse(formula(child)) == child
    assert within(child, limits)
    assert rejection(child) is None
    assert all(distance(child, parent) > DISTINCT for parent in parents)


@pytest.mark.parametrize("name", MUTATIONS)
@settings(max_examples=25, deadline=None)
@given(seed=seeds, limits=limits_, pool=pools)
def test_a_mutation_changes_the_function_within_limits_or_says_that_it_cannot(
    name, seed, limits, pool
):
    rng = rng_of(seed)
    parent = random_expression(rng, CAMBRIAN, pool)
    try:
        child = MUTATIONS[name](parent, rng, limits, pool)
    except NoMutation:
        return
    assert_sound(child, limits, parent)


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_applies_where_there_is_room_for_it(name):
    parent = parse("0.8·gelu(x)+0.2·x")
    children = [MUTATIONS[name](parent, rng_of(seed), CAMBRIAN, LEAVES) for seed in range(20)]
    for child in children:
        assert_sound(child, CAMBRIAN, parent)
    assert len(set(children)) > 1 or name == "prune"


@settings(max_examples=60, deadline=None)
@given(seeds, limits_, pools, pools)
def test_mutate_always_finds_a_new_function_where_a_leaf_fits(seed, limits, pool, given_by):
    rng = rng_of(seed)
    parent = random_expression(rng, CAMBRIAN, given_by)
    assume(n_nodes(parent) > 1 or len(pool) > 2)
    child, name = mutate(parent, rng, limits, pool)
    assert name in MUTATIONS
    assert_sound(child, limits, parent)


@pytest.mark.parametrize("leaf", ["gelu", "silu", "relu", "square"])
def test_a_single_leaf_never_mutates_into_itself(leaf):
    rng, names = rng_of(1), set()
    for _ in range(60):
        child, name = mutate(Leaf(leaf), rng, PRIMORDIAL, LEAVES)
        assert distance(child, Leaf(leaf)) > DISTINCT
        names.add(name)
    assert names >= {"inject_residual", "inject_gate", "add_term", "swap_basis"}


def test_where_nothing_else_is_possible_no_mutation_is_raised():
    with pytest.raises(NoMutation, match="raise the limits or open the pool") as caught:
        mutate(Leaf("gelu"), rng_of(0), Limits(1, 1), ("gelu",))
    assert isinstance(caught.value, SymbioError)
    assert "\n" not in str(caught.value)


def test_the_only_possible_mutation_is_always_found():
    for seed in range(40):
        child, name = mutate(Leaf("gelu"), rng_of(seed), Limits(1, 1), ("gelu", "identity", "silu"))
        assert (child, name) == (Leaf("silu"), "swap_basis")


def test_a_tree_far_beyond_lowered_limits_is_pruned_into_them():
    large = parse("0.9·gelu(x)·(silu(x)+0.3·x)+relu(x)²-0.4·x·(gelu(x)+0.7·x²)")
    assert n_nodes(large) > 15
    for seed in range(10):
        child, name = mutate(large, rng_of(seed), Limits(2, 2), LEAVES)
        assert name == "prune"
        assert_sound(child, Limits(2, 2), large)


@settings(max_examples=80, deadline=None)
@given(seeds, pools)
def test_pruning_makes_the_tree_smaller(seed, pool):
    rng = rng_of(seed)
    parent = random_expression(rng, CAMBRIAN, pool)
    try:
        child = MUTATIONS["prune"](parent, rng, CAMBRIAN, pool)
    except NoMutation:
        return
    assert n_nodes(child) < n_nodes(parent)


def test_mutations_do_what_their_names_say():
    def forms(name, parent):
        return {
            formula(MUTATIONS[name](parse(parent), rng_of(s), CAMBRIAN, LEAVES)) for s in range(40)
        }

    assert all("x" in f.replace("gelu(x)", "") for f in forms("inject_residual", "gelu(x)"))
    assert forms("inject_gate", "gelu(x)") <= {
        "gelu(x)²", "gelu(x)·silu(x)", "gelu(x)·relu(x)", "x·gelu(x)", "x²·gelu(x)",
    }  # fmt: skip
    assert forms("swap_basis", "gelu(x)") == {"silu(x)", "relu(x)", "x²"}
    assert forms("wrap_square", "relu(x)") == {"relu(x)²"}
    assert forms("prune", "relu(x)²") == {"relu(x)"}
    assert all("gelu(x)" in f and f.endswith("x") for f in forms("perturb_scale", "gelu(x)+0.5·x"))


def test_perturbing_a_constant_needs_a_constant_that_matters():
    with pytest.raises(NoMutation, match="perturb_scale"):
        MUTATIONS["perturb_scale"](parse("0.5·gelu(x)·silu(x)"), rng_of(0), CAMBRIAN, LEAVES)


def test_offspring_carry_no_idle_factor_and_short_constants():
    rng, expr = rng_of(3), BASELINES["gelu"]
    for _ in range(150):
        expr, _ = mutate(expr, rng, CAMBRIAN, LEAVES)
        assert not isinstance(expr, Scale) or expr.factor == -1.0
        for node, _ in spots(expr):
            assert not isinstance(node, Scale) or node.factor == float(f"{node.factor:.3g}")


def test_the_same_stream_gives_the_same_offspring():
    def walk(seed):
        rng, expr, names = rng_of(seed), BASELINES["silu"], []
        for _ in range(10):
            expr, name = mutate(expr, rng, CAMBRIAN, ALL)
            names.append((formula(expr), name))
        return names

    assert walk(5) == walk(5) != walk(6)


@settings(max_examples=60, deadline=None)
@given(seeds, limits_)
def test_crossover_makes_a_third_function_or_says_that_it_cannot(seed, limits):
    rng = rng_of(seed)
    a, b = (random_expression(rng, CAMBRIAN, ALL) for _ in range(2))
    try:
        child = crossover(a, b, rng, limits)
    except NoMutation:
        return
    assert_sound(child, limits, a, b)


def test_crossover_mixes_both_parents():
    a, b = parse("gelu(x)+0.5·x"), parse("silu(x)·relu(x)")
    crossed = [formula(crossover(a, b, rng_of(seed), CAMBRIAN)) for seed in range(40)]
    mixed = [f for f in crossed if "gelu" in f and ("silu" in f or "relu" in f)]
    assert len(set(mixed)) > 3
    assert not {formula(a), formula(b)} & set(crossed)


def test_two_leaves_cannot_be_crossed():
    with pytest.raises(NoMutation, match="crossover"):
        crossover(Leaf("gelu"), Leaf("silu"), rng_of(0), CAMBRIAN)


@settings(max_examples=60, deadline=None)
@given(seeds, limits_, pools)
def test_an_immigrant_is_admissible(seed, limits, pool):
    assert_sound(random_expression(rng_of(seed), limits, pool), limits)


def test_immigrants_come_in_all_sizes():
    rng = rng_of(0)
    drawn = [random_expression(rng, CAMBRIAN, LEAVES) for _ in range(200)]
    assert len(set(drawn)) > 100
    assert min(map(n_nodes, drawn)) == 1
    assert max(map(n_nodes, drawn)) > 8
    assert max(map(depth, drawn)) > 3


@pytest.mark.parametrize(("pool", "limits"), [(("identity",), Limits(1, 1)), ((), CAMBRIAN)])
def test_an_immigrant_cannot_be_made_of_nothing(pool, limits):
    with pytest.raises(NoMutation, match="open the pool"):
        random_expression(rng_of(0), limits, pool)


def test_the_small_functions_are_all_there_smallest_first():
    names = [formula(expr) for expr in small_expressions(LEAVES, 3)]
    assert names[:4] == ["gelu(x)", "relu(x)", "silu(x)", "x²"]
    assert {"relu(x)²", "gelu(x)·silu(x)", "x·silu(x)", "gelu(x)+x", "x³"} <= set(names)
    assert "x" not in names
    sizes = [n_nodes(expr) for expr in small_expressions(LEAVES, 4)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("pool", [LEAVES, ALL, ("identity",)])
def test_small_functions_are_distinct_and_admissible(pool):
    functions = small_expressions(pool, 3)
    known = KnownFunctions()
    for expr in functions:
        assert known.add(expr), formula(expr)
        assert_sound(expr, Limits(3, 3))


def test_the_order_of_the_pool_does_not_matter():
    assert small_expressions(LEAVES, 3) == small_expressions(LEAVES[::-1], 3)


def test_an_endless_enumeration_is_refused():
    with pytest.raises(ValueError, match="at most 6"):
        small_expressions(LEAVES, 7)


def test_pruning_does_not_give_back_in_signs_what_it_cut():
    parent = parse("(silu(x)-0.46·erf(x)²)·bell(x)²·sin(x)²")
    for seed in range(40):
        child = MUTATIONS["prune"](parent, rng_of(seed), CAMBRIAN, ALL)
        assert n_nodes(child) < n_nodes(parent)
