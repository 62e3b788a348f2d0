"""Variation: seven mutations and a crossover that always change the function. Pure.

A mutation is written as a generator of proposals in random order; `_first_admissible` takes the
first that keeps every promise. So none is a silent no-op, and each knows when it cannot apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from symbio_core.activations.algebra import canonical, without_scale
from symbio_core.activations.rejection import rejection
from symbio_core.activations.shape import DISTINCT, distance
from symbio_core.activations.tree import (
    IDENTITY,
    Add,
    Expression,
    Leaf,
    Limits,
    Mul,
    Scale,
    Square,
    children,
    n_nodes,
    spots,
    within,
)
from symbio_core.activations.writing import formula
from symbio_core.errors import SymbioError

Pool = Sequence[str]
"""Names of the leaves that may be used."""
Proposer = Callable[[Expression, np.random.Generator, Pool], Iterator[Expression]]
Mutation = Callable[[Expression, np.random.Generator, Limits, Pool], Expression]
T = TypeVar("T")
PROPOSALS = 200
"""A mutation gives up after this many proposals."""


class NoMutation(SymbioError):
    """No admissible change of the function exists within the limits and the pool."""


def admissible(expr: Expression, limits: Limits, parents: Iterable[Expression] = ()) -> bool:
    """Say whether a tree is within limits, may be trained, and differs from its parents."""
    return (
        within(expr, limits)
        and rejection(expr) is None
        and all(distance(expr, parent) > DISTINCT for parent in parents)
    )


def mutate(
    expr: Expression, rng: np.random.Generator, limits: Limits, pool: Pool
) -> tuple[Expression, str]:
    """Return a mutated expression and the name of the mutation, drawn from `MUTATIONS`.

    The child is canonical, within the limits, not rejected, and a different function than its
    parent: further than `DISTINCT` after normalisation. Its largest coefficient is ±1 and constants
    have three digits. If the mutation that was drawn cannot apply, another one is drawn.

    Args:
        expr: the parent; it may itself be beyond the limits, as when they were lowered.
        rng: stream of random numbers.
        limits: depth and nodes of the child.
        pool: names of leaves that may be put in.

    Raises:
        NoMutation: none of the mutations can do that.

    Source:
        Koza (1992), Genetic Programming, chapter 6 (mutation); Bingham, Macke & Miikkulainen
        (2020), Evolutionary Optimization of Deep Learning Activation Functions (arXiv 2002.07224).
        Unlike both, a change that does not change the function is drawn again.
    """
    for name in _shuffled(list(MUTATIONS), rng):
        try:
            return MUTATIONS[name](expr, rng, limits, pool), name
        except NoMutation:
            continue
    raise _none("mutation", formula(expr), limits, pool)


def crossover(a: Expression, b: Expression, rng: np.random.Generator, limits: Limits) -> Expression:
    """Return an expression in which a subtree of one parent stands inside the other.

    It keeps the promises of `mutate` against both parents.

    Raises:
        NoMutation: no exchange of subtrees gives a third admissible function.

    Source:
        Koza (1992), Genetic Programming, chapter 6 (subtree crossover).
    """
    child = _first_admissible(_exchanges(a, b, rng), limits, (a, b))
    if child is None:
        raise _none("crossover", f"{formula(a)} × {formula(b)}", limits, ())
    return child


def _exchanges(a: Expression, b: Expression, rng: np.random.Generator) -> Iterator[Expression]:
    pairs = [
        (rebuild, given)
        for into, donor in ((a, b), (b, a))
        for _, rebuild in spots(into)
        for given, _ in spots(donor)
    ]
    for rebuild, given in _shuffled(pairs, rng):
        yield rebuild(given)


def _inject_residual(
    expr: Expression, rng: np.random.Generator, pool: Pool
) -> Iterator[Expression]:
    for subtree, rebuild in _root_first(expr, rng):
        yield rebuild(Add(subtree, Scale(_amount(rng, 0.05, 0.5), IDENTITY)))


def _inject_gate(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    for subtree, rebuild in _root_first(expr, rng):
        for name in _shuffled(pool, rng):
            yield rebuild(Mul(subtree, Leaf(name)))


def _add_term(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    for subtree, rebuild in _root_first(expr, rng):
        for name in _shuffled(pool, rng):
            yield rebuild(Add(subtree, Scale(_amount(rng, 0.1, 1.0), Leaf(name))))


def _swap_basis(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    leaves = [(leaf, put) for leaf, put in spots(expr) if isinstance(leaf, Leaf)]
    swaps = [(put, name) for leaf, put in leaves for name in pool if Leaf(name) != leaf]
    for put, name in _shuffled(swaps, rng):
        yield put(Leaf(name))


def _perturb_scale(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    # Only a term of a sum has a constant that normalisation does not take away again.
    sums = [(node, put) for node, put in spots(expr) if isinstance(node, Add)]
    terms = [(put, node, side) for node, put in sums for side in ("left", "right")]
    for _ in range(4):
        for put, node, side in _shuffled(terms, rng):
            factor = float(np.exp(rng.normal(0.0, 0.5)))
            if side == "left":
                yield put(Add(Scale(factor, node.left), node.right))
            else:
                yield put(Add(node.left, Scale(factor, node.right)))


def _prune(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    cuts = [put(child) for node, put in spots(expr) for child in children(node)]
    # Far beyond the limits one cut is not enough, so any inner part may stand for the whole.
    parts = [part for part, _ in spots(expr)][1:]
    size = n_nodes(canonical(expr))
    for cut in [*_shuffled(cuts, rng), *_shuffled(parts, rng)]:
        # Without a term the rest can turn its sign, and the sign may cost what the cut saved.
        if n_nodes(without_scale(cut)) < size:
            yield cut


def _wrap_square(expr: Expression, rng: np.random.Generator, pool: Pool) -> Iterator[Expression]:
    for subtree, rebuild in _root_first(expr, rng):
        yield rebuild(Square(subtree))


_PROPOSERS: dict[str, Proposer] = {
    "inject_residual": _inject_residual,
    "inject_gate": _inject_gate,
    "add_term": _add_term,
    "swap_basis": _swap_basis,
    "perturb_scale": _perturb_scale,
    "prune": _prune,
    "wrap_square": _wrap_square,
}


def _mutation(name: str, propose: Proposer) -> Mutation:
    def apply(expr: Expression, rng: np.random.Generator, limits: Limits, pool: Pool) -> Expression:
        child = _first_admissible(propose(expr, rng, pool), limits, (expr,))
        if child is None:
            raise _none(name, formula(expr), limits, pool)
        return child

    apply.__name__ = name
    return apply


MUTATIONS: dict[str, Mutation] = {name: _mutation(name, p) for name, p in _PROPOSERS.items()}
"""Name → mutation; each keeps the promises of `mutate` or raises `NoMutation`."""


def _first_admissible(
    proposals: Iterator[Expression], limits: Limits, parents: Sequence[Expression]
) -> Expression | None:
    for proposal in islice(proposals, PROPOSALS):
        child = without_scale(proposal)
        if admissible(child, limits, parents):
            return child
    return None


def _root_first(
    expr: Expression, rng: np.random.Generator
) -> list[tuple[Expression, Callable[[Expression], Expression]]]:
    # In half of the cases the whole function is changed, however large it is.
    places = list(spots(expr))
    order = _shuffled(places[1:], rng)
    at = 0 if rng.random() < 0.5 else int(rng.integers(len(places)))
    return [*order[:at], places[0], *order[at:]]


def _amount(rng: np.random.Generator, low: float, high: float) -> float:
    size = rng.uniform(low, high)
    return float(size if rng.random() < 0.75 else -size)


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items))]


def _none(what: str, of: str, limits: Limits, pool: Pool) -> NoMutation:
    leaves = f" with the leaves {', '.join(pool)}" if pool else ""
    return NoMutation(
        f"{what} of '{of}': nothing new within depth {limits.max_depth} and {limits.max_nodes} "
        f"nodes{leaves} → expected room for another function → raise the limits or open the pool"
    )
