"""Expressions from nothing: random immigrants, and every small function. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from symbio_core.activations.algebra import canonical, without_scale
from symbio_core.activations.rejection import rejection
from symbio_core.activations.shape import KnownFunctions
from symbio_core.activations.tree import (
    Add,
    Expression,
    Leaf,
    Limits,
    Mul,
    Scale,
    Square,
    n_nodes,
    spots,
)
from symbio_core.activations.variation import NoMutation, Pool, admissible
from symbio_core.activations.writing import formula

TRIES = 200
"""Random trees drawn before the small functions are gone through in order."""
_LARGEST_ENUMERATION = 6


def random_expression(rng: np.random.Generator, limits: Limits, pool: Pool) -> Expression:
    """Return a random admissible expression: an immigrant.

    Canonical, within the limits and not rejected. Sizes are drawn evenly up to the limit before the
    tree is simplified, so small functions are as usual as large ones.

    Raises:
        NoMutation: the pool has no admissible function within the limits.

    Source:
        Koza (1992), Genetic Programming, chapter 6 (the «grow» method), with the size drawn first.
    """
    for _ in range(TRIES if pool else 0):
        size = int(rng.integers(1, limits.max_nodes + 1))
        expr = without_scale(_grown(size, rng, pool))
        if admissible(expr, limits):
            return expr
    most = min(limits.max_nodes, 3)
    small = [e for e in small_expressions(pool, most) if admissible(e, limits)]
    if not small:
        raise NoMutation(
            f"no function within depth {limits.max_depth} and {limits.max_nodes} nodes can be made "
            f"of {', '.join(pool) or 'no leaves'} → expected at least one that may be trained → "
            "raise the limits or open the pool"
        )
    return small[int(rng.integers(len(small)))]


def _grown(size: int, rng: np.random.Generator, pool: Pool) -> Expression:
    if size == 1:
        return Leaf(pool[int(rng.integers(len(pool)))])
    if size == 2:
        return Square(_grown(1, rng, pool))
    draw = rng.random()
    if draw < 0.2:
        return Square(_grown(size - 1, rng, pool))
    if draw < 0.6 and size >= 4:
        # A sum with a constant in front of its second term costs a node more.
        left = int(rng.integers(1, size - 2))
        factor = float(np.round(rng.uniform(0.1, 1.0), 2)) * (1 if rng.random() < 0.75 else -1)
        return Add(_grown(left, rng, pool), Scale(factor, _grown(size - 2 - left, rng, pool)))
    left = int(rng.integers(1, size - 1))
    node = Mul if draw < 0.9 else Add
    return node(_grown(left, rng, pool), _grown(size - 1 - left, rng, pool))


def small_expressions(pool: Pool, max_nodes: int) -> list[Expression]:
    """Return every distinct admissible function of few nodes without constants, smallest first.

    Leaves, squares, sums and products are combined in all ways; functions that are the same up to a
    positive factor occur once, in their smallest form. Equal sizes are in the order of their names.

    Args:
        pool: names of the leaves.
        max_nodes: largest tree, at most 6; `LEAVES` make 25 functions up to 3 nodes, 367 up to 6.

    Raises:
        ValueError: ``max_nodes`` is above 6; the number of functions grows sixfold every two nodes.
    """
    if max_nodes > _LARGEST_ENUMERATION:
        raise ValueError(
            f"max_nodes is {max_nodes} → expected at most {_LARGEST_ENUMERATION} → draw larger "
            "trees with random_expression"
        )
    return list(_small(tuple(sorted(set(pool))), max_nodes))


@lru_cache(maxsize=32)
def _small(pool: tuple[str, ...], max_nodes: int) -> tuple[Expression, ...]:
    sizes: dict[int, list[Expression]] = {}
    seen: set[Expression] = set()
    known = KnownFunctions()
    for size in range(1, max_nodes + 1):
        trees = {canonical(tree) for tree in _combined(size, pool, sizes)} - seen
        # relu·x² is relu·relu² in canonical form, a node more: its turn comes later.
        trees = {tree for tree in trees if n_nodes(tree) <= size}
        seen |= trees
        sizes[size] = sorted((t for t in trees if not _has_constants(t)), key=_by_size)
        for tree in sizes[size]:
            if rejection(tree) is None:
                known.add(tree)
    return tuple(sorted(known, key=_by_size))


def _by_size(expr: Expression) -> tuple[int, str]:
    return n_nodes(expr), formula(expr)


def _has_constants(expr: Expression) -> bool:
    return any(isinstance(subtree, Scale) for subtree, _ in spots(expr))


def _combined(
    size: int, pool: tuple[str, ...], sizes: dict[int, list[Expression]]
) -> Iterator[Expression]:
    if size == 1:
        yield from (Leaf(name) for name in pool)
        return
    yield from (Square(tree) for tree in sizes[size - 1])
    for left in range(1, (size - 1) // 2 + 1):
        for a in sizes[left]:
            for b in sizes[size - 1 - left]:
                yield Add(a, b)
                yield Mul(a, b)
