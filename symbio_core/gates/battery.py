"""Scores the inference battery: every answer beside human text and beside its fellows. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from symbio_core.gates.quality import Reference, copied, quality, score_all, words_of
from symbio_core.records import Battery, Interval, Sample
from symbio_core.streams import generator

RESAMPLES = 2000
"""Bootstrap resamples behind an interval."""
SHARED_WORDS = 3
"""Length of the n-grams that answers are compared by (words)."""

Numbers = npt.NDArray[np.float64]
Grams = frozenset[tuple[str, ...]]

_MARK = re.compile(r"\s*<\|[^|<>\s]*\|>\s*")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote to one prompt at one temperature."""

    prompt_index: int
    prompt: str
    temperature: float
    text: str
    """The answer alone, without its prompt."""
    error: str | None
    """Why there is no answer; such an answer counts 0."""
    ended: bool
    """Whether the model ended it by itself."""


def score_battery(
    reference: Reference, answers: Sequence[Answer], *, seed: int, confidence: float
) -> Battery:
    """Score every answer in 0..1 and the battery as their mean over prompts.

    An answer's quality is that of its text (`quality.score`) times its `diversity`: the share of
    its three-word runs that no answer to another prompt has, over the share that human passages
    show among as many. Empty answers and errors count 0 and are never left out.

    Args:
        reference: human text of the corpus.
        answers: any order; chat marks in their texts are taken out.
        seed: the bootstrap's.
        confidence: of the interval (0..1).

    Returns:
        Samples in the order of ``answers``; quality with its interval by bootstrap over prompts;
        the longest run of words copied from the training text that was read; and the share of all
        words inside copied runs beyond the share in held-out text.
    """
    texts = ["" if answer.error is not None else _plain(answer.text) for answer in answers]
    words = [words_of(text) for text in texts]
    parts = score_all(reference, texts, [answer.ended for answer in answers]) if texts else []
    diverse = _diversity(reference, answers, words)
    samples = tuple(
        Sample(
            prompt=answer.prompt,
            text=text,
            temperature=answer.temperature,
            quality=quality({**found, "diversity": diversity}),
            parts={**found, "diversity": diversity},
            error=answer.error,
        )
        for answer, text, found, diversity in zip(answers, texts, parts, diverse, strict=True)
    )
    qualities = np.array([sample.quality for sample in samples])
    groups = [answer.prompt_index for answer in answers]
    longest, share = _copying(reference, words)
    return Battery(
        samples=samples,
        quality=_interval(qualities, groups, seed, confidence, least=0.0),
        longest_verbatim=longest,
        verbatim_frac=share,
    )


def paired_quality(before: Battery, after: Battery, *, seed: int, confidence: float) -> Interval:
    """Say how much better ``after`` is than ``before``, and how sure that is.

    Answers to the same prompt at the same temperature are compared, so that what is hard about a
    prompt cancels. Prompts are resampled whole, since answers to one prompt resemble each other.

    Returns:
        Mean difference of quality (−1..1) with its interval. Where fewer than two prompts are
        shared nothing is known, and the interval is the whole range.

    Source:
        Hesterberg (2015), What Teachers Should Know About the Bootstrap, The American Statistician
        69(4): percentile interval, widened for small samples.
    """
    old = dict(_numbered(before.samples))
    shared = [(key, new - old[key]) for key, new in _numbered(after.samples) if key in old]
    numbers: dict[tuple[str, int], int] = {}
    groups = [numbers.setdefault((key[0], key[2]), len(numbers)) for key, _ in shared]
    differences = np.array([difference for _, difference in shared])
    return _interval(differences, groups, seed, confidence, least=-1.0)


def _plain(text: str) -> str:
    return _MARK.sub("\n", text).strip()


def _numbered(samples: Iterable[Sample]) -> list[tuple[tuple[str, float, int], float]]:
    # The same prompt may stand in a prompts file twice, so its answers are told apart by number.
    seen: dict[tuple[str, float], int] = {}
    found = []
    for sample in samples:
        cell = (sample.prompt, sample.temperature)
        seen[cell] = seen.get(cell, -1) + 1
        found.append(((*cell, seen[cell]), sample.quality))
    return found


def _interval(
    values: Numbers, groups: Sequence[int], seed: int, confidence: float, *, least: float
) -> Interval:
    if not len(values):
        high = 0.0 if least == 0.0 else 1.0
        return Interval(value=0.0, low=least, high=high, confidence=confidence)
    _, place = np.unique(np.array(groups), return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    mean, n = float(values.mean()), len(sums)
    if n < 2:
        return Interval(value=mean, low=least, high=1.0, confidence=confidence)
    draws = generator(seed, "bootstrap").integers(0, n, (RESAMPLES, n))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    # Resampling n values shows too little spread by √((n−1)/n), and few of them have t's tails.
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1.0 - confidence) / 2.0)))
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(
        value=mean, low=min(mean, float(low)), high=max(mean, float(high)), confidence=confidence
    )


def _copying(reference: Reference, words: Sequence[list[str]]) -> tuple[int, float]:
    total = sum(map(len, words))
    if not total:
        return 0, 0.0
    found = [copied(reference, answer) for answer in words]
    inside = sum(share * len(answer) for (_, share), answer in zip(found, words, strict=True))
    usual = sum(reference.copied_frac(len(answer)) * len(answer) for answer in words if answer)
    return max(longest for longest, _ in found), max(0.0, (inside - usual) / total)


def _diversity(
    reference: Reference, answers: Sequence[Answer], words: Sequence[list[str]]
) -> list[float]:
    written = [length for length in map(len, words) if length]
    if not written:
        return [0.0] * len(words)
    human = _human_grams(reference, round(float(np.median(written))))
    prompts = [answer.prompt_index for answer in answers]
    if len(set(prompts)) < 2:
        prompts = list(range(len(answers)))
    grams = [_grams(answer) for answer in words]
    usual: dict[int, float] = {}
    found = []
    for i, own in enumerate(grams):
        after = [*range(i + 1, len(grams)), *range(i)]
        others = [grams[j] for j in after if prompts[j] != prompts[i] and grams[j]]
        others = others[: len(human) - 1]
        if len(others) not in usual:
            usual[len(others)] = _human_fresh_frac(human, len(others))
        fresh = _fresh_frac(own, others) if own else 0.0
        found.append(min(1.0, fresh / max(usual[len(others)], 1e-9)))
    return found


def _human_grams(reference: Reference, n_words: int) -> list[Grams]:
    length = min(reference.passages, key=lambda n: abs(math.log(n / n_words)))
    return [_grams(words_of(text)) for text in reference.passages[length]]


def _human_fresh_frac(human: Sequence[Grams], n: int) -> float:
    fresh = [_fresh_frac(g, [*human[i + 1 :], *human[:i]][:n]) for i, g in enumerate(human)]
    return float(np.mean(fresh))


def _fresh_frac(own: Grams, others: Sequence[Grams]) -> float:
    return len(own.difference(*others)) / len(own)


def _grams(words: Sequence[str]) -> Grams:
    n = min(SHARED_WORDS, len(words))
    return frozenset(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if n else frozenset()
