"""What a function costs to compute, in passes over its input. Pure."""

from __future__ import annotations

from symbio_core.activations.algebra import canonical
from symbio_core.activations.tree import (
    Add,
    Expression,
    Leaf,
    Mul,
    Scale,
    Square,
    children,
)

LEAF_PASSES = {
    "identity": 0.0,
    "relu": 2.0,
    "square": 1.0,
    "gelu": 4.0,
    "silu": 3.5,
    "tanh": 3.5,
    "sigmoid": 3.0,
    "softplus": 6.0,
    "erf": 5.0,
    "sin": 4.0,
    "bell": 4.0,
}
"""Forward and backward of each leaf, in passes; from `symbio bench steps` on one CPU core."""
NODE_PASSES = {Scale: 1.0, Add: 1.0, Square: 1.5, Mul: 2.0}
"""The same of each node."""
PASS_WORK = 60.0
"""Multiply-adds of a matrix product that take as long as one pass over a number.

A pass moves memory and a product computes, so this differs from machine to machine; it is a
constant so that the same seed makes the same choices everywhere."""


def passes(expr: Expression) -> float:
    """Return what the function costs, forward and backward, in passes over its input.

    Equal subtrees are computed once and counted once.
    """
    seen: set[Expression] = set()

    def walk(node: Expression) -> float:
        if node in seen:
            return 0.0
        seen.add(node)
        own = LEAF_PASSES[node.name] if isinstance(node, Leaf) else NODE_PASSES[type(node)]
        return own + sum(walk(child) for child in children(node))

    return walk(canonical(expr))


def relative_cost(expr: Expression, other: Expression, *, work: float, hidden: float) -> float:
    """Return what a training step with one function costs over one with another.

    Args:
        expr: the function.
        other: what it is compared with.
        work: multiply-adds of a token's forward pass without the functions.
        hidden: numbers a token that the function is applied to, all layers together.

    Returns:
        1 where both cost the same; above 1 where ``expr`` is the slower one.
    """
    return _step(expr, work, hidden) / _step(other, work, hidden)


def _step(expr: Expression, work: float, hidden: float) -> float:
    return work + PASS_WORK * passes(expr) * hidden / 3.0
