"""Scores the inference battery: every answer beside human text and beside its fellows. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from symbio_core.gates.copying import Source
from symbio_core.gates.measures import words_of
from symbio_core.gates.quality import (
    ALIKE,
    WEIGHTS,
    deviations,
    likeness,
    parts_of,
    quality,
)
from symbio_core.gates.reference import Reference
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

    To the parts of each text (`quality.score`) come two that only show among many. `diversity`:
    the share of an answer's three-word runs that no answer to another prompt has, over the share
    that human passages show among as many. `likeness`: how alike all answers as a whole are to
    human text (`quality.likeness`), the same number for every answer. Words in runs copied from the
    prompt count as copied. Empty answers and errors count 0 and are never left out.

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
    found = reference.training.measure(texts, reference.seed)
    away = np.array(
        [
            deviations(reference, measures, len(answer)) if answer else np.zeros(len(ALIKE))
            for measures, answer in zip(found, words, strict=True)
        ]
    ).reshape(len(texts), len(ALIKE))
    written = np.array([float(bool(answer)) for answer in words])
    mean = away.sum(axis=0) / max(1.0, written.sum())
    alike = float(likeness(mean, np.array(written.sum()))) if written.any() else 0.0
    samples, own = [], []
    for answer, text, measures, diverse in zip(
        answers, texts, found, _diversity(reference, answers, words), strict=True
    ):
        parts = parts_of(reference, text, answer.ended, measures) | {"diversity": diverse}
        parts["copying"] *= 1.0 - _echoed_frac(answer.prompt, text)
        own.append(quality(parts))
        parts["likeness"] = alike
        samples.append(
            Sample(
                prompt=answer.prompt,
                text=text,
                temperature=answer.temperature,
                quality=quality(parts),
                parts=parts,
                error=answer.error,
            )
        )
    longest, share = _copying(reference, words)
    return Battery(
        samples=tuple(samples),
        quality=_battery_interval(
            np.array(own),
            away,
            written,
            [answer.prompt_index for answer in answers],
            seed,
            confidence,
        ),
        longest_verbatim=longest,
        verbatim_frac=share,
    )


def paired_quality(before: Battery, after: Battery, *, seed: int, confidence: float) -> Interval:
    """Say how much better ``after`` is than ``before``, and how sure that is.

    Answers to the same prompt at the same temperature are compared, so that what is hard about a
    prompt cancels. Prompts are resampled whole, since answers to one prompt resemble each other;
    the two batteries' `likeness` is taken as it was found.

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
    # Half a surrogate pair is no text, and no JSON file could hold it.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _MARK.sub("\n", text).strip()


def _echoed_frac(prompt: str, text: str) -> float:
    runs = Source(words_of(_plain(prompt))).run_lengths(words_of(text))
    return float((runs > 0).mean()) if len(runs) else 0.0


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
    place, draws = _draws(groups, seed)
    mean = float(values.mean()) if len(values) else 0.0
    if draws.shape[1] < 2:
        return Interval(value=mean, low=least, high=1.0, confidence=confidence)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    return _percentiles(mean, means, draws.shape[1], confidence)


def _battery_interval(
    own: Numbers,
    away: Numbers,
    written: Numbers,
    groups: Sequence[int],
    seed: int,
    confidence: float,
) -> Interval:
    if not written.any():
        # Nothing was written: that is known, whatever the prompts.
        return Interval(value=0.0, low=0.0, high=0.0, confidence=confidence)
    value = _likeness(away.sum(axis=0), np.array(written.sum()))
    plain = _interval(own * value, groups, seed, confidence, least=0.0)
    place, draws = _draws(groups, seed)
    if draws.shape[1] < 2:
        return plain
    by_prompt = np.zeros((draws.shape[1], 2 + len(ALIKE)))
    np.add.at(by_prompt, place, np.column_stack([np.ones(len(own)), written, away]))
    sizes, n_written = by_prompt[draws, 0].sum(axis=1), by_prompt[draws, 1].sum(axis=1)
    alike = _likeness(by_prompt[draws, 2:].sum(axis=1), n_written)
    # Resampling adds its own noise to a distance, which can only make it longer: centred again.
    alike = np.minimum(1.0, alike * (value / alike.mean()))
    qualities = np.bincount(place, weights=own)[draws].sum(axis=1) / sizes * alike
    return _percentiles(plain.value, qualities, draws.shape[1], confidence)


def _likeness(sums: Numbers, n_written: Numbers) -> Numbers:
    n = np.maximum(1.0, n_written)
    return likeness(sums / n[..., None], n) ** WEIGHTS["likeness"]


def _draws(groups: Sequence[int], seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    names, place = np.unique(np.array(groups, dtype=np.int64), return_inverse=True)
    n = len(names)
    return place, generator(seed, "bootstrap").integers(0, max(1, n), (RESAMPLES, n))


def _percentiles(value: float, resampled: Numbers, n: int, confidence: float) -> Interval:
    # Resampling n values shows too little spread by √((n−1)/n), and few of them have t's tails.
    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1.0 - confidence) / 2.0)))
    low, high = np.quantile(resampled, [tail, 1.0 - tail]).tolist()
    return Interval(value=value, low=min(value, low), high=max(value, high), confidence=confidence)


def _copying(reference: Reference, words: Sequence[list[str]]) -> tuple[int, float]:
    total = sum(map(len, words))
    if not total:
        return 0, 0.0
    found = [reference.copied(answer) for answer in words]
    inside = sum(share * len(answer) for (_, share), answer in zip(found, words, strict=True))
    usual = sum(
        reference.norms(len(answer)).copied_frac * len(answer) for answer in words if answer
    )
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
    return (
        frozenset(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if n else frozenset()
    )
