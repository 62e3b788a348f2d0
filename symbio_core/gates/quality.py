"""How good a text is, in 0..1, beside held-out human text of the same corpus. Pure.

Every part compares a text with held-out human passages of the same number of words, so it is as bad
to be too varied as to be too repetitive, and no part can be filled by noise. Parts multiply: one
that is zero makes the text worth nothing.

Words are runs of letters and digits. In scripts without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese) every character counts as one word: `words` then only sees characters that the
corpus does not hold, and it is `fluency` and `order` that tell sense from nonsense. In source code,
names and keywords are the words; punctuation and indentation are seen by `fluency` and `order`.
Only the form of a text is measured, not whether what it says is true or answers the prompt. A
collage of training text in pieces of two or three words is well formed and passes for good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from symbio_core.gates.measures import Measures, words_of
from symbio_core.gates.reference import PASSAGES, Norms, Reference

__all__ = [
    "ALIKE",
    "WEIGHTS",
    "Reference",
    "deviations",
    "likeness",
    "ordered",
    "original",
    "parts_of",
    "quality",
    "score",
]

FLOOR = 0.02
"""Least value of the parts that are estimated from few words, in a text that has words at all:
so the bad can still be told from the worse."""
NOISE_SHARE = 3.0
"""`fluency` falls by a factor e³ from human text to shuffled letters."""
WEIGHTS = {
    "fluency": 0.25,
    "words": 0.5,
    "order": 1.0,
    "repetition": 1.0,
    "variety": 0.25,
    "length": 1.0,
    "ending": 0.25,
    "copying": 0.5,
    "diversity": 0.5,
    "likeness": 0.5,
}
"""Exponent of each part in the product."""
ALIKE = ("bits", "gain", "known", "paired", "distinct_1", "distinct_2", "pasted")
"""Measures whose means must be like people's over many answers."""
LIKENESS_SCALE = 1.0
"""Mean distance from people, in their standard deviations, at which `likeness` falls to 1/e."""
FOREGONE = {"bits": -1.0, "gain": 1.0, "known": 1.0, "paired": 1.0}
"""Side on which a measure is more predictable than people; there it counts `FOREGONE_SHARE`,
since cool samples are meant to be predictable."""
FOREGONE_SHARE = 0.5
USUAL_SPREADS = 2.0
"""Pasted words count against a text from so many standard deviations above people's mean."""
FARTHEST = 4.0
"""Distances beyond this count as this (standard deviations)."""


def score(reference: Reference, text: str, ended: bool) -> dict[str, float]:
    """Measure the parts of one text's quality, each 0..1, 1 being what human text shows.

    Args:
        reference: human text of the corpus.
        text: what the model wrote, without the prompt and without marks.
        ended: whether the model ended it by itself; False where it reached the longest answer.

    Returns:
        `fluency`: bits a character under an n-gram model of the corpus, 1 where people are and near
        0 where shuffled letters are; text that is far too predictable loses as well.
        `words`: share of words that the corpus holds, over the human share.
        `order`: what the order of the words is worth, in bits a character, over the human worth;
        0.02 for shuffled words.
        `repetition`: share of 4-grams of words that are not repeats, over the human share.
        `variety`: distinct words and pairs of words, 1 where people are and less on either side.
        `length`: words over those of a short human answer, at most 1; where the limit cut it,
        over the words that people put into as many characters.
        `ending`: 1 if it ends on a character that people's texts end on, or was cut by the limit.
        `copying`: 1 less the share of words in long runs copied from the training text, over the
        same of people; times what is left of 1 where more words are pasted, in runs of four or
        more, than in human texts of this length.
        An empty text has 0 everywhere.

    Source:
        `order`: relative entropy of word order, D = H(shuffled) − H(text), Montemurro & Zanette
        (2011), Universal Entropy of Word Ordering Across Linguistic Families, PLoS ONE 6(5), here
        under a character model. `repetition`: seq-rep-n, Welleck et al. (2020), Neural Text
        Generation With Unlikelihood Training, ICLR. `variety`: distinct-n, Li et al. (2016), A
        Diversity-Promoting Objective Function for Neural Conversation Models, here two-sided and
        at matched length.
    """
    return parts_of(reference, text, ended, reference.training.measure([text], reference.seed)[0])


def parts_of(reference: Reference, text: str, ended: bool, found: Measures) -> dict[str, float]:
    """Return the parts of a text that was measured already; see `score`."""
    words = words_of(text)
    if not words:
        return dict.fromkeys(list(WEIGHTS)[:8], 0.0)
    norms = reference.norms(len(words))
    human, spread = norms.mean, norms.spread
    fresh = 1.0 - reference.copied(words)[1]
    well = not ended or text.rstrip()[-1] in reference.ends
    return {
        "fluency": max(FLOOR, _fluency(reference, norms, found["bits"])),
        "words": max(FLOOR, _share(found["known"], human["known"])),
        "order": max(FLOOR, _share(found["gain"], human["gain"] - spread["gain"])),
        "repetition": _share(1.0 - found["repeated"], 1.0 - human["repeated"]),
        "variety": max(FLOOR, min(_near(norms, found, f"distinct_{n}") for n in (1, 2))),
        "length": min(1.0, len(words) / _enough(reference, text, ended)),
        "ending": 1.0 if well else 0.7,
        "copying": _share(fresh, 1.0 - norms.copied_frac) * _own(norms, found["pasted"]),
    }


