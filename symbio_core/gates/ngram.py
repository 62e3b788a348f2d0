"""A small character n-gram model that says how likely a text is in a corpus. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ORDER = 7
"""Longest n-gram (characters): reaches over the seam between two words."""
LEAST_ALPHABET = 256
"""Characters that the last resort spreads its probability over, at least."""
BLANK = "\n"
"""What stands before a text begins."""

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: the multiplier of Fibonacci hashing."""


@dataclass(frozen=True, slots=True)
class _Level:
    """Counts of the n-grams of one length."""

    keys: Keys
    counts: Counts
    contexts: Keys
    context_counts: Counts
    followers: Counts


class CharacterModel:
    """Interpolated character n-gram model with Witten-Bell smoothing.

    It knows no language: letters, ideographs, digits, indentation and punctuation are characters
    alike. A character that the corpus does not hold gets a small probability, never zero.

    Source:
        Witten & Bell (1991), The Zero-Frequency Problem, IEEE Trans. Inf. Theory 37(4), method C,
        in the interpolated form of Chen & Goodman (1999), An Empirical Study of Smoothing
        Techniques, Computer Speech & Language 13: p(c|h) = (n(hc) + T(h)·p(c|h′)) / (n(h) + T(h)),
        where T(h) counts the different characters seen behind h, and h′ is h less its oldest one.
    """

    def __init__(self, text: str, *, order: int = ORDER) -> None:
        """Count the n-grams of ``text`` up to ``order`` characters."""
        points = _points(text)
        self.alphabet = np.unique(points)
        self.order = order
        ids = self._ids(points)
        self.levels = []
        keys = context = np.zeros(len(ids), dtype=np.uint64)
        for _ in range(order):
            keys = _extended(context, ids)
            self.levels.append(_count(keys, context))
            context = np.concatenate([np.zeros(1, dtype=np.uint64), keys[:-1]])

    def bits(self, texts: Sequence[str]) -> list[float]:
        """Return the mean bits a character of each text; ``inf`` for an empty one.

        Each text is read from its beginning, so texts do not inform each other.
        """
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        gap = BLANK * (self.order - 1)
        if not lengths.sum():
            return [float("inf")] * len(texts)
        bits = -np.log2(self._probabilities(_points(gap + gap.join(texts))))
        totals = np.concatenate([[0.0], np.cumsum(bits)])
        starts = np.cumsum(lengths + len(gap)) - lengths
        sums = totals[starts + lengths] - totals[starts]
        return [
            float(total / n) if n else float("inf") for total, n in zip(sums, lengths, strict=True)
        ]

    def _probabilities(self, points: npt.NDArray[np.uint32]) -> Numbers:
        ids = self._ids(points)
        p = np.full(len(ids), 1.0 / max(LEAST_ALPHABET, len(self.alphabet) + 1))
        context = np.zeros(len(ids), dtype=np.uint64)
        for level in self.levels:
            keys = _extended(context, ids)
            n = _looked_up(level.keys, level.counts, keys)
            at, found = _places(level.contexts, context)
            total = np.where(found, level.context_counts[at], 0)
            others = np.where(found, level.followers[at], 0)
            p = np.where(found, (n + others * p) / np.maximum(1, total + others), p)
            context = np.concatenate([np.zeros(1, dtype=np.uint64), keys[:-1]])
        return p

    def _ids(self, points: npt.NDArray[np.uint32]) -> Keys:
        at, found = _places(self.alphabet, points)
        return np.where(found, at + 2, 1).astype(np.uint64)


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)


def _extended(context: Keys, ids: Keys) -> Keys:
    # A polynomial hash modulo 2^64, stirred so that near contexts lie far apart.
    keys = (context ^ (context >> np.uint64(29))) * MIX + ids
    return np.asarray(keys * MIX)


def _count(keys: Keys, contexts: Keys) -> _Level:
    unique, first, counts = np.unique(keys, return_index=True, return_counts=True)
    heads, place, followers = np.unique(contexts[first], return_inverse=True, return_counts=True)
    totals = np.bincount(place, weights=counts, minlength=len(heads)).astype(np.int64)
    return _Level(unique, counts, heads, totals, followers)


def _places(
    table: npt.NDArray[np.unsignedinteger], wanted: npt.NDArray[np.unsignedinteger]
) -> tuple[Counts, npt.NDArray[np.bool_]]:
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return at, table[at] == wanted


def _looked_up(table: Keys, counts: Counts, wanted: Keys) -> Counts:
    at, found = _places(table, wanted)
    return np.where(found, counts[at], 0)
