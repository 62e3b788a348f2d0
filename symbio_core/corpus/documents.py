"""Reads a corpus: finds it, checks it, cuts it into documents."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from symbio_core.config import DataSettings
from symbio_core.corpus.cutting import chat_documents, n_bytes, plain_documents
from symbio_core.corpus.marks import is_chat
from symbio_core.corpus.plays import play_documents
from symbio_core.errors import CorpusError

Form = Literal["chat", "plain"]
SUFFIXES = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text that was read and checked, cut into documents."""

    name: str
    """What the person called it; the demo corpus adds its version."""
    documents: tuple[str, ...]
    """In reading order; a document never spans two files."""
    format: Form
    """`chat`: documents carry turn marks and end with the end mark; `plain`: none of that."""
    n_bytes: int
    """Length of all documents (UTF-8 bytes)."""
    sha256: str
    """Hash of format and documents: the identity of the text, wherever it lies."""


def load_documents(settings: DataSettings) -> Corpus:
    """Read the corpus that the settings name.

    Args:
        settings: `corpus`, `format` and `max_bytes` are read. `shakespeare` is the demo corpus;
            anything else is the path of a UTF-8 file, or of a folder whose .txt and .md files are
            read in the order of their names, subfolders included.

    Raises:
        CorpusError: it is missing, empty, unreadable, not UTF-8, or not in the format asked for.
    """
    if settings.corpus == "shakespeare":
        form: Form = "plain" if settings.format == "plain" else "chat"
        name, documents = play_documents(form, settings.max_bytes)
        return _corpus(name, documents, form)
    texts = read_texts(settings.corpus, settings.max_bytes)
    form = _form(settings, texts)
    documents = chat_documents(texts) if form == "chat" else plain_documents(texts)
    if not documents:
        raise CorpusError(
            f"corpus '{settings.corpus}' is empty: it holds no text but white space; "
            "give a file with at least some 100 kB of text"
        )
    return _corpus(settings.corpus, documents, form)


def _corpus(name: str, documents: list[str], form: Form) -> Corpus:
    digest = hashlib.sha256(form.encode())
    for document in documents:
        digest.update(b"\x00" + document.encode())
    total = sum(map(n_bytes, documents))
    return Corpus(name, tuple(documents), form, total, digest.hexdigest())


def _form(settings: DataSettings, texts: list[str]) -> Form:
    found = any(map(is_chat, texts))
    if settings.format == "chat" and not found:
        raise CorpusError(
            f"corpus '{settings.corpus}' has no turns, and format is 'chat'; write them as "
            "<|user|> … <|assistant|> … <|end_of_text|>, or set data.format to 'plain'"
        )
    return "chat" if found and settings.format != "plain" else "plain"


def read_texts(corpus: str, max_bytes: int | None = None) -> list[str]:
    """Read a file, or the .txt and .md files of a folder, as UTF-8 with Unix line ends.

    Args:
        corpus: path of a file or folder; `~` is the home folder.
        max_bytes: read no more than this (bytes), cut between two words; None reads all.

    Returns:
        One text a file.

    Raises:
        CorpusError: missing, unreadable, not UTF-8, a folder without texts, or a bucket's address.
    """
    texts: list[str] = []
    left = max_bytes
    for path in _files(corpus):
        if left is not None and left <= 0:
            break
        data = read_bytes(path, left)
        texts.append(_decoded(path, data, whole=left is None or len(data) < left))
        left = None if left is None else left - len(data)
    return texts


def _files(corpus: str) -> list[Path]:
    if corpus.startswith("gs://"):
        raise CorpusError(
            f"corpus '{corpus}' is in a bucket; a path on this machine was expected. "
            f"Copy it first: gcloud storage cp -r {corpus} ."
        )
    if not corpus.strip():
        raise CorpusError(
            "corpus is an empty name; give the path of a UTF-8 text file or folder, "
            "or 'shakespeare' for the demo corpus"
        )
    path = Path(corpus).expanduser()
    try:
        if not path.is_dir():
            return [path]
        found = sorted(_texts_below(path))
    except OSError as error:
        raise _unreadable(path, error, "corpus") from error
    if not found:
        raise CorpusError(
            f"corpus folder '{corpus}' holds no .txt or .md file; "
            "put your texts there with one of these endings, or name a single file"
        )
    return found


def _texts_below(folder: Path) -> Iterator[Path]:
    # A folder that cannot be entered is an error: half of a corpus must not pass for the whole.
    for here, folders, names in os.walk(folder, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(here, name)


def _raised(error: OSError) -> None:
    raise error


def read_bytes(path: Path, limit: int | None = None, *, what: str = "corpus") -> bytes:
    """Read a file, or its first ``limit`` bytes; whatever hinders that is a `CorpusError`."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with path.open("rb") as file:
            return file.read(-1 if limit is None else limit)
    except OSError as error:
        raise _unreadable(path, error, what) from error


def _unreadable(path: Path, error: OSError, what: str) -> CorpusError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        demo = ", or 'shakespeare' for the demo corpus" if what == "corpus" else ""
        return CorpusError(
            f"{what} '{path}' is not there (looked for {path.absolute()}); "
            f"give the path of a UTF-8 text file{demo}"
        )
    if isinstance(error, PermissionError):
        return CorpusError(
            f"{what} '{path}' may not be read by this user; allow it with: chmod -R a+rX '{path}'"
        )
    return CorpusError(
        f"{what} '{path}' cannot be read ({error.strerror}); name a readable UTF-8 text file"
    )


def _decoded(path: Path, data: bytes, *, whole: bool) -> str:
    if not whole:
        # The limit may fall inside a word or a character, so the last, unsure word is left out.
        last = max(data.rfind(b" "), data.rfind(b"\n"))
        data = data[:last] if last > 0 else data
    return decode_utf8(path, data).replace("\r\n", "\n").replace("\r", "\n")


def decode_utf8(path: Path, data: bytes) -> str:
    """Decode ``data``; a byte that is not UTF-8 text is a `CorpusError` with its offset."""
    if (nul := data.find(b"\x00")) >= 0:
        raise CorpusError(
            f"'{path}' is not text: NUL byte at offset {nul}; if it is UTF-16, save it as UTF-8, "
            f"for example: iconv -f UTF-16 -t UTF-8 '{path}' > utf8.txt"
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"'{path}' is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} "
            f"(line {line}); save it as UTF-8, for example: "
            f"iconv -f WINDOWS-1252 -t UTF-8 '{path}' > utf8.txt"
        ) from error
