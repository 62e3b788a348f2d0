"""Splits are disjoint, whole, about as large as asked, and follow from the text and a seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.corpus import Corpus, Splits, split
from symbio_core.corpus.splits import SPLITS
from symbio_core.errors import CorpusError

documents = st.lists(st.text(min_size=1, max_size=60), min_size=3, max_size=60).filter(
    lambda texts: len(set(texts)) >= 3
)
fractions = st.floats(0.01, 0.25)


def corpus_of(texts: list[str]) -> Corpus:
    return Corpus("c", tuple(texts), "plain", sum(len(t.encode()) for t in texts), "")


def parts(splits: Splits) -> list[tuple[str, ...]]:
    return [splits.of(name) for name in SPLITS]


@given(documents, fractions, fractions, st.integers(0, 9))
def test_every_document_is_in_one_split_and_equal_texts_are_together(
    texts: list[str], validation: float, confirm: float, seed: int
) -> None:
    splits = split(corpus_of(texts), validation, confirm, seed)
    assert all(parts(splits))
    assert Counter(text for part in parts(splits) for text in part) == Counter(texts)
    train, held_out, confirmed = (set(part) for part in parts(splits))
    assert not train & held_out
    assert not train & confirmed
    assert not held_out & confirmed


@given(documents, st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_split_follows_from_texts_and_seed_not_from_their_order(
    texts: list[str], seed: int, random: object
) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordered, mixed = (split(corpus_of(t), 0.1, 0.1, seed) for t in (texts, shuffled))
    # Which documents fit depends on their order only through equal sizes, never on their place.
    assert [Counter(part) for part in parts(ordered)] == [Counter(part) for part in parts(mixed)]


def test_another_seed_gives_another_split() -> None:
    corpus = corpus_of([f"document {i}" for i in range(100)])
    assert split(corpus, 0.1, 0.1, 0) == split(corpus, 0.1, 0.1, 0)
    assert split(corpus, 0.1, 0.1, 0).validation != split(corpus, 0.1, 0.1, 1).validation


def test_shares_are_shares_of_bytes() -> None:
    corpus = corpus_of([f"{i} " + "x" * (i * 37 % 400) for i in range(500)])
    splits = split(corpus, 0.06, 0.1, 3)
    share = [sum(map(len, part)) / corpus.n_bytes for part in parts(splits)]
    assert share == pytest.approx([0.84, 0.06, 0.1], abs=0.01)


def test_a_giant_document_is_trained_on_rather_than_held_out() -> None:
    texts = ["g" * 10_000, *(f"small {i}" for i in range(200))]
    for seed in range(20):
        assert texts[0] in split(corpus_of(texts), 0.06, 0.06, seed).train


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"has 2 different document.*need one each. Add text"):
        split(corpus_of(["a", "b", "a"]), 0.1, 0.1, 0)
