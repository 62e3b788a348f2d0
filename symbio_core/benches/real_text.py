"""Real text of three kinds from what is installed, and writers of every grade for the battery."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from symbio_core.corpus import Splits, without_marks
from symbio_core.errors import CorpusError
from symbio_core.streams import generator

CORPORA = ("plays", "prose", "code")
LEAST_BYTES = 400_000
"""A source with less text is not the one that was meant."""
SCRIPTS = 60
"""Modules that code is taken from."""
LEAST_WORDS = 15
"""Shorter paragraphs and functions are left out."""
WRITERS = ("human", "trained", "undertrained", "shuffled", "letters", "repeated", "nothing")
"""From the best to the worst."""
BROKEN = ("reciting", "collage", "loop", "echo", "stock answer", "two words", "punctuation")
"""Degenerate models, each of which must stay below a trained one. A collage is training text in
pieces of five words."""


def write_corpora(folder: Path) -> dict[str, str]:
    """Make the three corpora ready: plays (the demo corpus), prose and source code.

    Prose is Python's own reference manual as its `help` shows it and what the modules of its
    library say about themselves, a paragraph a document; code are the functions of the library.
    Both come with the interpreter.

    Returns:
        What `data.corpus` must be for each.

    Raises:
        CorpusError: the interpreter was installed without its library's sources or topics.
    """
    found = {"plays": "shakespeare"}
    for name, texts in (("prose", manual()), ("code", functions())):
        whole = "\n\n".join(dict.fromkeys(t for t in texts if len(t.split()) >= LEAST_WORDS))
        if len(whole) < LEAST_BYTES:
            raise CorpusError(
                f"{name}: Python's library at '{_library()}' holds {len(whole)} characters of it; "
                f"{LEAST_BYTES} are wanted. Take a Python installed with its sources"
            )
        (folder / f"{name}.txt").write_text(whole, encoding="utf-8")
        found[name] = str(folder / f"{name}.txt")
    return found


def manual() -> list[str]:
    """Return the paragraphs of Python's reference manual and of its library's docstrings."""
    source = _library() / "pydoc_data" / "topics.py"
    if not source.is_file():
        return []
    tree = ast.parse(source.read_text("utf-8"))
    pages = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    texts = [page for page in pages if isinstance(page, str)]
    for path in sorted(_library().glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    return [part.strip() for page in texts for part in re.split(r"\n\s*\n", page)]


def functions() -> list[str]:
    """Return the functions of Python's standard library, without blank lines."""
    found = []
    for path in sorted(_library().glob("*.py"))[:SCRIPTS]:
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
                found.append("\n".join(line for line in lines if line.strip()).strip())
    return found


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def passages(documents: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Cut passages of so many words out of documents, evenly spread, no word in two of them."""
    text = "\n".join(without_marks(document) for document in documents)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    spare = len(spans) - sum(lengths)
    if spare < 0:
        raise CorpusError(
            f"held-out text holds {len(spans)} words; {sum(lengths)} are wanted. Raise "
            "data.confirm_frac"
        )
    starts = np.cumsum([0, *lengths[:-1]]) + np.linspace(0, spare, len(lengths)).astype(int)
    return [text[spans[i][0] : spans[i + n - 1][1]] for i, n in zip(starts, lengths, strict=True)]


def write(
    writer: str, splits: Splits, prompts: Sequence[str], lengths: Sequence[int], seed: int
) -> list[str]:
    """Write one text a length as a person (from text that nobody read) or a broken machine would.

    Args:
        writer: one of `WRITERS` that is no model, or of `BROKEN`.
        splits: people's texts come from `confirm`, recited ones from `train`.
        prompts: what each text answers.
        lengths: words of each text.
        seed: what is drawn.

    Raises:
        CorpusError: there is too little text.
    """
    rng = generator(seed, "writer", writer)
    human = passages(splits.confirm, lengths)
    if writer == "human":
        return human
    if writer == "shuffled":
        return [" ".join(rng.permutation(text.split())) for text in human]
    if writer == "letters":
        signs = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
        return ["".join(rng.choice(signs, len(text))) for text in human]
    if writer == "two words":
        return [" ".join(text.split()[:2]) for text in human]
    fixed = {"nothing": "", "punctuation": "... , ! -- ? ;", "stock answer": human[0]}
    if writer in fixed:
        return [fixed[writer]] * len(lengths)
    if writer == "echo":
        return [without_marks(prompt) for prompt in prompts]
    read = passages(splits.train, [max(lengths)] * len(lengths))
    first = [(text.split(), n) for text, n in zip(read, lengths, strict=True)]
    if writer == "reciting":
        return [" ".join(words[:n]) for words, n in first]
    if writer == "repeated":
        return [" ".join(words[:1] * n) for words, n in first]
    if writer == "loop":
        return [" ".join((words[:6] * n)[:n]) for words, n in first]
    assert writer == "collage", writer
    pieces = [text.split()[i : i + 5] for text in read for i in range(0, max(lengths) - 5, 5)]
    return [
        " ".join(word for i in rng.permutation(len(pieces))[: 1 + n // 5] for word in pieces[i])
        for n in lengths
    ]
