"""Prompts for the battery: drawn from held-out text with what people wrote next, or from a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from symbio_core.corpus.cutting import SEAMS
from symbio_core.corpus.documents import Form, decode_utf8, read_bytes
from symbio_core.corpus.marks import ASSISTANT, END, SPLIT_AT_MARKS, USER, without_marks
from symbio_core.errors import CorpusError
from symbio_core.streams import generator

PLAIN_WORDS = 8
"""Words of a plain prompt: about a dozen BPE tokens, and the same text under any tokenizer."""
HUMAN_WORDS = 120
"""Longest human continuation of a plain prompt (words)."""
LEAST_OWN, MOST_OWN = 4, 200
"""Prompts that a person's file must hold, and may hold: with fewer nothing can be told for sure,
and all of them are written in one batch."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and what a person wrote next."""

    text: str
    """What the model is given; in a chat it ends with the mark of the answer."""
    human: str
    """The person's continuation, without marks and outer white space."""


def as_prompt(text: str, form: Form) -> str:
    """Return a person's line in the form that a model of this corpus continues."""
    if form == "plain" or ASSISTANT in text:
        return text.strip()
    return f"{USER} {text.removeprefix(USER).strip()} {ASSISTANT}"


def draw_prompts(
    documents: Sequence[str],
    form: Form,
    n: int,
    seed: int,
    fits: Callable[[str], bool] = lambda text: True,
) -> list[Prompt]:
    """Draw ``n`` different prompts from held-out documents.

    Chat: the first turn of a conversation; its human continuation is the answer. Plain: the first
    eight words of a paragraph; its human continuation is the text that follows in the document.
    Where there are too few paragraphs, lines, then sentences, then any words may open a prompt.

    Args:
        documents: a held-out split.
        form: how turns are marked.
        n: prompts wanted.
        seed: which ones are drawn, and their order.
        fits: prompts for which it holds are preferred; the shortest of the others fill up.

    Raises:
        CorpusError: the documents do not hold ``n`` different prompts.
    """
    finders = [chat_prompts] if form == "chat" else [partial(plain_prompts, seam=s) for s in SEAMS]
    for find in finders:
        found = {prompt.text: prompt for document in documents for prompt in find(document)}
        if len(found) >= n:
            break
    else:
        raise CorpusError(
            f"the held-out split holds {len(found)} different prompts; {n} are wanted. Add text, "
            "raise data.validation_frac, lower gates.n_prompts, or set gates.prompts_file"
        )
    pool = list(found.values())
    order = generator(seed, "prompts").permutation(len(pool))
    drawn = [pool[i] for i in order]
    return sorted(drawn, key=lambda prompt: 0 if fits(prompt.text) else len(prompt.text))[:n]


def chat_prompts(document: str) -> list[Prompt]:
    """Return the first turn of each conversation in ``document``, with its answer."""
    found = []
    for talk in document.split(END):
        question, answered, rest = talk.partition(ASSISTANT)
        _, mark, asked = question.rpartition(USER)
        human = SPLIT_AT_MARKS.split(rest)[0].strip()
        if answered and asked.strip() and human:
            # As the corpus spaces it, since that is what the model was trained on.
            found.append(Prompt((mark + asked + answered).lstrip(), human))
    return found


def plain_prompts(document: str, seam: re.Pattern[str] = SEAMS[0]) -> list[Prompt]:
    """Return the words behind each ``seam`` of ``document``, with what follows them."""
    found = []
    for start in (0, *(gap.end() for gap in seam.finditer(document))):
        words = list(islice(re.finditer(r"\S+", document[start:]), PLAIN_WORDS + HUMAN_WORDS))
        if len(words) >= 2 * PLAIN_WORDS:
            cut = start + words[PLAIN_WORDS - 1].end()
            human = document[cut : start + words[-1].end()]
            found.append(Prompt(document[start:cut].strip(), human.strip()))
    return found


def read_prompts(path: str | Path) -> list[str]:
    """Read prompts from a UTF-8 file, one a line, each once; empty lines are passed over.

    A byte order mark and line ends of any system are no part of a prompt.

    Raises:
        CorpusError: the file is missing, a folder, unreadable, not UTF-8, or holds no prompt.
    """
    file = Path(path).expanduser()
    text = decode_utf8(file, read_bytes(file, what="prompts file"))
    # Not splitlines: it also parts a line at form feeds and at signs that only Unicode calls ends.
    lines = re.split(r"\r\n|\r|\n", text)
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise CorpusError(
            f"prompts file '{file}' is empty; write one prompt a line, or leave gates.prompts_file "
            "unset to draw them from the held-out split"
        )
    return prompts


def own_prompts(
    path: str | Path, form: Form, *, context: int, n_tokens: Callable[[str], int]
) -> list[str]:
    """Read a person's prompts for the battery, in the form that a model of this corpus continues.

    Args:
        path: see `read_prompts`.
        form: a prompt of a chat gets its turn marks.
        context: longest prompt (tokens); of a longer one the model would not see the beginning.
        n_tokens: length of a prompt (tokens).

    Raises:
        CorpusError: see `read_prompts`; or there are fewer than four, or more than 200, or one is
            too long.
    """
    lines = read_prompts(path)
    if not LEAST_OWN <= len(lines) <= MOST_OWN:
        raise CorpusError(
            f"prompts file '{path}' holds {len(lines)} different prompts; the battery takes "
            f"{LEAST_OWN} to {MOST_OWN}. {'Add' if len(lines) < LEAST_OWN else 'Remove'} lines"
        )
    prompts = [as_prompt(line, form) for line in lines]
    for line, prompt in zip(lines, prompts, strict=True):
        if (length := n_tokens(prompt)) > context:
            raise CorpusError(
                f"prompts file '{path}': the prompt '{line[:30]}…' is {length} tokens long; the "
                f"model reads {context}. Shorten it, or raise model.context"
            )
    return prompts


def draw_texts(documents: Sequence[str], n: int | None, seed: int) -> list[str]:
    """Draw up to ``n`` documents (None: all) without replacement, without marks."""
    order = generator(seed, "texts").permutation(len(documents))[:n]
    return [text for i in order if (text := without_marks(documents[i]))]
