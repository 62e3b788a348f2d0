"""Entropies of weights, layers and populations. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

REACH = 4.0
"""Bins of the weight histogram end here on either side (root mean squares)."""


def shannon_entropy(weights: npt.ArrayLike) -> float:
    """Return the entropy of the shares that ``weights`` make (nats).

    Args:
        weights: any shape, finite, ≥ 0, not all 0; brought to a sum of 1.

    Raises:
        ValueError: a negative or non-finite weight, or nothing above 0.

    Source:
        Shannon (1948), A mathematical theory of communication, section 6.
    """
    array = np.asarray(weights, dtype=np.float64).ravel()
    if not np.isfinite(array).all() or (array < 0.0).any() or not (array > 0.0).any():
        raise ValueError("shares have to be finite, not negative, and not all zero")
    shares = array[array > 0.0] / array.max()
    shares = shares / shares.sum()
    shares = shares[shares > 0.0]
    return max(0.0, float(-(shares @ np.log(shares))))


def weight_entropy(weights: npt.ArrayLike, *, bins: int = 64) -> float:
    """Return the entropy of the histogram of weights (nats).

    The bins divide ±4 root mean squares evenly and the outermost take the tails, so the figure
    tells the shape of the law and not its scale: weights that gather on a few values, or that die,
    lower it. Normal weights have ½·ln(2πe) − ln(8 / bins), 3.50 at 64 bins.

    Args:
        weights: any shape, finite; all zero gives 0.
        bins: number of bins, ≥ 2.

    Returns:
        0 (one value) to ln(bins).

    Raises:
        ValueError: no weights, a non-finite one, or fewer than 2 bins.
    """
    array = np.asarray(weights, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("weights have to be finite, and at least one")
    if bins < 2:
        raise ValueError(f"a histogram needs 2 bins or more, got {bins}")
    largest = np.abs(array).max()
    if largest == 0.0:
        return 0.0
    array = array / largest
    array = array / np.sqrt(np.mean(array**2))
    places = np.clip(np.floor((array + REACH) * bins / (2 * REACH)), 0, bins - 1)
    return shannon_entropy(np.bincount(places.astype(np.int64)))


def effective_rank(matrix: npt.ArrayLike) -> float:
    """Return how many directions a matrix really uses.

    Args:
        matrix: shape (m, n), finite, any unit; all zero gives 0.

    Returns:
        exp of the entropy of the normalised singular values: 1 to min(m, n).

    Raises:
        ValueError: not two axes, empty, or not finite.

    Source:
        Roy & Vetterli (2007), The effective rank, EUSIPCO, definition 1.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a finite matrix is needed, got shape {array.shape}")
    largest = np.abs(array).max()
    if largest == 0.0:
        return 0.0
    singular = np.linalg.svd(array / largest, compute_uv=False)
    return float(np.exp(shannon_entropy(singular)))


def population_entropy(distances: npt.ArrayLike, shares: npt.ArrayLike | None = None) -> float:
    """Return the entropy of a population whose members may be alike (nats).

    Members count as different only as far as their functions are: n copies of one function under
    n names give 0, n functions with nothing in common give ln n. Without likeness this is
    Shannon's entropy.

    Args:
        distances: functional distances, shape (n, n), 0 (same) to 1 (nothing in common),
            symmetric, zeros on the diagonal.
        shares: weight of each member, shape (n,); None weighs all the same.

    Raises:
        ValueError: no such matrix, or shares that do not fit it.

    Source:
        Leinster & Cobbold (2012), Measuring diversity: the importance of species similarity,
        Ecology 93, eq. 1 at order q = 1 (its logarithm).
    """
    array = np.asarray(distances, dtype=np.float64)
    n = array.shape[0] if array.ndim == 2 else 0
    if n == 0 or array.shape != (n, n) or not np.allclose(array, array.T):
        raise ValueError(f"distances have to be a symmetric square, got shape {array.shape}")
    if not ((array >= 0.0) & (array <= 1.0)).all() or np.diag(array).any():
        raise ValueError("distances have to lie in 0..1, with zeros on the diagonal")
    weights = np.ones(n) if shares is None else np.asarray(shares, dtype=np.float64)
    if weights.shape != (n,) or (weights < 0.0).any() or not weights.sum() > 0.0:
        raise ValueError(f"shares have to be {n} numbers, not negative and not all zero")
    weights = weights / weights.sum()
    ordinariness = (1.0 - array) @ weights
    there = weights > 0.0
    return max(0.0, float(-(weights[there] @ np.log(ordinariness[there]))))
