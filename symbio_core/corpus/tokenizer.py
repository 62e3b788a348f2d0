"""Two tokenizers behind one small interface: byte-level BPE, and one token a character. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, Protocol, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from symbio_core.corpus.marks import END, MARKS, SPLIT_AT_MARKS
from symbio_core.errors import CorpusError

Ids = NDArray[np.int64]
UNKNOWN = "\ufffd"
"""What a character tokenizer writes for a character that it has never seen."""
_BATCH = 512


class Tokenizer(Protocol):
    """What the rest of symbio knows of a tokenizer; the chat marks have ids 0, 1 and 2."""

    n_vocab: int
    """Number of ids."""
    end_id: int
    """Id of the end mark."""
    token_bytes: Ids
    """UTF-8 length of each id, shape (n_vocab,), bytes; a mark counts its written form."""

    def encode(self, text: str) -> Ids:
        """Return the ids of ``text``, shape (n,)."""

    def encode_many(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of each text; faster than one by one."""

    def decode(self, ids: Iterable[int] | Ids, *, marks: bool = True) -> str:
        """Return the text of ``ids``, with or without the chat marks; broken UTF-8 becomes �."""

    def to_json(self) -> str:
        """Return everything needed to make this tokenizer again."""


class BpeTokenizer:
    """Byte-level BPE: every text round-trips exactly, whatever it was trained on."""

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._model = model
        self.n_vocab: int = model.get_vocab_size()
        self.end_id = MARKS.index(END)
        self._bytes = _bytes_of_ids(model.get_vocab())
        self.token_bytes: Ids = np.array([len(word) for word in self._bytes], dtype=np.int64)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn merges from ``texts``; equal texts give an equal tokenizer.

        Args:
            texts: the train split, never a held-out one.
            vocab_size: ids wanted, marks and the 256 bytes included; a small text yields fewer.
        """
        model = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(MARKS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        # Marks are left out here, or their letters would be merged into tokens nobody needs.
        said = (part for text in texts for part in SPLIT_AT_MARKS.split(text) if part not in MARKS)
        model.train_from_iterator(said, trainer)
        return cls(model)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make the tokenizer that `to_json` described; only its vocabulary and merges are read.

        Raises:
            CorpusError: they are none of a byte-level BPE.
        """
        try:
            described = json.loads(text)["model"]
            vocab = {str(word): int(number) for word, number in described["vocab"].items()}
            merges = [(str(left), str(right)) for left, right in described["merges"]]
            # Looked at before the package sees it, which takes some of it and panics over some.
            _bytes_of_ids(vocab)
            if not all(vocab.keys() >= {left, right, left + right} for left, right in merges):
                raise ValueError("its merges are not of its vocabulary")
            model = _byte_level(models.BPE(vocab, merges))
        except Exception as error:  # the package raises bare ones
            raise _is_damaged(error) from error
        model.add_special_tokens(list(MARKS))
        return cls(model)

    def to_json(self) -> str:
        """Return the JSON that the package `tokenizers` reads (`tokenizer.json`)."""
        return self._model.to_str()

    def encode(self, text: str) -> Ids:
        """Return the ids of ``text``, shape (n,)."""
        return np.array(self._model.encode(text).ids, dtype=np.int64)

    def encode_many(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of each text, on all cores."""
        source = iter(texts)
        while batch := list(islice(source, _BATCH)):
            for found in self._model.encode_batch_fast(batch):
                yield np.array(found.ids, dtype=np.int64)

    def decode(self, ids: Iterable[int] | Ids, *, marks: bool = True) -> str:
        """Return the text of ``ids``, with or without the chat marks."""
        first = 0 if marks else len(MARKS)
        said = b"".join(self._bytes[i] for i in ids if i >= first)
        return said.decode("utf-8", errors="replace")


class CharTokenizer:
    """One token a character; a character that was not trained on becomes one unknown id."""

    def __init__(self, characters: Sequence[str]) -> None:
        self._characters = sorted(set(characters))
        self._codes = np.array([ord(c) for c in self._characters], dtype=np.int64)
        self._unknown = len(MARKS)
        self._words = [*MARKS, UNKNOWN, *self._characters]
        self.n_vocab = len(self._words)
        self.end_id = MARKS.index(END)
        self.token_bytes: Ids = np.array([len(w.encode()) for w in self._words], dtype=np.int64)

    @classmethod
    def train(cls, texts: Iterable[str]) -> Self:
        """Take every character that occurs in ``texts`` outside the marks."""
        seen: set[str] = set()
        for text in texts:
            seen.update(*(part for part in SPLIT_AT_MARKS.split(text) if part not in MARKS))
        return cls(sorted(seen))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make the tokenizer that `to_json` described.

        Raises:
            CorpusError: it names no characters.
        """
        characters = json.loads(text).get("characters")
        if not isinstance(characters, str):
            raise _is_damaged("it names no characters")
        return cls(characters)

    def to_json(self) -> str:
        """Return kind and characters as JSON."""
        return json.dumps({"kind": "char", "characters": "".join(self._characters)})

    def encode(self, text: str) -> Ids:
        """Return the ids of ``text``, shape (n,)."""
        parts = [part for part in SPLIT_AT_MARKS.split(text) if part]
        ids = [
            np.array([MARKS.index(part)]) if part in MARKS else self._plain(part) for part in parts
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *ids])

    def _plain(self, text: str) -> Ids:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64)
        if not len(self._codes):
            return np.full(len(codes), self._unknown, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        known = self._codes[places] == codes
        ids: Ids = np.where(known, places + self._unknown + 1, self._unknown)
        return ids

    def encode_many(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of each text."""
        return map(self.encode, texts)

    def decode(self, ids: Iterable[int] | Ids, *, marks: bool = True) -> str:
        """Return the text of ``ids``, with or without the chat marks."""
        first = 0 if marks else len(MARKS)
        return "".join(self._words[i] for i in ids if i >= first)


def train_tokenizer(
    kind: Literal["bpe", "char"], texts: Iterable[str], vocab_size: int
) -> Tokenizer:
    """Train the tokenizer that the settings ask for on the train split."""
    return BpeTokenizer.train(texts, vocab_size) if kind == "bpe" else CharTokenizer.train(texts)


def tokenizer_from_json(text: str) -> Tokenizer:
    """Make a tokenizer of either kind from its JSON.

    Raises:
        CorpusError: ``text`` describes no tokenizer of symbio.
    """
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _is_damaged(error) from error
    kind = described.get("kind") if isinstance(described, dict) else None
    if kind == "char":
        return CharTokenizer.from_json(text)
    added = described.get("added_tokens") if isinstance(described, dict) else None
    tokens = added if isinstance(added, list) else []
    if [token.get("content") for token in tokens if isinstance(token, dict)] != list(MARKS):
        raise CorpusError(
            "tokenizer.json does not start with the chat marks, so it was not made by symbio; "
            "prepare the corpus again to train one"
        )
    return BpeTokenizer.from_json(text)


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _is_damaged(why: object) -> CorpusError:
    told = " ".join(str(why).split())[:200]
    return CorpusError(
        f"tokenizer.json is damaged ({told}); remove it and prepare the corpus again"
    )


def _bytes_of_ids(vocab: dict[str, int]) -> list[bytes]:
    """Return the bytes behind each id of a byte-level vocabulary.

    Byte-level BPE writes each byte as one printable character: printable ones stand for
    themselves, the others follow in order from U+0100 (Source: Radford et al. 2019, GPT-2,
    section 2.2 and its published encoder).

    Raises:
        ValueError: ids are left out, a mark has another, or a word is none of bytes.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
    words = sorted(vocab, key=lambda word: vocab[word])
    if [vocab[word] for word in words] != list(range(len(words))):
        raise ValueError("its ids are not 0, 1, 2 and so on")
    if words[: len(MARKS)] != list(MARKS):
        raise ValueError("its first ids are not the chat marks")
    if strange := [w for w in words if w not in MARKS and not (w and byte_of.keys() >= set(w))]:
        raise ValueError(f"{strange[0]!r} is none of a byte-level vocabulary")
    return [word.encode() if word in MARKS else bytes(byte_of[c] for c in word) for word in words]
