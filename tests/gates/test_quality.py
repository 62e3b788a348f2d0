"""What a text's parts say about people, machines, noise and copies."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.errors import CorpusError
from symbio_core.gates.copying import Source
from symbio_core.gates.measures import words_of
from symbio_core.gates.ngram import CharacterModel
from symbio_core.gates.quality import WEIGHTS, Reference, quality, score

CORPUS = "plays"


def part(library: SimpleNamespace, text: str, name: str, *, ended: bool = False) -> float:
    return score(library.reference(CORPUS), text, ended)[name]


def human(library: SimpleNamespace) -> str:
    texts = library.written(CORPUS, "human")
    reference = library.reference(CORPUS)
    return max(texts, key=lambda text: quality(score(reference, text, False)))


def test_probabilities_of_the_next_character_sum_to_one() -> None:
    text = "the cat sat on the mat and the rat sat on the cat. " * 3
    model = CharacterModel(text, order=4)
    before = "the ca"
    at = model.bits([before])[0] * len(before)
    signs = sorted(set(text)) + [chr(0x4E00 + i) for i in range(256 - len(set(text)))]
    bits = np.array(model.bits([before + sign for sign in signs])) * (len(before) + 1) - at
    assert np.exp2(-bits).sum() == pytest.approx(1.0)


def test_texts_measured_together_get_the_bits_they_get_alone() -> None:
    model = CharacterModel("a rose is a rose is a rose\n" * 9)
    texts = ["a rose", "", "is a", "zzz", "rose is"]
    assert model.bits(texts) == [pytest.approx(model.bits([text])[0]) for text in texts]


@given(
    st.lists(st.sampled_from("abc"), max_size=40),
    st.lists(st.sampled_from("abcd"), max_size=25),
)
def test_copied_runs_are_those_of_a_plain_search(source: list[str], words: list[str]) -> None:
    inside = "".join(source)
    wanted = [0] * len(words)
    for start in range(len(words)):
        for stop in range(start + 4, len(words) + 1):
            if "".join(words[start:stop]) in inside:
                for i in range(start, stop):
                    wanted[i] = max(wanted[i], stop - start)
    assert Source(source).run_lengths(words).tolist() == wanted


@settings(deadline=None)  # the first example makes the reference
@given(st.text(max_size=120), st.booleans())
def test_every_part_of_any_text_lies_between_zero_and_one(
    library: SimpleNamespace, text: str, ended: bool
) -> None:
    parts = score(library.reference(CORPUS), text, ended)
    assert all(0.0 <= value <= 1.0 for value in parts.values())
    assert 0.0 <= quality(parts) <= 1.0
    assert bool(words_of(text)) or quality(parts) == 0.0


@pytest.mark.parametrize("text", ["", "  \n", "!?… —", "<|user|>"[:2]])
def test_a_text_without_words_is_worth_nothing(library: SimpleNamespace, text: str) -> None:
    assert set(score(library.reference(CORPUS), text, True).values()) == {0.0}


def test_one_part_of_zero_makes_the_whole_zero() -> None:
    for name in WEIGHTS:
        assert quality({**dict.fromkeys(WEIGHTS, 1.0), name: 0.0}) == 0.0


def test_the_same_text_always_gets_the_same_parts(library: SimpleNamespace) -> None:
    reference, text = library.reference(CORPUS), human(library)
    assert score(reference, text, False) == score(reference, text, False)


def test_shuffled_words_lose_their_order_and_nothing_else(library: SimpleNamespace) -> None:
    texts = {w: library.written(CORPUS, w) for w in ("human", "shuffled")}
    order = {w: np.mean([part(library, t, "order") for t in ts]) for w, ts in texts.items()}
    words = {w: np.mean([part(library, t, "words") for t in ts]) for w, ts in texts.items()}
    assert order["human"] > 0.85
    assert order["shuffled"] < 0.25
    assert words["shuffled"] == pytest.approx(words["human"], abs=0.02)


def test_a_passage_said_three_times_is_repetition(library: SimpleNamespace) -> None:
    text = " ".join(human(library).split()[:10])
    assert part(library, text, "repetition") > 0.95
    assert part(library, f"{text} {text} {text}", "repetition") < 0.5


def test_too_much_variety_is_as_bad_as_too_little(library: SimpleNamespace) -> None:
    reference = library.reference(CORPUS)
    words = list(dict.fromkeys(words_of(" ".join(library.corpora[CORPUS]()[1]))))
    usual = reference.norms(192).mean["distinct_1"]
    assert usual < 0.8
    always_new = " ".join(words[:192])
    always_old = " ".join([*words[:40], *words[:40], *words[:40], *words[:40], *words[:32]])
    for text in (always_new, always_old):
        assert part(library, text, "variety") < 0.2


def test_letters_at_random_are_neither_fluent_nor_words(library: SimpleNamespace) -> None:
    for text in library.written(CORPUS, "letters")[:9]:
        assert part(library, text, "fluency") < 0.1
        assert part(library, text, "words") < 0.4


def test_text_copied_from_training_is_worth_nothing(library: SimpleNamespace) -> None:
    copies, people = library.written(CORPUS, "copied"), library.written(CORPUS, "human")
    assert np.mean([part(library, text, "copying") for text in copies]) < 0.05
    assert np.mean([part(library, text, "copying") for text in people]) > 0.95


def test_copies_are_found_whatever_their_punctuation_and_case(library: SimpleNamespace) -> None:
    loud = library.written(CORPUS, "copied")[0].upper().replace(" ", " -- ")
    assert part(library, loud, "copying") == 0.0


def test_an_answer_cut_short_or_ended_oddly_loses(library: SimpleNamespace) -> None:
    assert part(library, "My", "length", ended=True) < 0.5
    assert part(library, "!!! ... -- ! My ! -- ... !!!", "length") < 0.5
    assert part(library, human(library), "length") == 1.0
    assert part(library, "We shall go to the", "ending", ended=True) < 1.0
    assert part(library, "We shall go to the", "ending", ended=False) == 1.0
    assert part(library, "We shall go to the field.", "ending", ended=True) == 1.0


def test_languages_without_spaces_are_counted_by_characters() -> None:
    assert words_of("我们走吧。 Let's go") == ["我", "们", "走", "吧", "let's", "go"]
    choices = product("你我他她", "今昨明", "山水城家", "鸟鱼猫狗马牛")
    sentences = [f"{who}{day}在{place}里看见一只{what}。" for who, day, place, what in choices]
    rng = np.random.default_rng(0)
    texts = ["".join(rng.permutation(sentences)[:12]) for _ in range(40)]
    reference = Reference.from_texts(texts[:32], texts[32:], seed=0)
    good = "他明在山里看见一只鸟。你昨在家里看见一只马。"
    mixed = "".join(rng.permutation(list(good)))
    order = {text: score(reference, text, False)["order"] for text in (good, mixed)}
    assert order[good] > 0.8
    assert order[mixed] < 0.4


@pytest.mark.parametrize("texts", [[], ["one two three"], ["...", "!"]])
def test_too_little_text_is_refused_in_one_line(texts: list[str]) -> None:
    plenty = ["there is always one more word to be said about it"] * 4
    for train, heldout in ((texts, plenty), (plenty, texts)):
        with pytest.raises(CorpusError, match="Add text") as caught:
            Reference.from_texts(train, heldout, seed=0)
        assert "\n" not in str(caught.value)


def test_a_tiny_corpus_still_gives_a_reference() -> None:
    plenty = ["there is always one more word to be said about it"]
    reference = Reference.from_texts(plenty, ["one more word is always said there"], seed=0)
    assert 0.0 <= quality(score(reference, "there is one more word", True)) <= 1.0
