"""Splits documents into train, validation and confirm. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from symbio_core.corpus.cutting import n_bytes
from symbio_core.corpus.documents import Corpus
from symbio_core.errors import CorpusError
from symbio_core.streams import seed_for

SplitName = Literal["train", "validation", "confirm"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "confirm")


@dataclass(frozen=True, slots=True)
class Splits:
    """Three disjoint parts of a corpus, each in reading order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """What search and gates look at."""
    confirm: tuple[str, ...]
    """What only the confirmation looks at."""

    def of(self, name: SplitName) -> tuple[str, ...]:
        """Return the documents of the split called ``name``."""
        documents: tuple[str, ...] = getattr(self, name)
        return documents


def split(corpus: Corpus, validation_frac: float, confirm_frac: float, seed: int) -> Splits:
    """Split a corpus by documents, so that equal texts are never on two sides.

    A document's place follows from its text and the seed, not from where it stands, and parts are
    measured in bytes, not in documents. A document larger than half of a held-out part goes to
    that part only if nothing smaller is left for it.

    Args:
        corpus: checked text.
        validation_frac: share for validation (0..1).
        confirm_frac: share for the confirmation (0..1).
        seed: another seed gives another split of the same text.

    Raises:
        CorpusError: there are fewer than three different documents.
    """
    assert min(validation_frac, confirm_frac) > 0
    assert validation_frac + confirm_frac < 1
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in corpus.documents]
    sizes: dict[str, int] = {}
    for digest, text in zip(digests, corpus.documents, strict=True):
        sizes[digest] = sizes.get(digest, 0) + n_bytes(text)
    if len(sizes) < len(SPLITS):
        raise CorpusError(
            f"corpus '{corpus.name}' has {len(sizes)} different document(s) in {corpus.n_bytes} "
            "bytes; train, validation and confirm need one each. Add text"
        )
    left = dict(sorted(sizes.items(), key=lambda item: (seed_for(seed, "split", item[0]), item[0])))
    held_out: dict[str, set[str]] = {}
    total = sum(sizes.values())
    for name, frac, spare in (("validation", validation_frac, 2), ("confirm", confirm_frac, 1)):
        held_out[name] = _take(left, frac * total, spare)
    placed = list(zip(digests, corpus.documents, strict=True))
    return Splits(
        train=tuple(text for digest, text in placed if digest in left),
        validation=tuple(text for digest, text in placed if digest in held_out["validation"]),
        confirm=tuple(text for digest, text in placed if digest in held_out["confirm"]),
    )


def _take(left: dict[str, int], wanted: float, spare: int) -> set[str]:
    """Move groups with about ``wanted`` bytes out of ``left``, where ``spare`` groups stay."""
    taken: set[str] = set()
    have = 0
    for digest, size in left.items():
        if have >= wanted or len(left) - len(taken) <= spare:
            break
        if size <= max(wanted / 2, wanted - have):
            taken.add(digest)
            have += size
    taken = taken or {min(left, key=lambda digest: left[digest])}
    for digest in taken:
        del left[digest]
    return taken