def deviations(reference: Reference, found: Measures, n_words: int) -> npt.NDArray[np.float64]:
    """Return how far a text's measures `ALIKE` are from people's, shape (n_measures,).

    In standard deviations of human passages of ``n_words`` words.
    """
    norms = reference.norms(n_words)
    away = [(found[name] - norms.mean[name]) / norms.spread[name] for name in ALIKE]
    return np.clip(away, -FARTHEST, FARTHEST)


def ordered(
    reference: Reference, gains: npt.NDArray[np.float64], n_words: npt.NDArray[np.int64]
) -> float:
    """Say how much order the words of many texts have, over what people's have, at most 1.

    A short text can look ordered by luck; many of them cannot.

    Args:
        reference: human text of the corpus.
        gains: bits a character that the order of each text's words saves, shape (n_texts,).
        n_words: length of each text (words), shape (n_texts,), one text at least.
    """
    norms = [reference.norms(n) for n in n_words.tolist()]
    human = float(np.mean([n.mean["gain"] for n in norms]))
    chance = float(np.mean([n.spread["gain"] for n in norms])) / math.sqrt(len(norms))
    return max(FLOOR, _share(float(gains.mean()), human - chance))


def original(
    reference: Reference, pasted: npt.NDArray[np.float64], n_words: npt.NDArray[np.int64]
) -> float:
    """Say how much of many texts is their own, over what is people's own, at most 1.

    Where people repeat each other, as in source code, one short text may be copied whole and prove
    nothing; many of them may not.

    Args:
        reference: human text of the corpus.
        pasted: share of each text's words in runs of four or more that the training text holds
            (0..1), shape (n_texts,).
        n_words: length of each text (words), shape (n_texts,), one text at least.
    """
    norms = [reference.norms(n) for n in n_words.tolist()]
    human = float(np.mean([n.mean["pasted"] for n in norms]))
    spread = float(np.mean([n.spread["pasted"] for n in norms]))
    own = 1.0 - human - USUAL_SPREADS * spread / math.sqrt(len(norms))
    return max(FLOOR, _share(1.0 - float(pasted.mean()), own)) if own > 0.0 else 1.0


def likeness(means: npt.NDArray[np.float64], n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Say how alike many answers as a whole are to people's, in 0..1.

    One good answer can be more predictable, plainer or richer than the usual; all of them together
    should not be. What chance alone would show between so few texts is taken off.

    Args:
        means: mean deviation of ``n`` answers, shape (..., n_measures), in standard deviations.
        n: how many answers, shape (...).

    Returns:
        exp(−d / `LIKENESS_SCALE`), shape (...), where d is the mean distance beyond chance.

    Source:
        Own. Comparing what was written with human text as one distribution and not text by text is
        the idea of MAUVE, Pillutla et al. (2021), NeurIPS; here the distance is that of seven means
        (Cohen's d), which sixty short answers can bear.
    """
    chance = math.sqrt(2.0 / math.pi) * np.sqrt(1.0 / np.maximum(1.0, n) + 1.0 / PASSAGES)
    foregone = means * np.array([FOREGONE.get(name, 0.0) for name in ALIKE]) > 0.0
    distance = np.where(foregone, FOREGONE_SHARE, 1.0) * np.abs(means)
    beyond = np.maximum(0.0, distance.mean(axis=-1) - chance)
    return np.asarray(np.exp(-beyond / LIKENESS_SCALE))


def quality(parts: Mapping[str, float]) -> float:
    """Combine parts into one number in 0..1: their product, each with its exponent.

    A part that is zero makes the whole zero; parts that were not measured are left out.
    """
    assert parts
    assert all(0.0 <= value <= 1.0 for value in parts.values()), parts
    return math.prod((value ** WEIGHTS[name] for name, value in parts.items()), start=1.0)


def _fluency(reference: Reference, norms: Norms, bits: float) -> float:
    human, spread = norms.mean["bits"], norms.spread["bits"]
    above = max(0.0, bits - human - spread) / max(reference.noise_bits - human, 1.0)
    # Cool samples are rightly more predictable than people, so only the far end is cut.
    below = max(0.0, (human - bits) / spread - 2.0)
    return math.exp(-NOISE_SHARE * above - 0.125 * below**2)


def _near(norms: Norms, found: Measures, name: str) -> float:
    away = abs(found[name] - norms.mean[name]) / norms.spread[name]
    return math.exp(-0.125 * max(0.0, away - 1.0) ** 2)


def _enough(reference: Reference, text: str, ended: bool) -> float:
    room = math.inf if ended else len(text) * reference.words_a_char
    return max(1.0, min(reference.enough_words, room))


def _own(norms: Norms, pasted: float) -> float:
    usual = norms.mean["pasted"] + USUAL_SPREADS * norms.spread["pasted"]
    return 1.0 if usual >= 1.0 else min(1.0, (1.0 - pasted) / (1.0 - usual))


def _share(value: float, human: float) -> float:
    return float(min(1.0, max(0.0, value / max(human, 1e-3))))
