"""Corpora in which a situation is planted: ten repeated lines, and a rule that is soon learned."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import wrap
from typing import Any

from symbio_core.benches.detectors.lives import tiny
from symbio_core.config import RunConfig
from symbio_core.corpus.cutting import pack
from symbio_core.corpus.documents import load_documents
from symbio_core.streams import generator

LINES, LEAST, LONGEST = 10, 40, 70
"""Lines that are repeated, and the shortest and the longest of them (characters)."""
OTHERS, MORE = 110, 1.1
"""Documents of other text at most, and copies of the ten lines over these: more than half."""
MARK = re.compile(r"<\|[^|<>\s]*\|>")
LETTERS = "abcdefghijklmnopqrstuvw "
"""A cycle: each letter is followed by the next."""
RULED = 0.8
"""Share of letters that are; the rest is drawn at random."""
DOCUMENTS, LENGTH = 350, 400
"""Size of the text of cycles (documents, letters in each)."""


def ten_lines(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Write a corpus of ten repeated lines beside other text; return its settings.

    Every copy of the ten lines is a document, and equal documents stay on one side of a split:
    together they are too large for a held-out part, so they are all of the training text.

    Args:
        config: its corpus gives the lines, its seed chooses them.
        folder: the corpus is written below it.
    """
    texts = (MARK.sub(" ", text) for text in load_documents(tiny(config).data).documents)
    lines = [line for text in texts for line in wrap(text, LONGEST) if len(line) >= LEAST]
    drawn = [lines[i] for i in generator(config.seed, "ten lines").permutation(len(lines))]
    block = "\n".join(drawn[:LINES])
    home = folder / "ten-lines"
    home.mkdir()
    others = pack([line + "\n" for line in drawn[LINES:]], len(block))[:OTHERS]
    copies = [block] * round(MORE * len(others))
    for name, documents in (("other", others), ("block", copies)):
        for index, text in enumerate(documents):
            (home / f"{name}{index:03}.txt").write_text(text, encoding="utf-8")
    halves = {"data.validation_frac": 0.25, "data.confirm_frac": 0.25}
    return {
        "data.corpus": str(home), "data.format": "plain", "data.max_bytes": None, **halves
    }  # fmt: skip


def cycles(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Write a text with one simple rule, which is soon learned out; return its settings."""
    rng, n = generator(config.seed, "cycles"), len(LETTERS)
    texts = []
    for _ in range(DOCUMENTS):
        drawn, is_ruled = rng.integers(n, size=LENGTH), rng.random(LENGTH) < RULED
        for index in range(1, LENGTH):
            if is_ruled[index]:
                drawn[index] = (drawn[index - 1] + 1) % n
        texts.append("".join(LETTERS[i] for i in drawn))
    path = folder / "cycles.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return {"data.corpus": str(path), "data.format": "plain"}
