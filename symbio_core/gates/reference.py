"""What held-out human text of a corpus shows at every length. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from symbio_core.errors import CorpusError
from symbio_core.gates.measures import PIECE, WORD, Measures, Training, words_of
from symbio_core.gates.ngram import CharacterModel
from symbio_core.streams import generator

TRAIN_CHARS = 8_000_000
"""Training text that is read (characters)."""
HELDOUT_CHARS = 200_000
"""Held-out text that human passages are cut from (characters)."""
PASSAGE_WORDS = (3, 6, 12, 24, 48, 96, 192)
"""Lengths at which human text is measured (words); others are interpolated."""
PASSAGES = 48
"""Human passages of each length."""
LEAST_RUN, MOST_RUN = 8, 32
"""A copied run counts from one word more than what human text shows, kept within these (words)."""
HUMAN_RUN_QUANTILE, HUMAN_RUN_WORDS = 0.98, 48
"""What human text shows: this quantile of the longest runs of passages of up to so many words."""
LEAST_ENOUGH, MOST_ENOUGH = 4, 16
"""Words of a short human answer (one in four is shorter), kept within these; an answer of fewer
words is too short."""
COMMON_END_FRAC, COMMON_END_LIFT = 0.01, 1.2
"""A character is a usual ending if this share of human texts end on it, and this many times as many
as of their words do: a letter is not, though many a verse ends on an e."""
LEAST_ENDS = 20
"""Texts whose ends are looked at; where there are fewer, their paragraphs or else their lines."""
LEAST_SPREAD = {"bits": 0.1, "gain": 0.05, "paired": 0.05, "pasted": 0.05}
"""Least standard deviation that people are taken to have; 0.03 for measures not named here."""


@dataclass(frozen=True, slots=True)
class Norms:
    """What human passages of one length show."""

    mean: Measures
    spread: Measures
    """Standard deviation of each measure."""
    copied_frac: float
    """Share of words inside copied runs (0..1)."""


class Reference:
    """Human text of a corpus in the form that answers are compared with; make it once."""

    def __init__(
        self,
        train: str,
        heldout: str,
        ends: frozenset[str],
        answer_words: Sequence[int],
        *,
        seed: int,
    ) -> None:
        """Measure ``heldout`` with what is known from ``train``; `from_texts` makes these."""
        self.seed = seed
        self.training = Training(train)
        short = np.quantile(answer_words, 0.25)
        self.enough_words = float(np.clip(short, LEAST_ENOUGH, MOST_ENOUGH))
        self.words_a_char = len(words_of(heldout)) / len(heldout)
        self.ends = ends
        self.noise_bits = _noise_bits(self.training.model, heldout, seed)
        self.passages = _passages(heldout, seed)
        found = {n: self.training.measure(texts, seed) for n, texts in self.passages.items()}
        longest = [
            row["longest"] for n, rows in found.items() if n <= HUMAN_RUN_WORDS for row in rows
        ]
        self.copy_run = int(
            np.clip(np.quantile(longest, HUMAN_RUN_QUANTILE) + 1, LEAST_RUN, MOST_RUN)
        )
        self._norms = {n: self._norms_of(self.passages[n], rows) for n, rows in found.items()}

    @classmethod
    def from_texts(
        cls,
        train_texts: Sequence[str],
        heldout_texts: Sequence[str],
        *,
        seed: int,
        answers: Sequence[str] = (),
    ) -> Reference:
        """Learn what human text of this corpus looks like.

        Reads at most 8 MB of training text and 200 kB of held-out text; takes one to three seconds.

        Args:
            train_texts: what the model was trained on, without marks.
            heldout_texts: what it never saw, without marks; the human passages are cut from these.
            seed: which passages are cut, and how their words are shuffled.
            answers: what people wrote where a model answers, without marks; it tells how long an
                answer should be. Empty takes the held-out texts.

        Raises:
            CorpusError: the training text or the held-out text is too short to be compared with.
        """
        train, heldout = _joined(train_texts, TRAIN_CHARS), _joined(heldout_texts, HELDOUT_CHARS)
        for name, text in (("training", train), ("held-out", heldout)):
            if (n := len(words_of(text))) < 2 * PASSAGE_WORDS[0]:
                raise CorpusError(
                    f"the {name} text holds {n} words; judging answers takes at least "
                    f"{2 * PASSAGE_WORDS[0]}. Add text to the corpus"
                )
        lengths = [n for text in answers or heldout_texts if (n := len(words_of(text)))]
        return cls(train, heldout, _usual_ends(heldout_texts), lengths, seed=seed)

    def norms(self, n_words: int) -> Norms:
        """Return what human passages of ``n_words`` words show, between the measured lengths."""
        lengths = sorted(self._norms)
        n = min(max(n_words, lengths[0]), lengths[-1])
        low = max(length for length in lengths if length <= n)
        high = min(length for length in lengths if length >= n)
        share = 0.0 if low == high else math.log(n / low) / math.log(high / low)
        a, b = self._norms[low], self._norms[high]
        return Norms(
            {key: _between(a.mean[key], b.mean[key], share) for key in a.mean},
            {key: _between(a.spread[key], b.spread[key], share) for key in a.spread},
            _between(a.copied_frac, b.copied_frac, share),
        )

    def copied(self, words: Sequence[str]) -> tuple[int, float]:
        """Return the longest run copied from the training text (words) and the share in such runs.

        Runs of fewer than four words count as none; the share is of words in runs of at least
        `copy_run` words (0..1).
        """
        runs = self.training.source.run_lengths(words)
        if not len(runs):
            return 0, 0.0
        return int(runs.max()), float((runs >= self.copy_run).mean())

    def _norms_of(self, texts: Sequence[str], rows: Sequence[Measures]) -> Norms:
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return Norms(
            {name: float(values.mean()) for name, values in columns.items()},
            {
                name: max(float(values.std()), LEAST_SPREAD.get(name, 0.03))
                for name, values in columns.items()
            },
            float(np.mean([self.copied(words_of(text))[1] for text in texts])),
        )


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def _joined(texts: Sequence[str], limit: int) -> str:
    taken, size = [], 0
    for text in texts:
        if size >= limit:
            break
        taken.append(text[: limit - size])
        size += len(taken[-1]) + 1
    return "\n".join(taken)


def _usual_ends(texts: Sequence[str]) -> frozenset[str]:
    for seam in (r"\Z", r"\n\s*\n", r"\n"):
        wholes = [part.strip() for text in texts for part in re.split(seam, text)]
        ends = Counter(whole[-1] for whole in wholes if whole)
        if ends.total() >= LEAST_ENDS:
            break
    anywhere = Counter(piece[-1] for text in texts for piece in PIECE.findall(text))
    lift = COMMON_END_LIFT * ends.total() / max(1, anywhere.total())
    least = COMMON_END_FRAC * ends.total()
    return frozenset(end for end, n in ends.items() if n >= max(least, lift * anywhere[end]))


def _noise_bits(model: CharacterModel, heldout: str, seed: int) -> float:
    letters = np.array(list(heldout[:20_000]))
    return model.bits(["".join(generator(seed, "letters").permutation(letters))])[0]


def _passages(heldout: str, seed: int) -> dict[int, list[str]]:
    spans = [match.span() for match in WORD.finditer(heldout)]
    found = {}
    for n in PASSAGE_WORDS:
        if 2 * n > len(spans):
            break
        # One start in each stretch of the text, so that passages overlap as little as they can.
        places = np.arange(PASSAGES) + generator(seed, "passages", n).random(PASSAGES)
        starts = (places * (len(spans) - n + 1) / PASSAGES).astype(int)
        found[n] = [heldout[spans[i][0] : spans[i + n - 1][1]] for i in starts]
    return found
