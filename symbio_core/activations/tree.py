"""The expression tree of an activation function: its nodes, its size, its spots. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from symbio_core.errors import ConfigError

LEAVES = ("gelu", "silu", "relu", "identity", "square")
"""Leaves that are open from the start; `gelu` is the exact form x·Φ(x)."""
RESERVE = ("tanh", "sigmoid", "softplus", "erf", "sin", "bell")
"""Leaves that the response to exhaustion opens; `bell` is exp(−x²)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A function of the input alone.

    Raises:
        ConfigError: ``name`` is neither in `LEAVES` nor in `RESERVE`.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in LEAVES + RESERVE:
            raise ConfigError(
                f"leaf '{self.name}' is not known → expected one of {', '.join(LEAVES + RESERVE)} "
                "→ take one of these"
            )


@dataclass(frozen=True, slots=True)
class Scale:
    """A constant times an expression.

    Raises:
        ConfigError: ``factor`` is not finite.
    """

    factor: float
    child: Expression

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", float(self.factor))
        if not math.isfinite(self.factor):
            raise ConfigError(
                f"factor {self.factor} of a term → expected a finite number → write another"
            )


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two expressions."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Mul:
    """The product of two expressions."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Square:
    """An expression times itself."""

    child: Expression


Expression = Leaf | Scale | Add | Mul | Square
"""A function of one real number; equal trees are equal and hash alike."""

IDENTITY = Leaf("identity")
ZERO = Scale(0.0, IDENTITY)
"""The canonical zero: there is no leaf for constants."""
BASELINES: dict[str, Expression] = {
    "gelu": Leaf("gelu"),
    "silu": Leaf("silu"),
    "relu2": Square(Leaf("relu")),
}
"""The fixed functions that an evolved one has to beat."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a tree may grow.

    Raises:
        ConfigError: one of the two is below 1.
    """

    max_depth: int
    """Levels of the tree; a leaf is 1, and a `Scale` is a level."""
    max_nodes: int
    """Nodes of the tree, as `n_nodes` counts them."""

    def __post_init__(self) -> None:
        if min(self.max_depth, self.max_nodes) < 1:
            raise ConfigError(
                f"limits of depth {self.max_depth} and {self.max_nodes} nodes → expected at least "
                "1 of each → raise max_depth or max_nodes"
            )


def children(expr: Expression) -> tuple[Expression, ...]:
    """Return the expressions right below the root, left to right."""
    match expr:
        case Leaf():
            return ()
        case Scale(_, child) | Square(child):
            return (child,)
        case Add(left, right) | Mul(left, right):
            return (left, right)


def n_nodes(expr: Expression) -> int:
    """Return the complexity: every node counts 1, constants included.

    A leaf is 1, ReLU² is 2 (relu, square), ``0.8·gelu(x)+0.2·x`` is 5 (leaves, scales, add).
    """
    return 1 + sum(n_nodes(child) for child in children(expr))


def depth(expr: Expression) -> int:
    """Return the number of levels: a leaf is 1, ReLU² is 2, ``0.8·gelu(x)+0.2·x`` is 3."""
    return 1 + max((depth(child) for child in children(expr)), default=0)


def within(expr: Expression, limits: Limits) -> bool:
    """Say whether the tree keeps both limits."""
    return n_nodes(expr) <= limits.max_nodes and depth(expr) <= limits.max_depth


Rebuild = Callable[[Expression], Expression]


def spots(expr: Expression) -> Iterator[tuple[Expression, Rebuild]]:
    """Yield each subtree, the root first, with the function that puts another one in its place."""
    yield expr, lambda new: new
    match expr:
        case Leaf():
            return
        case Scale(factor, child):
            yield from _below(child, lambda new: Scale(factor, new))
        case Square(child):
            yield from _below(child, Square)
        case Add(left, right) | Mul(left, right):
            node = type(expr)
            yield from _below(left, lambda new: node(new, right))
            yield from _below(right, lambda new: node(left, new))


def _below(child: Expression, wrap: Rebuild) -> Iterator[tuple[Expression, Rebuild]]:
    for subtree, rebuild in spots(child):
        yield subtree, lambda new, rebuild=rebuild: wrap(rebuild(new))  # type: ignore[misc]
