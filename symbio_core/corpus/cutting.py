"""Cuts text into documents that are small enough to be split and large enough to be read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from symbio_core.corpus.marks import END, USER, ended

SEAMS = tuple(re.compile(seam) for seam in (r"\n[^\S\n]*\n\s*", r"\n", r"(?<=[.!?])\s+", r"\s+"))
"""Where plain text may be cut, best first: between paragraphs, lines, sentences, words."""

PLAIN_BYTES = 4096
"""Largest document cut out of a running text (bytes)."""

FINEST = 64
"""A cut never aims at less than this (bytes)."""


def n_bytes(text: str) -> int:
    """Return the length of ``text`` in UTF-8 (bytes)."""
    return len(text.encode())


def grain(total: int) -> int:
    """Return the largest document (bytes) with which a split of 1% still gets one."""
    return max(FINEST, total // 100)


def pack(pieces: Iterable[str], size: int) -> list[str]:
    """Join neighbours into runs of at most ``size`` bytes; a larger piece stays alone."""
    runs: list[list[str]] = []
    room = 0
    for piece in pieces:
        length = n_bytes(piece)
        if not runs or length > room:
            runs.append([])
            room = size
        runs[-1].append(piece)
        room -= length
    return ["".join(run) for run in runs]


def cut(text: str, size: int, seams: Sequence[re.Pattern[str]] = SEAMS) -> list[str]:
    """Cut running text into pieces of at most ``size`` bytes at the best seams there are.

    Args:
        text: any text.
        size: largest piece (UTF-8 bytes), at least 4, so that every character fits.
        seams: where it may be cut, best first; without any, it is cut between characters.

    Returns:
        Pieces whose concatenation is ``text``.
    """
    if n_bytes(text) <= size:
        return [text]
    if not seams:
        step = size // 4
        return [text[start : start + step] for start in range(0, len(text), step)]
    ends = [found.end() for found in seams[0].finditer(text)]
    parts = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if a < b]
    small = [piece for part in parts for piece in cut(part, size, seams[1:])]
    return pack(small, size)


def plain_documents(texts: Sequence[str]) -> list[str]:
    """Cut running texts (one a file) into documents at paragraph boundaries.

    Documents hold at most 4 kB and at most a hundredth of the corpus; none spans two files.
    """
    size = min(PLAIN_BYTES, grain(sum(map(n_bytes, texts))))
    pieces = (piece.strip() for text in texts for piece in cut(text, size))
    return [piece for piece in pieces if piece]


def chat_documents(texts: Sequence[str]) -> list[str]:
    """Cut marked texts into conversations, each ending with the end mark.

    A conversation longer than a hundredth of the corpus is cut where the user speaks.
    """
    size = grain(sum(map(n_bytes, texts)))
    talks = (talk for text in texts for talk in re.split(f"(?<={re.escape(END)})", text.rstrip()))
    return [
        ended(part.lstrip())
        for talk in talks
        for part in pack(re.split(f"(?={re.escape(USER)})", talk), size)
        if part.replace(END, "").strip()
    ]
