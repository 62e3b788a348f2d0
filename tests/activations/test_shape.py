import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    DISTINCT,
    LEAVES,
    RESERVE,
    TRAINED,
    KnownFunctions,
    Leaf,
    Limits,
    canonical,
    distance,
    diversity,
    evaluate,
    fingerprint,
    normaliser,
    overlap,
    parse,
    random_expression,
    rejection,
    same_function,
    shares_of_diversity,
    small_expressions,
)
from symbio_core.activations.shape import POINTS, WEIGHTS
from symbio_core.activations.tree import Add, Scale
from symbio_core.monitors import t_interval

seeds = st.integers(0, 2**32 - 1)


def of(*names):
    return [parse(name) for name in names]


CAMBRIAN = Limits(5, 12)


def drawn(seed, n, limits=CAMBRIAN):
    rng = np.random.default_rng(seed)
    return [random_expression(rng, limits, LEAVES + RESERVE) for _ in range(n)]


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_distance_is_a_metric_between_0_and_1(seed):
    a, b, c = drawn(seed, 3)
    assert distance(a, a) == 0.0
    assert distance(a, b) == distance(b, a)
    assert 0.0 <= distance(a, b) <= 1.0
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


def test_a_factor_in_front_changes_nothing_but_its_sign_does():
    a, b, c = of("gelu(x)", "0.5·gelu(x)", "-gelu(x)")
    assert distance(a, b) < 1e-12
    assert fingerprint(a) == fingerprint(b)
    assert distance(a, c) == 1.0
    assert fingerprint(a) != fingerprint(c)
    assert overlap(a, b) == pytest.approx(1.0)
    assert overlap(a, c) == pytest.approx(-1.0)
    assert overlap(*of("x", "x²")) == pytest.approx(0.0, abs=1e-12), "odd and even"


def test_a_function_that_goes_with_another_among_small_inputs_may_go_against_it_among_large_ones():
    a, b = of("gelu(x)", "gelu(x)-0.379·x²")
    assert overlap(a, b) > 0.4
    assert overlap(a, b, TRAINED) < 0.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x·(gelu(x)+silu(x))", "x·gelu(x)+x·silu(x)"),
        ("(gelu(x)+x)²", "gelu(x)²+2·x·gelu(x)+x²"),
        ("x·sigmoid(x)", "silu(x)"),
        ("2·sigmoid(x)·silu(x)", "x·sigmoid(x)²"),
        ("relu(x)·(x+gelu(x))", "relu(x)²+relu(x)·gelu(x)"),
    ],
)
def test_functions_that_algebra_keeps_apart_are_known_by_their_outputs(one, other):
    a, b = of(one, other)
    assert canonical(a) != canonical(b)
    assert same_function(a, b)
    assert fingerprint(a) == fingerprint(b)
    assert not KnownFunctions([a]).add(b)


def test_fingerprints_of_different_functions_differ():
    functions = small_expressions(LEAVES + RESERVE, 3)
    assert len({fingerprint(expr) for expr in functions}) == len(functions) > 100


def test_a_set_of_known_functions_gives_back_what_was_added():
    known = KnownFunctions(of("gelu(x)", "x-x"))
    assert known.find(parse("3·gelu(x)")) == parse("gelu(x)")
    assert known.find(parse("silu(x)")) is None
    assert known.add(parse("silu(x)"))
    assert list(known) == of("gelu(x)", "x-x", "silu(x)")


def test_functions_without_a_size_are_known_by_their_form():
    known = KnownFunctions(of("x-x", "gelu(x)"))
    assert parse("gelu(x)-gelu(x)") in known
    assert parse("1e200·x") not in known
    assert known.add(parse("1e200·x"))
    assert parse("1e200·x") in known
    assert distance(parse("x-x"), parse("gelu(x)")) == 1.0


def test_a_set_of_known_functions_grows_past_its_first_room():
    functions = small_expressions(LEAVES, 5)
    known = KnownFunctions(functions)
    assert len(known) == len(functions) > 128
    assert all(known.find(expr) == expr for expr in functions)


def test_the_tolerance_is_a_distance():
    gelu, near = of("gelu(x)", "gelu(x)+0.005·x")
    gap = distance(gelu, near)
    assert DISTINCT < gap < 0.01
    assert KnownFunctions([gelu], tol=gap * 0.99).add(near)
    assert not KnownFunctions([gelu], tol=gap * 1.01).add(near)


