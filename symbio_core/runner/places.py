"""Where things lie on this machine, where the run itself may live in a bucket."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from symbio_core import corpus
from symbio_core.config import DataSettings
from symbio_core.corpus import TokenData
from symbio_core.errors import CorpusError
from symbio_core.storage.texts import fetch_texts

BUCKET = "gs://"
CACHE_VARIABLE = "SYMBIO_CACHE"
"""Environment variable with the folder of what can be made again."""


def work_folder(root: str) -> Path:
    """Return where files that can be made again are kept: beside the runs, or in a cache.

    Args:
        root: the storage root. With a bucket it is the folder in SYMBIO_CACHE, or the platform's
            own for caches.
    """
    return cache_folder() if root.startswith(BUCKET) else Path(root)


def cache_folder() -> Path:
    """Return this user's folder for what can be made again."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "symbio"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "symbio" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symbio"


def address(root: str, *parts: str) -> str:
    """Return where something below a storage root lies, as a person would open it."""
    if root.startswith(BUCKET):
        return "/".join([root.rstrip("/"), *parts])
    return str(Path(root, *parts))


def prepare(
    settings: DataSettings,
    *,
    context: int,
    seed: int,
    folder: Path,
    eval_tokens: int,
    confirm_tokens: int,
    tokenizer_json: str | None,
) -> TokenData:
    """Make a corpus ready as `corpus.prepare` does, wherever it lies; see there.

    Raises:
        CorpusError: also where a bucket or a text in it is not there or may not be read.
    """
    texts = None
    if settings.corpus.startswith(BUCKET):
        texts = fetch_texts(settings.corpus, folder / "fetched", max_bytes=settings.max_bytes)
    local = settings.model_copy(update={"corpus": str(texts.path)}) if texts else settings
    try:
        return corpus.prepare(
            local,
            context=context,
            seed=seed,
            folder=folder,
            eval_tokens=eval_tokens,
            confirm_tokens=confirm_tokens,
            tokenizer_json=tokenizer_json,
        )
    except CorpusError as error:
        if texts is None:
            raise
        raise CorpusError(texts.told(str(error))) from error
