"""Values and exact derivatives of expressions. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, ndtr

from symbio_core.activations.tree import Add, Expression, Leaf, Mul, Scale, Square

Array = NDArray[np.float64]
Dual = tuple[Array, Array]
"""A value and its slope at the same points."""


def evaluate(expr: Expression, x: Array) -> Array:
    """Return the function's values.

    Args:
        expr: the function.
        x: where to evaluate it, any shape, float64.

    Returns:
        Values, same shape, float64; infinite or NaN where the function overflows.
    """
    return _dual(expr, x)[0]


def derivative(expr: Expression, x: Array) -> Array:
    """Return the function's exact slope; at its kink (x = 0) relu has slope 0, as in torch.

    Args:
        expr: the function.
        x: where to differentiate it, any shape, float64.

    Returns:
        Slopes, same shape, float64; infinite or NaN where the function overflows.

    Source:
        Forward-mode differentiation with dual numbers: Griewank & Walther (2008), Evaluating
        Derivatives, chapter 3.
    """
    return _dual(expr, x)[1]


def _dual(expr: Expression, x: Array) -> Dual:
    with np.errstate(all="ignore"):
        return _walk(expr, np.asarray(x, dtype=np.float64))


def _walk(expr: Expression, x: Array) -> Dual:
    match expr:
        case Leaf(name):
            return _LEAVES[name](x)
        case Scale(factor, child):
            value, slope = _walk(child, x)
            return factor * value, factor * slope
        case Square(child):
            value, slope = _walk(child, x)
            return value * value, 2.0 * value * slope
        case Add(left, right):
            (f, df), (g, dg) = _walk(left, x), _walk(right, x)
            return f + g, df + dg
        case Mul(left, right):
            (f, df), (g, dg) = _walk(left, x), _walk(right, x)
            return f * g, df * g + f * dg


def _gelu(x: Array) -> Dual:
    # Hendrycks & Gimpel (2016), Gaussian Error Linear Units, section 2: x·Φ(x), not its tanh form.
    density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    cumulative = ndtr(x)
    return x * cumulative, cumulative + x * density


def _silu(x: Array) -> Dual:
    gate = expit(x)
    return x * gate, gate * (1.0 + x * expit(-x))


def _relu(x: Array) -> Dual:
    return np.maximum(x, 0.0), (x > 0.0).astype(np.float64)


def _tanh(x: Array) -> Dual:
    value = np.tanh(x)
    return value, 1.0 - value * value


def _sigmoid(x: Array) -> Dual:
    gate = expit(x)
    return gate, gate * expit(-x)


def _bell(x: Array) -> Dual:
    value = np.exp(-x * x)
    return value, -2.0 * x * value


_LEAVES: dict[str, Callable[[Array], Dual]] = {
    "gelu": _gelu,
    "silu": _silu,
    "relu": _relu,
    "identity": lambda x: (x.copy(), np.ones_like(x)),
    "square": lambda x: (x * x, 2.0 * x),
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: (np.logaddexp(0.0, x), expit(x)),
    "erf": lambda x: (erf(x), 2.0 / math.sqrt(math.pi) * np.exp(-x * x)),
    "sin": lambda x: (np.sin(x), np.cos(x)),
    "bell": _bell,
}
