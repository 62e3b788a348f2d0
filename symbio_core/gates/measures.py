"""What is counted in a text before it is compared with human text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from symbio_core.gates.copying import Source
from symbio_core.gates.ngram import CharacterModel
from symbio_core.streams import generator

MODEL_CHARS = 400_000
"""Training text that the n-gram model reads (characters)."""
SHUFFLES = 4
"""Other orders of its words that a text is compared with."""
REPEAT_WORDS = 4
"""Length of the n-grams whose repetition counts (words)."""

Measures = dict[str, float]

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")
"""A word; in scripts without spaces, a character."""
PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""A word with the punctuation that clings to it."""


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, punctuation left out."""
    return WORD.findall(text.lower())


class Training:
    """What the training text holds: its characters' n-grams, words, pairs and runs of words."""

    def __init__(self, text: str) -> None:
        """Learn ``text``; the n-gram model reads its first `MODEL_CHARS` characters."""
        words = words_of(text)
        self.model = CharacterModel(text[:MODEL_CHARS])
        self.words = frozenset(words)
        self.pairs = frozenset(pairwise(words))
        self.source = Source(words)

    def measure(self, texts: Sequence[str], seed: int) -> list[Measures]:
        """Measure texts: see `score` in `quality`.

        Returns:
            For each text `bits` a character; `gain`, the bits a character that the order of its
            words saves; the shares of words and of pairs of words that are `known` and `paired`;
            the share of 4-grams of words that are `repeated`; `distinct_1`, `distinct_2`; the
            share of words that are `pasted`, in runs of four or more that the training text holds;
            and the `longest` such run.
        """
        variants = [version for text in texts for version in _versions(text, seed)]
        bits = np.array(self.model.bits(variants)).reshape(len(texts), 1 + SHUFFLES)
        return [
            self._measures(words_of(text), row)
            for text, row in zip(texts, bits.tolist(), strict=True)
        ]

    def _measures(self, words: list[str], bits: list[float]) -> Measures:
        pairs = list(pairwise(words))
        runs = self.source.run_lengths(words)
        return {
            "bits": bits[0],
            "gain": float(np.mean(bits[1:])) - bits[0] if words else 0.0,
            "known": sum(word in self.words for word in words) / max(1, len(words)),
            "paired": sum(pair in self.pairs for pair in pairs) / max(1, len(pairs)),
            "repeated": 1.0 - _distinct(words, REPEAT_WORDS),
            "distinct_1": _distinct(words, 1),
            "distinct_2": _distinct(words, 2),
            "pasted": float((runs > 0).mean()) if words else 0.0,
            "longest": float(max(runs, default=0)),
        }


def _versions(text: str, seed: int) -> list[str]:
    pieces, gaps = PIECE.findall(text), PIECE.split(text)
    rng = generator(seed, "shuffles", text)
    made = [text]
    for _ in range(SHUFFLES):
        order = rng.permutation(len(pieces))
        mixed = [gap + pieces[i] for gap, i in zip(gaps, order, strict=False)]
        made.append("".join([*mixed, gaps[-1]]))
    return made


def _distinct(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
