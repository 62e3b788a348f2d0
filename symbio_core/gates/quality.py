"""How good a text is, in 0..1, beside held-out human text of the same corpus. Pure.

Every part compares a text with held-out human passages of the same number of words, so it is as bad
to be too varied as to be too repetitive, and no part can be filled by noise. Parts multiply: one
that is zero makes the text worth nothing.

Words are runs of letters and digits. In scripts without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese) every character counts as one word: `words` then only sees characters that the
corpus does not hold, and it is `fluency` and `order` that tell sense from nonsense. In source code,
names and keywords are the words; punctuation and indentation are seen by `fluency` and `order`.
Only the form of a text is measured, not whether what it says is true or answers the prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symbio_core.errors import CorpusError
from symbio_core.gates.copying import Source
from symbio_core.gates.ngram import CharacterModel
from symbio_core.streams import generator

MODEL_CHARS = 400_000
"""Training text that the n-gram model reads (characters)."""
COPY_CHARS = 4_000_000
"""Training text that copied runs are looked for in (characters)."""
HELDOUT_CHARS = 200_000
"""Held-out text that human passages are cut from (characters)."""
PASSAGE_WORDS = (3, 6, 12, 24, 48, 96, 192)
"""Lengths at which human text is measured (words); others are interpolated."""
PASSAGES = 48
"""Human passages of each length."""
SHUFFLES = 4
"""Other orders of its words that a text is compared with."""
REPEAT_WORDS = 4
"""Length of the n-grams whose repetition counts (words)."""
LEAST_RUN, LONGEST_RUN = 8, 32
"""A copied run counts from here on (words), or from one more than what human text shows."""
LEAST_ENOUGH, MOST_ENOUGH = 4, 16
"""An answer of fewer words than a short human line is too short; that line is kept within these."""
WEIGHTS = {
    "fluency": 1.0,
    "words": 0.5,
    "order": 1.0,
    "repetition": 1.0,
    "variety": 0.5,
    "length": 0.5,
    "ending": 0.5,
    "copying": 1.0,
    "diversity": 1.0,
}
"""Exponent of each part in the product."""

Numbers = npt.NDArray[np.float64]

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_MEASURES = ("bits", "gain", "known", "repeated", "distinct_1", "distinct_2", "longest")


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, punctuation left out."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Norms:
    """What human passages of one length show; each measure as mean and standard deviation."""

    mean: dict[str, float]
    spread: dict[str, float]


class Reference:
    """Human text of a corpus in the form that answers are compared with; make it once."""

    def __init__(self, train: str, heldout: str, *, seed: int) -> None:
        """Measure ``heldout`` with what is known from ``train``; see `from_texts`."""
        self.seed = seed
        self.model = CharacterModel(train[:MODEL_CHARS])
        trained = words_of(train[:COPY_CHARS])
        self.known_words = frozenset(trained)
        self.source = Source(trained)
        lines = [line.strip() for line in heldout.splitlines() if line.strip()]
        sizes = [len(words_of(line)) for line in lines]
        self.enough_words = float(np.clip(np.quantile(sizes, 0.25), LEAST_ENOUGH, MOST_ENOUGH))
        ends = Counter(line[-1] for line in lines)
        self.ends = frozenset(c for c, n in ends.items() if n >= 0.01 * len(lines))
        self.noise_bits = _noise_bits(self.model, heldout, seed)
        self.passages = _passages(heldout, seed)
        measured = {
            n: [dict(zip(_MEASURES, row, strict=True)) for row in _measured(self, texts)]
            for n, texts in self.passages.items()
        }
        self._norms = {n: _norms(rows) for n, rows in measured.items()}
        longest = [row["longest"] for rows in measured.values() for row in rows]
        self.copy_run = int(np.clip(np.quantile(longest, 0.99) + 1, LEAST_RUN, LONGEST_RUN))
        self._copied = {
            n: float(np.mean([copied(self, words_of(text))[1] for text in texts]))
            for n, texts in self.passages.items()
        }

    @classmethod
    def from_texts(
        cls, train_texts: Sequence[str], heldout_texts: Sequence[str], *, seed: int
    ) -> Reference:
        """Learn what human text of this corpus looks like.

        Reads at most 4 MB of training text and 200 kB of held-out text, and takes about a second.

        Args:
            train_texts: what the model was trained on, without marks.
            heldout_texts: what it never saw, without marks; the human passages are cut from these.
            seed: which passages are cut.

        Raises:
            CorpusError: the training text or the held-out text is too short to be compared with.
        """
        train, heldout = _joined(train_texts, COPY_CHARS), _joined(heldout_texts, HELDOUT_CHARS)
        for name, text in (("training", train), ("held-out", heldout)):
            if (n := len(words_of(text))) < 2 * PASSAGE_WORDS[0]:
                raise CorpusError(
                    f"the {name} text holds {n} words; judging answers takes at least "
                    f"{2 * PASSAGE_WORDS[0]}. Add text to the corpus"
                )
        return cls(train, heldout, seed=seed)

    def norms(self, n_words: int) -> Norms:
        """Return what human passages of ``n_words`` words show."""
        low, high, share = self._between(n_words)
        a, b = self._norms[low], self._norms[high]
        return Norms(
            {key: a.mean[key] + share * (b.mean[key] - a.mean[key]) for key in a.mean},
            {key: a.spread[key] + share * (b.spread[key] - a.spread[key]) for key in a.spread},
        )

    def copied_frac(self, n_words: int) -> float:
        """Return the share of words that human passages of this length copy (0..1)."""
        low, high, share = self._between(n_words)
        return self._copied[low] + share * (self._copied[high] - self._copied[low])

    def _between(self, n_words: int) -> tuple[int, int, float]:
        lengths = sorted(self._norms)
        n = min(max(n_words, lengths[0]), lengths[-1])
        low = max(length for length in lengths if length <= n)
        high = min(length for length in lengths if length >= n)
        share = 0.0 if low == high else math.log(n / low) / math.log(high / low)
        return low, high, share


def score(reference: Reference, text: str, ended: bool) -> dict[str, float]:
    """Measure the parts of one text's quality, each 0..1, 1 being what human text shows.

    Args:
        reference: human text of the corpus.
        text: what the model wrote, without the prompt and without marks.
        ended: whether the model ended it by itself; False where it reached the longest answer.

    Returns:
        `fluency`: bits a character under an n-gram model of the corpus, 1 at the human mean and
        0 at that of shuffled letters; text that is far too predictable loses as well.
        `words`: share of words that the corpus holds, over the human share.
        `order`: what the order of the words is worth, in bits a character, over the human worth;
        0 for shuffled words. `repetition`: share of 4-grams of words that are not repeats, over the
        human share. `variety`: distinct words and pairs, as far from the human mean as human
        passages are. `length`: words over those of a short human line. `ending`: 1 if it ends as
        lines do. `copying`: 1 less the share of words in runs copied from the training text,
        beyond the human share. An empty text has 0 everywhere.

    Source:
        `order`: relative entropy of word order, D = H(shuffled) − H(text), Montemurro & Zanette
        (2011), Universal Entropy of Word Ordering Across Linguistic Families, PLoS ONE 6(5), here
        under a character model. `repetition`: seq-rep-n, Welleck et al. (2020), Neural Text
        Generation With Unlikelihood Training, eq. 10. `variety`: distinct-n, Li et al. (2016), A
        Diversity-Promoting Objective Function for Neural Conversation Models, here two-sided and
        at matched length.
    """
    return score_all(reference, [text], [ended])[0]


def score_all(
    reference: Reference, texts: Sequence[str], ended: Sequence[bool]
) -> list[dict[str, float]]:
    """Measure the parts of each text at once; see `score`."""
    rows = _measured(reference, texts)
    return [
        _parts(reference, text.strip(), bool(end), dict(zip(_MEASURES, row, strict=True)))
        for text, end, row in zip(texts, ended, rows, strict=True)
    ]


def quality(parts: Mapping[str, float]) -> float:
    """Combine parts into one number in 0..1: their product, each with its exponent.

    A part that is zero makes the whole zero; parts that were not measured are left out.
    """
    assert parts and all(0.0 <= value <= 1.0 for value in parts.values()), parts
    return math.prod(value ** WEIGHTS[name] for name, value in parts.items())


def copied(reference: Reference, words: Sequence[str]) -> tuple[int, float]:
    """Return the longest run copied from the training text (words) and the share in such runs.

    Runs of fewer than `SEED_WORDS` words count as none; the share is of words in runs of at least
    `Reference.copy_run` words (0..1).
    """
    runs = reference.source.run_lengths(words)
    if not len(runs):
        return 0, 0.0
    return int(runs.max()), float((runs >= reference.copy_run).mean())


def _parts(
    reference: Reference, text: str, ended: bool, found: dict[str, float]
) -> dict[str, float]:
    words = words_of(text)
    if not words:
        return {name: 0.0 for name in WEIGHTS if name != "diversity"}
    norms = reference.norms(len(words))
    human = norms.mean
    share = copied(reference, words)[1]
    usual = reference.copied_frac(len(words))
    well = not ended or text[-1] in reference.ends
    return {
        "fluency": _fluency(reference, norms, found["bits"]),
        "words": _unit(found["known"] / max(human["known"], 1e-9)),
        "order": _unit(found["gain"] / max(human["gain"] - norms.spread["gain"], 1e-3)),
        "repetition": _unit((1.0 - found["repeated"]) / max(1.0 - human["repeated"], 1e-9)),
        "variety": min(_near(norms, found, "distinct_1"), _near(norms, found, "distinct_2")),
        "length": _unit(len(words) / reference.enough_words),
        "ending": 1.0 if well else 0.7,
        "copying": _unit((1.0 - share) / max(1.0 - usual, 1e-9)),
    }


def _fluency(reference: Reference, norms: Norms, bits: float) -> float:
    human, spread = norms.mean["bits"], norms.spread["bits"]
    likely = _unit((reference.noise_bits - bits) / max(reference.noise_bits - human, 1e-9))
    # Cool samples are rightly more predictable than people, so only the far end is cut.
    below = max(0.0, (human - bits) / max(spread, 0.1) - 2.0)
    return likely * math.exp(-0.5 * (below / 2.0) ** 2)


def _near(norms: Norms, found: dict[str, float], name: str) -> float:
    away = abs(found[name] - norms.mean[name]) / max(norms.spread[name], 0.03)
    return math.exp(-0.5 * (max(0.0, away - 1.0) / 2.0) ** 2)


def _measured(reference: Reference, texts: Sequence[str]) -> Numbers:
    texts = [text.strip() for text in texts]
    variants = [version for text in texts for version in _versions(text, reference.seed)]
    bits = np.array(reference.model.bits(variants)).reshape(len(texts), 1 + SHUFFLES)
    rows = []
    for text, (own, *others) in zip(texts, bits.tolist(), strict=True):
        words = words_of(text)
        known = sum(word in reference.known_words for word in words)
        rows.append(
            [
                own,
                float(np.mean(others)) - own if words else 0.0,
                known / max(1, len(words)),
                1.0 - _distinct(words, REPEAT_WORDS),
                _distinct(words, 1),
                _distinct(words, 2),
                float(max(reference.source.run_lengths(words), default=0)),
            ]
        )
    return np.array(rows)


def _versions(text: str, seed: int) -> list[str]:
    pieces, gaps = _PIECE.findall(text), _PIECE.split(text)
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


def _unit(value: float) -> float:
    return float(min(1.0, max(0.0, value)))


def _joined(texts: Sequence[str], limit: int) -> str:
    taken, size = [], 0
    for text in texts:
        if size >= limit:
            break
        taken.append(text[: limit - size])
        size += len(taken[-1]) + 1
    return "\n".join(taken)


def _noise_bits(model: CharacterModel, heldout: str, seed: int) -> float:
    letters = np.array(list(heldout[:20_000]))
    return model.bits(["".join(generator(seed, "letters").permutation(letters))])[0]


def _passages(heldout: str, seed: int) -> dict[int, list[str]]:
    spans = [match.span() for match in _WORD.finditer(heldout)]
    found = {}
    for n in PASSAGE_WORDS:
        if 2 * n > len(spans):
            break
        # One start in each stretch of the text, so that passages overlap as little as they can.
        places = np.arange(PASSAGES) + generator(seed, "passages", n).random(PASSAGES)
        starts = (places * (len(spans) - n + 1) / PASSAGES).astype(int)
        found[n] = [heldout[spans[i][0] : spans[i + n - 1][1]] for i in starts]
    return found


def _norms(rows: Sequence[Mapping[str, float]]) -> Norms:
    columns = {name: np.array([row[name] for row in rows]) for name in _MEASURES}
    return Norms(
        {name: float(values.mean()) for name, values in columns.items()},
        {name: float(values.std()) for name, values in columns.items()},
    )
