"""Exact algebra: the one form that equal trees share. Pure.

An expression is read as a sum of terms; a term is a constant times a product of powers of bases;
a base is a leaf or a sum inside a product. Constants are exact fractions of their decimal text
until they are written back, so neither order nor nesting changes a digit (0.1 + 0.2 is 0.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache

from symbio_core.activations.tree import (
    IDENTITY,
    ZERO,
    Add,
    Expression,
    Leaf,
    Mul,
    Scale,
    Square,
    n_nodes,
)
from symbio_core.activations.writing import formula
from symbio_core.errors import ConfigError

RELU = Leaf("relu")
SQUARE = Leaf("square")

Powers = Mapping[Expression, int]
Monomial = frozenset[tuple[Expression, int]]
Terms = dict[Monomial, Fraction]


@lru_cache(maxsize=65_536)
def canonical(expr: Expression) -> Expression:
    """Return the canonical form: the same function, one tree for equal trees.

    What makes trees equal: order and nesting of sums and products, like terms, constants (folded,
    and pulled out of products and squares), zero terms, equal factors against squares, the leaf
    ``square`` against x·x, and relu(x)·x against relu(x)² (so relu·x² gains a node: it is relu³).
    Multiplying by identity multiplies by x. Products of sums are not multiplied out, for that
    would grow the tree; `KnownFunctions` finds the equal functions which that leaves apart.

    Sums and products come out as balanced binary trees in a fixed order; a sum inside a product
    has its largest coefficient at 1 and its first one positive. Applying it twice changes nothing.
    Values agree with the original's up to float rounding of the constants.

    Raises:
        ConfigError: the constants fold to more than a float can hold.
    """
    try:
        return _tree(_terms(expr))
    except OverflowError as error:
        raise ConfigError(
            f"the constants in '{formula(expr)}' multiply to more than a float can hold → expected "
            "at most about 1e308 → write smaller ones"
        ) from error


def without_scale(expr: Expression) -> Expression:
    """Return a canonical form whose largest coefficient is 1 or −1, each to three digits.

    Normalisation makes a positive factor in front of the whole irrelevant, and digits beyond the
    third are noise of arithmetic in a constant that was drawn at random.
    """
    terms = _terms(canonical(expr))
    if not terms:
        return ZERO
    largest = max(abs(c) for c in terms.values())
    return canonical(_rounded(_tree({m: c / largest for m, c in terms.items()})))


def _terms(expr: Expression) -> Terms:
    match expr:
        case Leaf("square"):
            return {frozenset({(IDENTITY, 2)}): Fraction(1)}
        case Leaf():
            return {frozenset({(expr, 1)}): Fraction(1)}
        case Scale(factor, child):
            # The decimal text, not the binary value, is what the person or the search meant.
            by = Fraction(repr(factor))
            return {m: by * c for m, c in _terms(child).items()} if by else {}
        case Add(left, right):
            return _sum(_terms(left), _terms(right))
        case Mul(left, right):
            return _product(_factor(left), _factor(right))
        case Square(child):
            factor_ = _factor(child)
            return _product(factor_, factor_)


def _sum(left: Terms, right: Terms) -> Terms:
    total = dict(left)
    for monomial, coefficient in right.items():
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return {m: c for m, c in total.items() if c}


def _factor(expr: Expression) -> tuple[Fraction, Powers]:
    terms = _terms(expr)
    if not terms:
        return Fraction(0), {}
    if len(terms) == 1:
        [(monomial, coefficient)] = terms.items()
        return coefficient, dict(monomial)
    size = max(abs(c) for c in terms.values())
    # A term that is nothing in floats beside the largest must not decide the sign.
    relative = {m: c / size for m, c in terms.items() if float(c / size)}
    sign = 1 if relative[min(relative, key=_order)] > 0 else -1
    if len(relative) == 1:
        [monomial] = relative
        return sign * size, dict(monomial)
    return sign * size, {_tree({m: sign * c for m, c in relative.items()}): 1}


def _product(left: tuple[Fraction, Powers], right: tuple[Fraction, Powers]) -> Terms:
    coefficient = left[0] * right[0]
    if not coefficient:
        return {}
    powers = dict(left[1])
    for base, exponent in right[1].items():
        powers[base] = powers.get(base, 0) + exponent
    if RELU in powers and IDENTITY in powers:
        powers[RELU] += powers.pop(IDENTITY)
    return {frozenset(powers.items()): coefficient}


def _tree(terms: Terms) -> Expression:
    ordered = sorted(terms, key=_order)
    floats = [(float(terms[m]), _monomial_tree(dict(m))) for m in ordered]
    parts = [tree if c == 1.0 else Scale(c, tree) for c, tree in floats if c != 0.0]
    return _nest(Add, parts) if parts else ZERO


def _order(monomial: Monomial) -> tuple[bool, int, str]:
    tree = _monomial_tree(dict(monomial))
    only_x = all(base == IDENTITY for base, _ in monomial)
    return only_x, n_nodes(tree), formula(tree)


def _monomial_tree(powers: Powers) -> Expression:
    # a·b²·c³ becomes a·c·(b·c)²: squares, not repeated factors, keep the tree small.
    bases = sorted(powers, key=lambda b: (b != IDENTITY, isinstance(b, Add), formula(b)))
    factors = [base for base in bases if powers[base] % 2]
    halves = {base: powers[base] // 2 for base in bases if powers[base] > 1}
    if halves == {IDENTITY: 1}:
        factors.append(SQUARE)
    elif halves:
        factors.append(Square(_monomial_tree(halves)))
    return _nest(Mul, factors)


def _nest(
    node: Callable[[Expression, Expression], Expression], parts: list[Expression]
) -> Expression:
    if len(parts) == 1:
        return parts[0]
    half = (len(parts) + 1) // 2
    return node(_nest(node, parts[:half]), _nest(node, parts[half:]))


def _rounded(expr: Expression) -> Expression:
    match expr:
        case Leaf():
            return expr
        case Scale(factor, child):
            return Scale(float(f"{factor:.3g}"), _rounded(child))
        case Square(child):
            return Square(_rounded(child))
        case Add(left, right) | Mul(left, right):
            return type(expr)(_rounded(left), _rounded(right))
