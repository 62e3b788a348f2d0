import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    LEAVES,
    RESERVE,
    Add,
    KnownFunctions,
    Leaf,
    Mul,
    Scale,
    Square,
    canonical,
    evaluate,
    fingerprint,
    formula,
    n_nodes,
    parse,
    rejection,
    same_function,
)
from symbio_core.errors import ConfigError

X, GELU, RELU, SILU = Leaf("identity"), Leaf("gelu"), Leaf("relu"), Leaf("silu")
POINTS = np.linspace(-4.0, 4.0, 41)

factors = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, 0.1, 0.2, 0.3, -0.3, 1e-7, 1e6]),
    st.floats(-3, 3).filter(lambda c: c == 0 or abs(c) > 1e-6),
)
leaves = st.sampled_from(LEAVES + RESERVE).map(Leaf)


def grown(inner):
    return st.one_of(
        st.builds(Scale, factors, inner),
        st.builds(Add, inner, inner),
        st.builds(Mul, inner, inner),
        st.builds(Square, inner),
    )


trees = st.recursive(leaves, grown, max_leaves=7)
seeds = st.integers(0, 2**32 - 1)


def magnitude(expr, x):
    """The value with every sign made positive: what float rounding is relative to."""
    match expr:
        case Leaf():
            return np.abs(evaluate(expr, x))
        case Scale(factor, child):
            return abs(factor) * magnitude(child, x)
        case Square(child):
            return magnitude(child, x) ** 2
        case Add(left, right):
            return magnitude(left, x) + magnitude(right, x)
        case Mul(left, right):
            return magnitude(left, x) * magnitude(right, x)


def canonical_if_it_fits(expr):
    try:
        return canonical(expr)
    except ConfigError:
        assume(False)


def assert_same_values(a, b):
    with np.errstate(all="ignore"):
        size = magnitude(a, POINTS)
        sane = size < 1e100
        wrong = np.abs(evaluate(a, POINTS) - evaluate(b, POINTS)) > 1e-11 * size + 1e-200
    assert not np.any(wrong & sane), (formula(a), formula(b))


def redressed(expr, rng):
    """The same function in other clothes: turned round, regrouped, split, factored out."""
    draw = rng.random()
    match expr:
        case Scale(factor, child):
            child = redressed(child, rng)
            if isinstance(child, Add) and draw < 0.5:
                return Add(Scale(factor, child.left), Scale(factor, child.right))
            return Scale(factor, child)
        case Square(child):
            child = redressed(child, rng)
            return Mul(child, child) if draw < 0.5 else Square(child)
        case Add(left, right) | Mul(left, right):
            node = type(expr)
            left, right = redressed(left, rng), redressed(right, rng)
            if draw < 0.5:
                left, right = right, left
            if isinstance(left, node) and draw > 0.3:
                return node(left.left, node(left.right, right))
            if node is Mul and draw > 0.8:
                return Scale(0.5, Mul(Scale(2.0, left), right))
            return node(left, right)
        case Leaf("square") if draw < 0.5:
            return Mul(X, X)
        case Leaf():
            return Add(expr, Scale(0.0, GELU)) if draw < 0.2 else expr


@settings(max_examples=250, deadline=None)
@given(trees)
def test_the_canonical_form_is_the_same_function(expr):
    assert_same_values(expr, canonical_if_it_fits(expr))


@settings(max_examples=250, deadline=None)
@given(trees)
def test_canonical_twice_is_canonical_once(expr):
    once = canonical_if_it_fits(expr)
    assert canonical(once) == once


@settings(max_examples=250, deadline=None)
@given(trees, seeds)
def test_equal_trees_in_other_clothes_have_one_canonical_form(expr, seed):
    form = canonical_if_it_fits(expr)
    assert canonical(redressed(expr, np.random.default_rng(seed))) == form


@settings(max_examples=250, deadline=None)
@given(trees)
def test_every_name_parses_back(expr):
    form = canonical_if_it_fits(expr)
    assert parse(formula(form)) == form
    assert parse(formula(expr)) == form


@settings(max_examples=100, deadline=None)
@given(trees, seeds)
def test_a_set_of_known_functions_sees_through_other_clothes(expr, seed):
    assume(rejection(canonical_if_it_fits(expr)) is None)
    known = KnownFunctions([GELU, RELU, expr])
    size = len(known)
    other = redressed(Scale(0.7, expr), np.random.default_rng(seed))
    assert other in known
    assert not known.add(other)
    assert len(known) == size
    assert same_function(expr, other)
    assert fingerprint(expr) == fingerprint(other)


@pytest.mark.parametrize(
    ("written", "one_form"),
    [
        (Mul(SILU, X), "x·silu(x)"),
        (Mul(X, X), "x²"),
        (Square(X), "x²"),
        (Mul(GELU, GELU), "gelu(x)²"),
        (Mul(RELU, X), "relu(x)²"),
        (Mul(RELU, Square(X)), "relu(x)³"),
        (Add(GELU, GELU), "2·gelu(x)"),
        (Add(Scale(0.1, GELU), Scale(0.2, GELU)), "0.3·gelu(x)"),
        (Add(GELU, Scale(0.0, SILU)), "gelu(x)"),
        (Add(X, Scale(-1, X)), "0·x"),
        (Scale(2, Square(Scale(3, GELU))), "18·gelu(x)²"),
        (Scale(0.5, Add(GELU, Scale(0.4, X))), "0.5·gelu(x)+0.2·x"),
        (Mul(Add(Scale(-2, GELU), Scale(-2, X)), SILU), "-2·silu(x)·(gelu(x)+x)"),
        (Mul(Add(GELU, X), Add(X, GELU)), "(gelu(x)+x)²"),
    ],
)
def test_simplification_says_what_the_function_is(written, one_form):
    assert formula(canonical(written)) == one_form


def test_multiplying_by_identity_multiplies_by_x():
    x = np.array([-2.0, 0.5, 3.0])
    expected = x * evaluate(SILU, x)
    np.testing.assert_allclose(evaluate(canonical(Mul(SILU, X)), x), expected, rtol=1e-14)


def test_like_terms_do_not_depend_on_the_order_of_floats():
    ten = [Scale(c, GELU) for c in (0.1, 0.7, 1e-9, 0.2, 3.3)]
    forward = backward = X
    for term in ten:
        forward = Add(forward, term)
    for term in reversed(ten):
        backward = Add(term, backward)
    assert canonical(forward) == canonical(backward)


def test_the_canonical_form_is_never_far_from_the_smallest():
    assert n_nodes(canonical(parse("relu(x)²"))) == 2
    assert n_nodes(parse("x⁴")) == 2
    assert n_nodes(parse("gelu(x)²·x²")) == 4
    assert n_nodes(parse("0.8·gelu(x)+0.2·x")) == 5


def test_constants_beyond_floats_are_refused_in_one_line():
    huge = Scale(1e200, Square(Scale(1e200, GELU)))
    with pytest.raises(ConfigError, match="more than a float can hold") as caught:
        canonical(huge)
    assert "\n" not in str(caught.value)
