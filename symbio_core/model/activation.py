"""An expression tree as a torch function, brought to unit second moment under N(0, 1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symbio_core.activations import (
    Add,
    Expression,
    Leaf,
    Mul,
    Scale,
    Square,
    canonical,
    formula,
    normaliser,
    parse,
)

LEAF_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "identity": lambda x: x,
    "square": torch.square,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "erf": torch.erf,
    "sin": torch.sin,
    "bell": lambda x: torch.exp(-torch.square(x)),
}
"""How torch computes each leaf; the names are those of `symbio_core.activations`."""


class Activation(nn.Module):
    """The function that an expression names, scaled so that E[f(x)²] = 1 for x ~ N(0, 1).

    The scale makes functions compete in shape: without it a larger output would act as a larger
    learning rate. Input and output have the same shape and dtype.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.expression: Expression = canonical(parse(name))
        self.formula = formula(self.expression)
        self.scale = normaliser(self.expression)
        if not math.isfinite(self.scale):
            raise ValueError(f"'{self.formula}' has no finite second moment")

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised function of ``x``, elementwise."""
        return _evaluate(self.expression, x, {}) * self.scale

    def extra_repr(self) -> str:
        """Show the formula where torch prints the module."""
        return self.formula


def _evaluate(node: Expression, x: Tensor, seen: dict[Expression, Tensor]) -> Tensor:
    # Equal subtrees are computed once: gelu(x)² costs one gelu.
    if node not in seen:
        seen[node] = _compute(node, x, seen)
    return seen[node]


def _compute(node: Expression, x: Tensor, seen: dict[Expression, Tensor]) -> Tensor:
    match node:
        case Leaf(name):
            return LEAF_FUNCTIONS[name](x)
        case Scale(factor, child):
            return _evaluate(child, x, seen) * factor
        case Square(child):
            return torch.square(_evaluate(child, x, seen))
        case Add(left, right):
            return _evaluate(left, x, seen) + _evaluate(right, x, seen)
        case Mul(left, right):
            return _evaluate(left, x, seen) * _evaluate(right, x, seen)
        case _:
            raise TypeError(f"not an expression: {node!r}")
