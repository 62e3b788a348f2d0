"""Prepares a corpus for training: token files on disk, made once, checked, memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symbio_core.config import DataSettings
from symbio_core.corpus.documents import Corpus, Form, load_documents
from symbio_core.corpus.marks import ended
from symbio_core.corpus.prompts import Prompt, draw_prompts, draw_texts
from symbio_core.corpus.splits import SPLITS, SplitName, Splits, split
from symbio_core.corpus.tokenizer import Tokenizer, tokenizer_from_json, train_tokenizer
from symbio_core.errors import CorpusError, DiskTooFull, NotWritable

LAYOUT = 1
"""Raised when the files of an older symbio can no longer be read."""
_META = "meta.json"
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class TokenData:
    """A corpus ready for training: three token streams, their tokenizer and their texts."""

    name: str
    """What the corpus is called."""
    format: Form
    """`chat` or `plain`."""
    train: NDArray[Any]
    """Token stream, shape (n,), uint16 or uint32, memory-mapped; each document ends with the
    end mark."""
    validation: NDArray[Any]
    confirm: NDArray[Any]
    tokenizer: Tokenizer
    n_bytes: Mapping[str, int]
    """Text behind each stream (UTF-8 bytes), end marks included."""
    sha256: str
    """Identity of tokens and tokenizer: equal on two machines means equal batches."""
    splits: Splits
    """The documents behind the streams."""

    def heldout_texts(self, n: int | None = None, seed: int = 0) -> list[str]:
        """Draw up to ``n`` validation documents (None: all), marks left out."""
        return draw_texts(self.splits.validation, n, seed)

    def train_texts(self, n: int | None = None, seed: int = 0) -> list[str]:
        """Draw up to ``n`` training documents (None: all), marks left out."""
        return draw_texts(self.splits.train, n, seed)

    def prompts(self, n: int = 20, seed: int = 0, *, max_tokens: int | None = None) -> list[Prompt]:
        """Draw ``n`` prompts from the validation split, with what people wrote next.

        Args:
            n: prompts wanted.
            seed: which ones.
            max_tokens: prompts of at most this length are preferred (tokens).

        Raises:
            CorpusError: the validation split does not hold so many.
        """

        def fits(text: str) -> bool:
            return max_tokens is None or len(self.tokenizer.encode(text)) <= max_tokens

        return draw_prompts(self.splits.validation, self.format, n, seed, fits)


def prepare(
    settings: DataSettings,
    *,
    context: int,
    seed: int,
    folder: Path,
    eval_tokens: int = 0,
    confirm_tokens: int | None = None,
    tokenizer_json: str | None = None,
) -> TokenData:
    """Read, check, split and tokenize a corpus; a second call finds the files of the first.

    Files lie under a name made of text, split and tokenizer settings, each written beside its
    place and then moved there, the description last. A file whose size or hash does not match the
    description is made again.

    Args:
        settings: which corpus, how it is split and tokenized.
        context: tokens a sequence; every split must hold at least one.
        seed: decides the split.
        folder: where token files are kept; made if missing.
        eval_tokens: shortest validation stream that will do (tokens).
        confirm_tokens: the same for the confirm split; None asks for ``eval_tokens``.
        tokenizer_json: a tokenizer to keep, where weights that know it are trained further; None
            trains one on the train split.

    Raises:
        CorpusError: the corpus cannot be used, or is too small; with the size that would do.
        NotWritable: ``folder`` refuses to be written.
        DiskTooFull: the token files do not fit.
    """
    corpus = load_documents(settings)
    splits = split(corpus, settings.validation_frac, settings.confirm_frac, seed)
    home = Path(folder) / _key(corpus, settings, seed, tokenizer_json)
    data = _opened(home, corpus, splits)
    if data is None:
        _write(home, splits, settings, tokenizer_json)
        data = _opened(home, corpus, splits)
        assert data is not None, "token files were damaged while they were written"
    held_out = eval_tokens if confirm_tokens is None else confirm_tokens
    needs = {"train": context + 1, "validation": eval_tokens, "confirm": held_out}
    _check_sizes(corpus, data, {name: max(need, context + 1) for name, need in needs.items()})
    return data


def _key(corpus: Corpus, settings: DataSettings, seed: int, given: str | None) -> str:
    parts = {
        "layout": LAYOUT,
        "text": corpus.sha256,
        "seed": seed,
        "validation_frac": settings.validation_frac,
        "confirm_frac": settings.confirm_frac,
        "tokenizer": settings.tokenizer,
        "vocab_size": settings.vocab_size if settings.tokenizer == "bpe" else None,
        "given": _sha256(given.encode()) if given else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _check_sizes(corpus: Corpus, data: TokenData, needs: dict[str, int]) -> None:
    tokens = {name: len(getattr(data, name)) for name in SPLITS}
    short = [name for name in SPLITS if tokens[name] < needs[name]]
    if not short:
        return
    worst = max(short, key=lambda name: needs[name] / tokens[name])
    # Splits are cut between documents, so a tenth more is asked for than proportion says.
    enough = 1.1 * corpus.n_bytes * needs[worst] / tokens[worst]
    raise CorpusError(
        f"corpus '{corpus.name}' is {_size(corpus.n_bytes)}: its {worst} split has "
        f"{tokens[worst]} tokens and needs {needs[worst]}. About {_size(enough)} of text would do; "
        "add text, or lower model.context, optimiser.batch_size or the number of eval_batches"
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.1f} kB"


def _write(home: Path, splits: Splits, settings: DataSettings, given: str | None) -> None:
    if given is None:
        tokenizer = train_tokenizer(settings.tokenizer, splits.train, settings.vocab_size)
    else:
        tokenizer = tokenizer_from_json(given)
    files = {_TOKENIZER: tokenizer.to_json().encode()}
    n_bytes = {}
    kind = np.dtype(np.uint16 if tokenizer.n_vocab <= 1 << 16 else np.uint32)
    for part in SPLITS:
        documents = [ended(document) for document in splits.of(part)]
        ids = [found.astype(kind) for found in tokenizer.encode_many(documents)]
        files[_bin(part)] = np.concatenate(ids).astype(f"<{kind.str[1:]}").tobytes()
        n_bytes[part] = sum(len(document.encode()) for document in documents)
    meta = {
        "layout": LAYOUT,
        "dtype": kind.name,
        "n_bytes": n_bytes,
        "files": {name: [len(data), _sha256(data)] for name, data in files.items()},
    }
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            _replace(home / name, data)
        _replace(home / _META, json.dumps(meta, indent=1).encode())
    except OSError as error:
        raise _unwritable(home, error) from error


def _unwritable(home: Path, error: OSError) -> DiskTooFull | NotWritable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskTooFull(
            f"the disk under '{home}' is full while tokens are written; "
            "free some space, or set data.max_bytes to read less of the corpus"
        )
    return NotWritable(
        f"token files cannot be written to '{home}' ({error.strerror}); "
        "choose a folder that this user may write to"
    )


def _replace(path: Path, data: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def _opened(home: Path, corpus: Corpus, splits: Splits) -> TokenData | None:
    """Map the files of ``home``, or return None if they are not there or not whole."""
    try:
        meta = json.loads((home / _META).read_bytes())
        files = meta["files"]
        whole = all(
            _is_whole(home / name, *files[name]) for name in (*map(_bin, SPLITS), _TOKENIZER)
        )
        if not whole:
            return None
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        text = (home / _TOKENIZER).read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    streams = {name: np.memmap(home / _bin(name), dtype=dtype, mode="r") for name in SPLITS}
    hashes = "".join(files[name][1] for name in sorted(files))
    return TokenData(
        name=corpus.name,
        format=corpus.format,
        tokenizer=tokenizer_from_json(text),
        n_bytes=MappingProxyType(meta["n_bytes"]),
        sha256=_sha256(hashes.encode()),
        splits=splits,
        **streams,
    )


def _bin(name: SplitName) -> str:
    return f"{name}.bin"


def _is_whole(path: Path, size: int, sha256: str) -> bool:
    if path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