@pytest.mark.parametrize(
    "alike",
    [
        ("gelu(x)", "silu(x)", "relu(x)"),
        ("relu(x)²", "gelu(x)²", "gelu(x)·silu(x)", "relu(x)³", "x·gelu(x)"),
        ("gelu(x)", "gelu(x)", "gelu(x)", "gelu(x)"),
    ],
)
def test_a_collapsed_population_has_low_diversity(alike):
    assert diversity(of(*alike)) < 0.2


def test_a_healthy_population_has_a_diversity_above_0_3():
    mixed = of("gelu(x)", "relu(x)²", "relu(x)³", "x²", "gelu(x)·silu(x)", "0.8·gelu(x)+0.2·x")
    assert 0.4 < diversity(mixed) < 0.7


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_twelve_immigrants_are_a_healthy_population(seed):
    assert 0.3 < diversity(drawn(seed, 12, Limits(3, 6))) <= 1.0


def test_the_shares_of_diversity_add_up_to_it_and_scatter_with_the_members():
    alike, mixed = of(*["gelu(x)"] * 4), of("gelu(x)", "relu(x)^2", "sin(x)", "2*x*sigmoid(x)")
    for functions in (alike, mixed):
        shares = shares_of_diversity(functions)
        assert np.mean(shares) == pytest.approx(diversity(functions), abs=1e-12)
    assert np.ptp(shares_of_diversity(alike)) == pytest.approx(0.0, abs=1e-9)
    assert shares_of_diversity(mixed[:2]) == ()


def test_the_interval_of_diversity_holds_that_of_the_source_about_as_often_as_it_says():
    truth = diversity(drawn(1, 120, Limits(3, 6)))
    held = 0
    for seed in range(100):
        found = t_interval(shares_of_diversity(drawn(seed + 7, 6, Limits(3, 6))))
        held += found.low <= truth <= found.high
    assert 88 <= held <= 100


def test_one_function_alone_has_no_diversity():
    assert diversity([]) == diversity(of("gelu(x)")) == 0.0


@pytest.mark.parametrize(
    "name",
    ["gelu(x)", "silu(x)", "relu(x)", "relu(x)²", "gelu(x)²", "relu(x)³", "x·gelu(x)²", "x²", "x³",
     "x·silu(x)", "gelu(x)·silu(x)", "relu(x)·silu(x)", "0.8·gelu(x)+0.2·x", "tanh(x)", "sin(x)",
     "bell(x)", "softplus(x)", "sigmoid(x)", "erf(x)", "1e-5·gelu(x)", "1e6·gelu(x)"],
)  # fmt: skip
def test_a_function_worth_training_is_not_rejected(name):
    assert rejection(parse(name)) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x-x", "vanishes"),
        ("1e-9·gelu(x)", "vanishes"),
        ("x", "linear"),
        ("-3·x", "linear"),
        ("x+0.001·gelu(x)", "linear"),
        ("x⁴", "explodes"),
        ("x⁶", "explodes"),
        ("relu(x)⁶", "explodes"),
        ("gelu(x)²·silu(x)²·relu(x)²", "explodes"),
        ("x^64·x^64·x^64·x^64·x^64·x^64", "not finite"),
        ("1e200·x", "not finite"),
    ],
)
def test_a_function_that_cannot_train_is_rejected_in_a_sentence(name, reason):
    said = rejection(parse(name))
    assert reason in said
    assert "\n" not in said


def test_a_constant_is_rejected_however_it_is_made():
    # No leaf is constant, so one is fitted: softplus − x/2 is even and nearly flat at the middle.
    leaves = [Leaf(name) for name in ("softplus", "identity", "square", "bell", "relu", "gelu")]
    roots = np.sqrt(WEIGHTS)
    columns = np.stack([roots * evaluate(leaf, POINTS) for leaf in leaves], axis=1)
    coefficients = np.linalg.lstsq(columns, roots, rcond=None)[0]
    expr = Scale(float(coefficients[0]), leaves[0])
    for factor, leaf in zip(coefficients[1:], leaves[1:], strict=True):
        expr = Add(expr, Scale(float(factor), leaf))
    assert rejection(expr) == "it is constant"
    assert normaliser(expr) == pytest.approx(1.0, abs=1e-3)
