"""An expression as a torch function at unit second moment, its constants fixed or learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symbio_core.activations import (
    BASELINES,
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

    With ``learned`` the constants of the terms of a sum are parameters, shape (n_terms,), that
    start at the formula's constants; each layer has its own. The functions that people use, GELU,
    SiLU and ReLU², stay as they are.

    Source:
        Bingham & Miikkulainen (2020), Discovering parametric activation functions, arXiv
        2006.03179, for evolved forms with learned coefficients.
    """

    def __init__(self, name: str, *, learned: bool = False) -> None:
        super().__init__()
        self.expression: Expression = canonical(parse(name))
        self.formula = formula(self.expression)
        self.scale = normaliser(self.expression)
        if not math.isfinite(self.scale):
            raise ValueError(f"'{self.formula}' has no finite second moment")
        self.terms: tuple[Expression, ...] = ()
        self.coefficients: nn.Parameter | None = None
        if learned and self.expression not in FIXED:
            factors, self.terms = zip(*_terms(self.expression), strict=True)
            self.coefficients = nn.Parameter(torch.tensor(factors))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled function of ``x``, elementwise."""
        if self.coefficients is None:
            return _evaluate(self.expression, x, {}) * self.scale
        values = _values(self.terms, x)
        return _weighted_sum(self.coefficients * self.scale, values)

    @torch.no_grad()
    def inherit(self, parent: Activation) -> None:
        """Take over what the parent's constants have learned, where both have the same term."""
        if self.coefficients is None:
            return
        known = parent.learned()
        for index, term in enumerate(self.terms):
            if term in known:
                self.coefficients[index] = known[term] / self.scale

    def learned(self) -> dict[Expression, float]:
        """Return the factor of each term as it stands, the function's own scale included."""
        if self.coefficients is None:
            return {term: factor * self.scale for factor, term in _terms(self.expression)}
        values = (self.coefficients.detach() * self.scale).tolist()
        return dict(zip(self.terms, values, strict=True))

    def extra_repr(self) -> str:
        """Show the formula where torch prints the module."""
        return self.formula


FIXED = frozenset(canonical(expr) for expr in BASELINES.values())
"""Functions whose constants are never learned: what an evolved one is compared with."""


class _WeightedSum(torch.autograd.Function):
    """Σ cᵢ·vᵢ with one pass a term in each direction: autograd's own way takes three."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, *values: Tensor) -> Tensor:
        ctx.save_for_backward(factors, *values)
        weights: list[float] = factors.tolist()
        total: Tensor = values[0] * weights[0]
        for weight, value in zip(weights[1:], values[1:], strict=True):
            total.add_(value, alpha=weight)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        factors, *values = ctx.saved_tensors
        # torch.dot takes ten times as long in bfloat16 on a CPU.
        dots = torch.stack([(gradient * value).sum(dtype=torch.float32) for value in values])
        own = [
            gradient * weight if needed else None
            for weight, needed in zip(factors.tolist(), ctx.needs_input_grad[1:], strict=True)
        ]
        return (dots.to(factors.dtype), *own)


def _weighted_sum(factors: Tensor, values: list[Tensor]) -> Tensor:
    found: Tensor = _WeightedSum.apply(factors, *values)  # type: ignore[no-untyped-call]
    return found


def _terms(expr: Expression) -> list[tuple[float, Expression]]:
    match expr:
        case Add(left, right):
            return _terms(left) + _terms(right)
        case Scale(factor, child):
            return [(factor, child)]
        case _:
            return [(1.0, expr)]


def _values(terms: tuple[Expression, ...], x: Tensor) -> list[Tensor]:
    seen: dict[Expression, Tensor] = {}
    return [_evaluate(term, x, seen) for term in terms]


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
