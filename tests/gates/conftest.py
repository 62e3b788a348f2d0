"""Three real corpora, and writers of every grade from a person to a broken machine."""

import ast
import pydoc_data.topics
import re
import sysconfig
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from symbio_core.config import DataSettings
from symbio_core.corpus import load_documents, split, without_marks
from symbio_core.gates.battery import Answer
from symbio_core.gates.quality import Reference
from symbio_core.streams import generator

N_PROMPTS = 20
TEMPERATURES = (0.4, 0.7, 1.0)
Halves = tuple[list[str], list[str]]


@cache
def plays() -> Halves:
    corpus = load_documents(DataSettings(corpus="shakespeare", max_bytes=900_000))
    splits = split(corpus, 0.1, 0.05, seed=0)
    return [without_marks(d) for d in splits.train], [without_marks(d) for d in splits.validation]


@cache
def prose() -> Halves:
    pages = [str(page) for _, page in sorted(pydoc_data.topics.topics.items())]
    paragraphs = [p.strip() for page in pages for p in re.split(r"\n\s*\n", page)]
    return _halves([p for p in dict.fromkeys(paragraphs) if len(p.split()) >= 15])


@cache
def code() -> Halves:
    folder = Path(sysconfig.get_paths()["stdlib"])
    functions: list[str] = []
    for path in sorted(folder.glob("*.py"))[:40]:
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
                functions.append("\n".join(lines).strip())
    return _halves([f for f in dict.fromkeys(functions) if len(f.split()) >= 15])


CORPORA = {"plays": plays, "prose": prose, "code": code}


@cache
def reference(corpus: str) -> Reference:
    train, heldout = CORPORA[corpus]()
    return Reference.from_texts(train, heldout, seed=1)


@cache
def written(corpus: str, writer: str) -> tuple[str, ...]:
    """Sixty texts of 15 to 40 words."""
    train, heldout = CORPORA[corpus]()
    rng = generator(7, corpus)
    lengths = rng.integers(15, 41, N_PROMPTS * len(TEMPERATURES)).tolist()
    human = _passages("\n".join(heldout), lengths)
    if writer == "human":
        return tuple(human)
    if writer == "shuffled":
        return tuple(" ".join(rng.permutation(text.split())) for text in human)
    if writer == "letters":
        signs = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
        return tuple("".join(rng.choice(signs, len(text))) for text in human)
    if writer == "repeated":
        words = sorted({w for text in train[:50] for w in text.split() if w.isalpha()})
        return tuple(" ".join([str(rng.choice(words))] * n) for n in lengths)
    if writer == "nothing":
        return ("",) * len(lengths)
    if writer == "copied":
        return tuple(_passages("\n".join(train), lengths))
    chains = _chains(corpus, int(writer.removeprefix("order ")))
    return tuple(_spoken(chains, n, rng) for n in lengths)


def answers(texts: tuple[str, ...], *, ended: bool = False) -> list[Answer]:
    cells = [(i, t) for i in range(N_PROMPTS) for t in TEMPERATURES]
    return [
        Answer(i, f"prompt {i}", t, text, None, ended)
        for (i, t), text in zip(cells, texts, strict=True)
    ]


def _halves(texts: list[str]) -> Halves:
    order = generator(3, "halves").permutation(len(texts))
    shuffled = [texts[i] for i in order]
    return shuffled[len(texts) // 6 :], shuffled[: len(texts) // 6]


def _passages(text: str, lengths: list[int]) -> list[str]:
    """Cut one passage from each stretch of the text, so that no two share words."""
    spans = [m.span() for m in re.finditer(r"\S+", text)]
    starts = np.linspace(0, len(spans) - max(lengths) - 1, len(lengths)).astype(int)
    return [text[spans[i][0] : spans[i + n - 1][1]] for i, n in zip(starts, lengths, strict=True)]


@cache
def _chains(corpus: str, order: int) -> dict[str, tuple[list[str], list[float]]]:
    text = "\n".join(CORPORA[corpus]()[0])[:300_000]
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for i in range(len(text) - order):
        counts[text[i : i + order]][text[i + order]] += 1
    return {
        context: (list(c), (np.cumsum(list(c.values())) / c.total()).tolist())
        for context, c in counts.items()
    }


def _spoken(
    chains: dict[str, tuple[list[str], list[float]]], n_words: int, rng: np.random.Generator
) -> str:
    opens = [context for context in list(chains)[:5000] if context[0] in "\n "]
    text = str(opens[int(rng.integers(len(opens)))])
    order = len(text)
    while len(text.split()) <= n_words and len(text) < 20 * n_words:
        letters, shares = chains.get(text[-order:], ([" "], [1.0]))
        at = int(np.searchsorted(shares, rng.random()))
        text += letters[min(at, len(letters) - 1)]
    return " ".join(text.split(" ")[:-1]).strip()


@pytest.fixture(scope="session")
def library() -> SimpleNamespace:
    """Real corpora (`corpora`), the reference of each, and what writers of every grade wrote."""
    return SimpleNamespace(corpora=CORPORA, reference=reference, written=written, answers=answers)
