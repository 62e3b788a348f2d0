"""Scores the inference battery: every answer beside human text and beside its fellows. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from symbio_core.gates.copying import Source
from symbio_core.gates.measures import Measures, words_of
from symbio_core.gates.quality import (
    ALIKE,
    WEIGHTS,
    deviations,
    likeness,
    ordered,
    original,
    parts_of,
    quality,
)
from symbio_core.gates.reference import Reference
from symbio_core.gates.resampling import Numbers, cluster_interval, without_each
from symbio_core.records import Battery, Interval, Sample

SHARED_WORDS = 3
"""Length of the n-grams that answers are compared by (words)."""

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
    that human passages show among as many. `likeness`: how alike to human text all
    answers to the other prompts are as a whole (`quality.likeness` × `ordered` × `original`),
    which tells what each prompt does to it. Words in runs copied from the prompt count as copied.
    Empty answers and errors count 0 and are never left out.

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
    prompts = [answer.prompt_index for answer in answers]
    alike = _likeness_of_the_others(reference, found, words, prompts)
    samples = []
    for answer, text, measures, diverse, others in zip(
        answers, texts, found, _diversity(reference, answers, words), alike, strict=True
    ):
        parts = parts_of(reference, text, answer.ended, measures) | {"diversity": diverse}
        parts["copying"] *= 1.0 - _echoed_frac(answer.prompt, text)
        parts["likeness"] = others
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
        quality=_quality_interval(samples, prompts, seed, confidence),
        longest_verbatim=longest,
        verbatim_frac=share,
    )


def paired_quality(before: Battery, after: Battery, *, seed: int, confidence: float) -> Interval:
    """Say how much better ``after`` is than ``before``, and how sure that is.

    Answers to the same prompt at the same temperature are compared, so that what is hard about a
    prompt cancels. Prompts are resampled whole, since answers to one prompt resemble each other,
    and what each prompt does to the `likeness` of its battery is part of its influence; see
    `cluster_interval`.

    Returns:
        Mean difference of quality (−1..1) with its interval. Where fewer than two prompts are
        shared nothing is known, and the interval is the whole range.
    """
    old, new = _numbered(before.samples), _numbered(after.samples)
    shared = [key for key in new if key in old]
    numbers: dict[tuple[str, int], int] = {}
    prompts = [numbers.setdefault((key[0], key[2]), len(numbers)) for key in shared]
    value = float(np.mean([new[k].quality - old[k].quality for k in shared])) if shared else 0.0
    change = np.zeros(0)
    if len(numbers) > 1:
        change = _without_each([new[k] for k in shared], prompts) - _without_each(
            [old[k] for k in shared], prompts
        )
    return cluster_interval(value, change, seed=seed, confidence=confidence, least=-1.0)


def _plain(text: str) -> str:
    # Half a surrogate pair is no text, and no JSON file could hold it.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _MARK.sub("\n", text).strip()


def _echoed_frac(prompt: str, text: str) -> float:
    asked, words = words_of(_plain(prompt)), words_of(text)
    runs = Source(asked).run_lengths(words)
    # A prompt too short for a run is echoed where the answer begins with the whole of it.
    if words[: len(asked)] == asked:
        runs[: len(asked)] = len(asked)
    return float((runs > 0).mean()) if words else 0.0


def _numbered(samples: Iterable[Sample]) -> dict[tuple[str, float, int], Sample]:
    # The same prompt may stand in a prompts file twice, so its answers are told apart by number.
    seen: dict[tuple[str, float], int] = {}
    found = {}
    for sample in samples:
        cell = (sample.prompt, sample.temperature)
        seen[cell] = seen.get(cell, -1) + 1
        found[(*cell, seen[cell])] = sample
    return found


def _likeness_of_the_others(
    reference: Reference,
    found: Sequence[Measures],
    words: Sequence[list[str]],
    prompts: Sequence[int],
) -> list[float]:
    away = np.zeros((len(words), len(ALIKE)))
    for row, measures, answer in zip(away, found, words, strict=True):
        if answer:
            row[:] = deviations(reference, measures, len(answer))
    lengths = np.array([len(answer) for answer in words], dtype=np.int64)
    gains = np.array([measures["gain"] for measures in found])
    pasted = np.array([measures["pasted"] for measures in found])
    asked = np.array(prompts)
    alike: dict[int, float] = {}
    for prompt in dict.fromkeys(prompts):
        at = (asked != prompt) & (lengths > 0)
        # With one prompt alone there are no others: then all answers are looked at.
        at = at if at.any() else lengths > 0
        alike[prompt] = 0.0
        if at.any():
            n = lengths[at]
            near = float(likeness(away[at].mean(axis=0), np.array(len(n))))
            whole = ordered(reference, gains[at], n) * original(reference, pasted[at], n)
            alike[prompt] = near * whole
    return [alike[prompt] for prompt in prompts]


def _quality_interval(
    samples: Sequence[Sample], prompts: Sequence[int], seed: int, confidence: float
) -> Interval:
    value = float(np.mean([sample.quality for sample in samples])) if samples else 0.0
    if samples and not any(words_of(sample.text) for sample in samples):
        # Nothing was written: that is known, whatever the prompts.
        return Interval(value=0.0, low=0.0, high=0.0, confidence=confidence)
    left_out = _without_each(samples, prompts) if len(set(prompts)) > 1 else np.zeros(0)
    return cluster_interval(value, left_out, seed=seed, confidence=confidence, least=0.0)


def _without_each(samples: Sequence[Sample], prompts: Sequence[int]) -> Numbers:
    factor = np.array([s.parts.get("likeness", 1.0) ** WEIGHTS["likeness"] for s in samples])
    worth = np.array([sample.quality for sample in samples])
    own = np.divide(worth, factor, out=np.zeros(len(samples)), where=factor > 0.0)
    return without_each(own, factor, prompts)


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
