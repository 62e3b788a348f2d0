"""Tokenizers give back what they were given and know how many bytes each id stands for."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.corpus import (
    MARKS,
    BpeTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_json,
    train_tokenizer,
)
from symbio_core.corpus.marks import exchange, without_marks
from symbio_core.errors import CorpusError

TEXTS = [
    exchange(f"Where is the {w}?", f"The {w} is here,\nmy {w}.") for w in ["king", "fool", "sea"]
]
BPE: Tokenizer = train_tokenizer("bpe", TEXTS * 5, 300)
CHAR: Tokenizer = train_tokenizer("char", TEXTS, 0)
BOTH = [BPE, CHAR]
known_text = st.lists(
    st.one_of(
        st.sampled_from(MARKS), st.text(sorted(set(without_marks("".join(TEXTS)))), max_size=8)
    )
).map("".join)
marked_text = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=12))).map("".join)


@given(marked_text)
def test_bpe_gives_back_any_text_exactly(text: str) -> None:
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert BPE.token_bytes[ids].sum() == len(text.encode())


@given(known_text)
def test_characters_give_back_any_text_of_their_alphabet(text: str) -> None:
    ids = CHAR.encode(text)
    assert CHAR.decode(ids) == text
    assert CHAR.token_bytes[ids].sum() == len(text.encode())


@given(marked_text)
def test_an_unknown_character_is_one_unknown_id(text: str) -> None:
    pieces = CharTokenizer.train(TEXTS)
    again = pieces.decode(pieces.encode(text))
    without = text
    for mark in MARKS:
        without = without.replace(mark, "")
    assert set(again) <= set(text) | {"\ufffd"}
    assert len(again) == len(text)
    assert again.count("\ufffd") == sum(c not in set("".join(pieces._characters)) for c in without)


@pytest.mark.parametrize("tokenizer", BOTH)
def test_marks_are_single_ids_and_can_be_left_out(tokenizer: Tokenizer) -> None:
    assert [tokenizer.encode(mark).tolist() for mark in MARKS] == [[0], [1], [2]]
    assert tokenizer.end_id == 2
    assert tokenizer.token_bytes[:3].tolist() == [8, 13, 15]
    ids = tokenizer.encode(exchange("king", "fool"))
    assert tokenizer.decode(ids, marks=False) == " king  fool "


@pytest.mark.parametrize("tokenizer", BOTH)
def test_a_tokenizer_survives_its_json(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_json(tokenizer.to_json())
    assert type(again) is type(tokenizer)
    assert again.to_json() == tokenizer.to_json()
    assert (again.n_vocab, again.end_id) == (tokenizer.n_vocab, tokenizer.end_id)
    np.testing.assert_array_equal(again.encode(TEXTS[1]), tokenizer.encode(TEXTS[1]))


@pytest.mark.parametrize("tokenizer", BOTH)
def test_many_texts_give_the_same_ids_as_one_by_one(tokenizer: Tokenizer) -> None:
    texts = [text * 3 for text in TEXTS] * 300
    for ids, text in zip(tokenizer.encode_many(texts), texts, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))


@pytest.mark.parametrize("tokenizer", BOTH)
def test_every_id_is_in_bounds_and_nothing_is_nothing(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.token_bytes) == tokenizer.n_vocab
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.int64
    assert tokenizer.decode([]) == ""
    tokenizer.decode(range(tokenizer.n_vocab))


def test_bpe_learns_words_of_the_text_and_no_pieces_of_marks() -> None:
    words = {BPE.decode([i]) for i in range(3, BPE.n_vocab)}
    assert " king" in words
    assert not any("|" in word and len(word) > 1 for word in words)
    assert 259 < BPE.n_vocab <= 300


def test_half_a_character_decodes_to_a_replacement_sign() -> None:
    first = BPE.encode("é")[:1]
    assert BPE.decode(first) == "\ufffd"


def test_equal_texts_give_an_equal_tokenizer_in_any_process() -> None:
    program = (
        "import sys; from symbio_core.corpus import BpeTokenizer;"
        "sys.stdout.write(BpeTokenizer.train(sys.stdin.read().split('#') * 5, 300).to_json())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], input="#".join(TEXTS), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert ran.stdout == BPE.to_json()


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "tokenizer.json is damaged"), ("[]", "does not start with the chat marks"),
     ('{"added_tokens": []}', "does not start with the chat marks"),
     ('{"added_tokens": 7}', "does not start with the chat marks"),
     ("[" * 100_000, "tokenizer.json is damaged"),
     ('{"kind": "char"}', "tokenizer.json is damaged"),
     ('{"kind": "char", "characters": [7]}', "tokenizer.json is damaged")],
)  # fmt: skip
def test_a_foreign_or_damaged_tokenizer_is_refused(text: str, told: str) -> None:
    with pytest.raises(CorpusError, match=f"{told}.*prepare the corpus again"):
        tokenizer_from_json(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model.clear(), "damaged"),
        (lambda model: model["vocab"].update({"z": 10**6}), "its ids are not 0, 1, 2"),
        (lambda model: model["vocab"].update({"z": "z"}), "damaged"),
        (lambda model: model["vocab"].update({"<|user|>": 1, "<|assistant|>": 0}), "chat marks"),
        (lambda model: model["vocab"].update({"": len(model["vocab"])}), "'' is none of a byte"),
        (
            lambda model: model["vocab"].update({"日": len(model["vocab"])}),
            "'日' is none of a byte",
        ),
        (lambda model: model["merges"].append(["a", "q"]), "merges are not of its vocabulary"),
        (lambda model: model["merges"].append("a"), "damaged"),
    ],
)
def test_a_vocabulary_that_symbio_would_not_write_is_refused(
    change: Callable[[dict[str, Any]], object], told: str
) -> None:
    described = json.loads(BPE.to_json())
    change(described["model"])
    with pytest.raises(CorpusError, match=f"tokenizer.json is .*{told}") as caught:
        tokenizer_from_json(json.dumps(described))
    assert "\n" not in str(caught.value)


def test_nothing_but_vocabulary_and_merges_of_a_file_has_a_say() -> None:
    described = json.loads(BPE.to_json())
    described["padding"] = {"strategy": {"Fixed": 10**9}}
    described["normalizer"] = {"type": "Lowercase"}
    described["model"] |= {"type": "WordLevel", "dropout": 0.5}
    assert tokenizer_from_json(json.dumps(described)).to_json() == BPE.to_json()


def test_bpe_reads_back_what_the_package_itself_wrote() -> None:
    assert BpeTokenizer.from_json(BPE.to_json()).decode(BPE.encode("über")) == "über"
