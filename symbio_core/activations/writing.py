"""The formula that names an expression. Pure."""

from __future__ import annotations

from symbio_core.activations.tree import Add, Expression, Leaf, Mul, Scale, Square

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_TO_SUPERSCRIPT = str.maketrans("0123456789", SUPERSCRIPTS)


def formula(expr: Expression) -> str:
    """Return the name of an expression, for example ``0.8·gelu(x)+0.2·x`` or ``relu(x)²``.

    `parse` reads it back: ``parse(formula(e))`` equals ``canonical(e)``. Numbers are written in the
    shortest form that gives the same float again. Sums and products are written without inner
    brackets, equal factors as a power, and x before other factors.
    """
    terms = [_term(addend) for addend in _addends(expr)]
    return terms[0] + "".join(t if t.startswith("-") else f"+{t}" for t in terms[1:])


def number(value: float) -> str:
    """Return the shortest text that reads back as the same float, without a needless ``.0``."""
    return repr(value).removesuffix(".0")


def _addends(expr: Expression) -> list[Expression]:
    if isinstance(expr, Add):
        return _addends(expr.left) + _addends(expr.right)
    return [expr]


def _term(expr: Expression) -> str:
    if not isinstance(expr, Scale):
        return _product(expr)
    sign = "-" if expr.factor == -1.0 else f"{number(expr.factor)}·"
    return sign + _product(expr.child)


def _product(expr: Expression) -> str:
    powers: dict[str, int] = {}
    _count(expr, 1, powers)
    factors = sorted(powers, key=lambda text: (text != "x", text.startswith("("), text))
    return "·".join(_power(text, powers[text]) for text in factors)


def _count(expr: Expression, times: int, powers: dict[str, int]) -> None:
    match expr:
        case Mul(left, right):
            _count(left, times, powers)
            _count(right, times, powers)
        case Square(child):
            _count(child, 2 * times, powers)
        case Leaf("square"):
            powers["x"] = powers.get("x", 0) + 2 * times
        case Leaf(name):
            text = "x" if name == "identity" else f"{name}(x)"
            powers[text] = powers.get(text, 0) + times
        case Add() | Scale():
            text = f"({formula(expr)})"
            powers[text] = powers.get(text, 0) + times


def _power(base: str, exponent: int) -> str:
    return base if exponent == 1 else base + str(exponent).translate(_TO_SUPERSCRIPT)
