"""Functions as points in a space: second moment, distance, fingerprint, the known ones. Pure.

Shapes are compared at unit second moment under N(0, 1): a positive factor in front changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import ndtri

from symbio_core.activations.algebra import canonical
from symbio_core.activations.calculus import Array, evaluate
from symbio_core.activations.tree import Expression
from symbio_core.activations.writing import formula

DISTINCT = 1e-3
"""Functions further apart than this count as different ones (distance)."""
TRAINED = (-0.6, 2.0)
"""A normal law (mean, deviation) of what the function of a trained FFN reads.

In small models after some hundred steps the mean went from −0.2 to −0.9 and the deviation from 1.2
to 1.4; wider here, as rare large inputs weigh most when a function turns against its weights."""
_REACH = 12.0  # N(0, 1) beyond it weighs 4e-33: nothing, even under x¹²
_PANELS = 24
_ORDER = 16
_DECIMALS = 4
_QUANTILES = ndtri((np.arange(256) + 0.5) / 256)


def _quadrature() -> tuple[Array, Array]:
    inner, weights = np.polynomial.legendre.leggauss(_ORDER)
    edges = np.linspace(-_REACH, _REACH, _PANELS + 1)
    half = _REACH / _PANELS
    points = ((edges[:-1] + half)[:, None] + half * inner).ravel()
    density = np.exp(-0.5 * points * points) / math.sqrt(2.0 * math.pi)
    return points, np.tile(half * weights, _PANELS) * density


POINTS, WEIGHTS = _quadrature()


def second_moment(expr: Expression) -> float:
    """Return E[f(x)²] for x ~ N(0, 1).

    Gauss–Legendre quadrature on panels of width 1 over |x| ≤ 12. A panel ends at 0, the only place
    where a leaf has a kink, so relu is integrated as exactly as a smooth function.

    Returns:
        The second moment; infinite or NaN if the function overflows.

    Source:
        Davis & Rabinowitz (1984), Methods of Numerical Integration, chapter 2 (Gauss and
        compound rules).
    """
    values = evaluate(canonical(expr), POINTS)
    with np.errstate(all="ignore"):
        return float(np.sum(WEIGHTS * values * values))


def normaliser(expr: Expression) -> float:
    """Return the factor that brings a function to unit second moment, 1/√E[f(x)²].

    Returns:
        The factor; infinite for the zero function, NaN for one whose moment is not finite.
    """
    moment = second_moment(expr)
    if not math.isfinite(moment):
        return math.nan
    return 1.0 / math.sqrt(moment) if moment > 0.0 else math.inf


@lru_cache(maxsize=4_096)
def unit_vector(expr: Expression) -> Array | None:
    """Return f/√E[f²] at the quadrature points, times √weight, shape (384,); None if it has none.

    The Euclidean distance of two such vectors is the L2 distance of the functions under N(0, 1).
    """
    form = canonical(expr)
    factor = normaliser(form)
    if not math.isfinite(factor):
        return None
    vector: Array = np.sqrt(WEIGHTS) * evaluate(form, POINTS) * factor
    vector.setflags(write=False)
    return vector


def distance(a: Expression, b: Expression) -> float:
    """Return how far two functions are apart in shape: 0 is the same, 1 is unrelated.

    The L2 distance under N(0, 1) of the outputs at unit second moment, capped at 1. Unit vectors at
    60° have the distance 1; so unlike functions, and all opposed ones, share the cap. gelu–silu is
    0.13, gelu–relu 0.17, gelu–relu² 0.34, gelu–x² 0.87. A function that cannot be normalised is at
    1 from all others.
    """
    first, second = unit_vector(a), unit_vector(b)
    if first is None or second is None:
        return 0.0 if canonical(a) == canonical(b) else 1.0
    return min(1.0, float(np.linalg.norm(first - second)))


def overlap(a: Expression, b: Expression, at: tuple[float, float] = (0.0, 1.0)) -> float:
    """Return E[f·g]/√(E[f²]·E[g²]), −1..1: 1 is the same shape, −1 opposed.

    Args:
        a: one function.
        b: another.
        at: mean and standard deviation of the normal law that inputs follow.

    Returns:
        The cosine of the two functions; 0 where one of them is zero or overflows.
    """
    mean, deviation = at
    points = mean + deviation * POINTS
    first, second = (evaluate(canonical(expr), points) for expr in (a, b))
    with np.errstate(all="ignore"):
        cross, own, others = (
            float(np.sum(WEIGHTS * product))
            for product in (first * second, first * first, second * second)
        )
        size = math.sqrt(own * others) if own > 0.0 and others > 0.0 else math.nan
    return cross / size if math.isfinite(size) and math.isfinite(cross) else 0.0


def diversity(exprs: Sequence[Expression]) -> float:
    """Return the mean distance of all pairs, 0..1; fewer than two functions have none.

    Calibrated by measuring: {gelu, silu, relu} is 0.19 and the relu²-like family {relu², gelu²,
    gelu·silu, relu³, x·gelu} 0.15, both under the 0.3 below which a population counts as
    collapsed; {gelu, relu², relu³, x², gelu·silu, 0.8·gelu+0.2·x} is 0.54. So the distance needs no
    factor of its own.
    """
    pairs = [distance(a, b) for a, b in combinations(exprs, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def shares_of_diversity(exprs: Sequence[Expression]) -> tuple[float, ...]:
    """Return what each function adds to the diversity of all: values whose mean it is (0..1).

    How they scatter tells how far the diversity of other draws from the same source would differ.

    Returns:
        Jackknife pseudo-values, shape (n_exprs,), none of fewer than three functions; single ones
        may leave 0..1.

    Source:
        Arvesen (1969), Jackknifing U-statistics, Ann. Math. Stat. 40.
    """
    n = len(exprs)
    if n < 3:
        return ()
    sums = [0.0] * n
    for (i, a), (j, b) in combinations(enumerate(exprs), 2):
        apart = distance(a, b)
        sums[i] += apart
        sums[j] += apart
    whole = sum(sums) / (n - 1)
    return tuple(whole - (sum(sums) - 2.0 * own) / (n - 2) for own in sums)


def same_function(a: Expression, b: Expression, tol: float = 1e-6) -> bool:
    """Say whether two expressions have the same shape, to within ``tol`` (distance)."""
    return canonical(a) == canonical(b) or distance(a, b) <= tol


def fingerprint(expr: Expression) -> str:
    """Return a name for the function's shape that does not depend on how it is written.

    A hash of the outputs at unit second moment, sign kept, on 256 fixed quantiles of N(0, 1),
    rounded to 4 decimals. Two ways of writing a function differ by about 1e-15, so the chance
    that any of the 256 values falls between two roundings is about 256·1e-15/1e-4 < 1e-8. No
    value sits on a border for structural reasons: 0 is the middle of its cell and the quantiles are
    irrational and miss the kink at 0. Where even that chance matters, `KnownFunctions` compares by
    distance.

    Returns:
        32 hexadecimal digits, the same on every machine up to that chance.

    Source:
        Gillard et al. (2023), Unified Functional Hashing in Automatic Machine Learning (arXiv
        2302.05433). Here the probes are quantiles of the input's distribution, and scale is taken
        out first.
    """
    form = canonical(expr)
    factor = normaliser(form)
    cells = evaluate(form, _QUANTILES) * factor * 10**_DECIMALS if math.isfinite(factor) else None
    if cells is None or not np.all(np.abs(cells) < 2**62):
        content = formula(form).encode()
    else:
        content = np.rint(cells).astype("<i8").tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class KnownFunctions:
    """A set of functions that knows them again in other clothes.

    Two expressions are the same member if their distance is at most ``tol``; no rounding border can
    come between them. A look-up costs one product with all known vectors.
    """

    def __init__(self, exprs: Iterable[Expression] = (), *, tol: float = DISTINCT) -> None:
        self.tol = tol
        self._exprs: list[Expression] = []
        self._forms: dict[Expression, int] = {}
        self._vectors = np.empty((64, POINTS.size))
        for expr in exprs:
            self.add(expr)

    def add(self, expr: Expression) -> bool:
        """Remember a function; say whether it was new."""
        if self.find(expr) is not None:
            return False
        place = len(self._exprs)
        if place == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        vector = unit_vector(expr)
        # A function without a unit vector is known by its form alone: zero is near no unit vector.
        self._vectors[place] = 0.0 if vector is None else vector
        self._exprs.append(expr)
        self._forms[canonical(expr)] = place
        return True

    def find(self, expr: Expression) -> Expression | None:
        """Return the known expression of the same function, as it was added; None if it is new."""
        place = self._forms.get(canonical(expr))
        if place is not None:
            return self._exprs[place]
        vector = unit_vector(expr)
        if vector is None or not self._exprs:
            return None
        nearest = int(np.argmax(self._vectors[: len(self._exprs)] @ vector))
        gap = float(np.linalg.norm(self._vectors[nearest] - vector))
        return self._exprs[nearest] if gap <= self.tol else None

    def __contains__(self, expr: Expression) -> bool:
        return self.find(expr) is not None

    def __iter__(self) -> Iterator[Expression]:
        return iter(self._exprs)

    def __len__(self) -> int:
        return len(self._exprs)
