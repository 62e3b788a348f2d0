import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.activations import (
    BASELINES,
    LEAVES,
    RESERVE,
    Add,
    Leaf,
    Limits,
    Mul,
    Scale,
    Square,
    canonical,
    depth,
    formula,
    n_nodes,
    parse,
    within,
)
from symbio_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0.8·gelu(x)+0.2·x", "0.8·gelu(x)+0.2·x"),
        ("0.2*x + 0.8*gelu(x)", "0.8·gelu(x)+0.2·x"),
        ("relu(x)²", "relu(x)²"),
        ("relu(x)^2", "relu(x)²"),
        ("ReLU(x) ** 2", "relu(x)²"),
        ("relu2", "relu(x)²"),
        ("silu(x)*gelu(x)", "gelu(x)·silu(x)"),
        ("x·gelu²", "x·gelu(x)²"),
        ("-gelu(x)", "-gelu(x)"),
        ("gelu(x) − 0.5·x", "gelu(x)-0.5·x"),
        ("gelu·2·0.5", "gelu(x)"),
        ("1e-7·x+gelu(x)", "gelu(x)+1e-07·x"),
        ("-(gelu-x)·silu", "-silu(x)·(gelu(x)-x)"),
        ("identity(x)·square(x)", "x³"),
        ("bell(x)+sin(x)", "bell(x)+sin(x)"),
    ],
)
def test_a_formula_is_read_as_a_person_would_write_it(text, name):
    assert formula(parse(text)) == name


@pytest.mark.parametrize(
    ("text", "position", "hint"),
    [
        ("", 1, "a function"),
        ("gelu(y)", 6, "gelu(x)"),
        ("gelu(relu(x))", 6, "gelu of x alone"),
        ("mish(x)", 1, "one of gelu, silu, relu"),
        ("0.5", 1, "0.2·x"),
        ("gelu(x)+3", 9, "0.2·x"),
        ("2x", 2, "'·' and a function"),
        ("x^0", 2, "a power from 1 to 64"),
        ("x^65", 2, "a power from 1 to 64"),
        ("(x+gelu(x)", 11, "')'"),
        ("x)", 2, "the end"),
        ("x+·x", 3, "a function"),
        ("x/2", 2, "the end"),
        ("1e999·x", 1, "a float can hold"),
        ("(" * 60 + "x", 51, "brackets"),
    ],
)
def test_a_wrong_formula_is_told_where_and_how_to_write_it(text, position, hint):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert f"position {position} " in message
    assert hint in message
    assert "0.8·gelu(x)+0.2·x" in message
    assert "\n" not in message


def test_an_endless_formula_is_refused():
    with pytest.raises(ConfigError, match="at most 2000"):
        parse("+".join(["gelu(x)"] * 300))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xgelursi²^·*+-−.()0123456789e ", max_size=25))
def test_any_text_is_a_formula_or_a_readable_error(text):
    try:
        expr = parse(text)
    except ConfigError as error:
        assert "→" in str(error)  # noqa: PT017
    else:
        assert parse(formula(expr)) == expr == canonical(expr)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_every_float_survives_its_name(factor):
    expr = canonical(Scale(factor, Leaf("gelu")))
    assert parse(formula(expr)) == expr
    assert expr == (Leaf("gelu") if factor == 1 else Scale(factor, Leaf("gelu")))


def test_every_leaf_is_named_after_its_function():
    names = {formula(Leaf(name)) for name in LEAVES + RESERVE}
    assert {"x", "x²", "gelu(x)", "bell(x)"} <= names
    assert len(names) == len(LEAVES + RESERVE)


def test_the_fixed_functions_have_their_names_and_sizes():
    assert {key: formula(expr) for key, expr in BASELINES.items()} == {
        "gelu": "gelu(x)",
        "silu": "silu(x)",
        "relu2": "relu(x)²",
    }
    assert [n_nodes(expr) for expr in BASELINES.values()] == [1, 1, 2]
    assert all(canonical(expr) == expr for expr in BASELINES.values())


def test_a_scale_is_a_node_and_a_level():
    expr = Add(Scale(0.8, Leaf("gelu")), Scale(0.2, Leaf("identity")))
    assert (n_nodes(expr), depth(expr)) == (5, 3)
    assert (n_nodes(Square(Leaf("relu"))), depth(Square(Leaf("relu")))) == (2, 2)
    assert within(expr, Limits(3, 5))
    assert not within(expr, Limits(2, 5))
    assert not within(expr, Limits(3, 4))


def test_equal_trees_are_equal_and_hash_alike():
    first, second = Mul(Leaf("gelu"), Leaf("silu")), Mul(Leaf("gelu"), Leaf("silu"))
    assert first == second
    assert len({first, second}) == 1
    with pytest.raises(AttributeError):
        first.left = Leaf("relu")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Leaf("mish"),
        lambda: Scale(float("nan"), Leaf("gelu")),
        lambda: Scale(float("inf"), Leaf("gelu")),
        lambda: Limits(0, 3),
        lambda: Limits(3, 0),
    ],
)
def test_a_node_that_makes_no_sense_cannot_be_made(make):
    with pytest.raises(ConfigError, match="→"):
        make()
