"""Finds the words of a text that stand in the same order in another text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from symbio_core.gates.ngram import MIX

SEED_WORDS = 4
"""A shared run begins to count here: every two texts of a language share pairs and triples."""
MOST_PLACES = 64
"""Places that a run's beginning is looked for at, where it is frequent."""


class Source:
    """The words of one text, ready to be searched for runs."""

    def __init__(self, words: Sequence[str]) -> None:
        """Index ``words``."""
        self._numbers: dict[str, int] = {}
        numbers = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in words]
        self._ids = np.array(numbers, dtype=np.int64)
        hashes = _hashes(self._ids)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def run_lengths(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return, for each word, the length of the longest shared run that it stands in (words).

        Runs shorter than `SEED_WORDS` count 0. Shape (n_words,).
        """
        ids = np.array([self._numbers.get(word, 0) for word in words], dtype=np.int64)
        lengths = np.zeros(len(ids), dtype=np.int64)
        wanted = _hashes(ids)
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        for start in np.flatnonzero(last > first):
            places = self._beginnings(ids, int(start), self._order[first[start] : last[start]])
            run = max((self._run(ids, int(start), int(at)) for at in places), default=0)
            lengths[start : start + run] = np.maximum(lengths[start : start + run], run)
        return lengths

    def _beginnings(
        self, ids: npt.NDArray[np.int64], start: int, places: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        # A run that goes on to the left was measured from there.
        if start > 0 and ids[start - 1]:
            places = places[(places == 0) | (self._ids[places - 1] != ids[start - 1])]
        return places[:MOST_PLACES]

    def _run(self, ids: npt.NDArray[np.int64], start: int, at: int) -> int:
        n = min(len(ids) - start, len(self._ids) - at)
        here, there = ids[start : start + n], self._ids[at : at + n]
        # 0 stands for a word that the source does not hold: equal to nothing.
        differs = np.flatnonzero((here != there) | (here == 0))
        return int(differs[0]) if len(differs) else n


def _hashes(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    n = len(ids) - SEED_WORDS + 1
    if n <= 0:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.zeros(n, dtype=np.uint64)
    for offset in range(SEED_WORDS):
        hashes = (hashes + ids[offset : offset + n].astype(np.uint64)) * MIX
        hashes ^= hashes >> np.uint64(31)
    return hashes
