"""A corpus in a bucket, brought to a folder of this machine and checked on its way."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from uuid import uuid4

from symbio_core.errors import (
    BucketUnreachable,
    CorpusError,
    DiskTooFull,
    NotWritable,
    StorageError,
    SymbioError,
)
from symbio_core.storage import gcs
from symbio_core.storage.gcs_failures import status_of, told

SUFFIXES = (".txt", ".md")
"""What is taken of a prefix, as of a folder."""
UNPACKED_BYTES = 4_000_000_000
"""A packed text that is longer when unpacked is refused, before it fills the memory."""
TRIES = 2
"""Downloads of one text before it counts as damaged."""
_ADDRESS = re.compile(r"gs://([^/]+)/?(.*)")


@dataclass(frozen=True, slots=True)
class Texts:
    """Where a corpus lies now."""

    path: Path
    """A file, or a folder of them in reading order."""
    addresses: Mapping[str, str]
    """Path of each file, and of the whole → its address, for messages."""

    def told(self, message: str) -> str:
        """Return a message about the files here as one about the texts in the bucket."""
        for path, address in self.addresses.items():
            message = message.replace(path, address)
        return message


def fetch_texts(
    address: str,
    folder: Path,
    *,
    max_bytes: int | None = None,
    endpoint: str | None = None,
    client: Any = None,
    retry: Any = None,
) -> Texts:
    """Bring `gs://bucket/file`, or the .txt and .md files below `gs://bucket/prefix`, to a folder.

    Files are kept by the generations of the objects, and checked each time: what was fetched
    before and is whole is not fetched again.

    Args:
        address: where the corpus is.
        folder: where it is kept; made if missing.
        max_bytes: of a prefix, no more files than make up this (bytes); None: all.
        endpoint: see `gcs.connect`.
        client: a `google.cloud.storage.Client` instead.
        retry: how requests are tried again; None: see `gcs.retry_policy`.

    Raises:
        CorpusError: there is no such bucket or text, or it may not be read.
        BucketUnreachable: no good answer for long.
        StorageError: a text arrives damaged each time.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise CorpusError(f"corpus '{address}' names no bucket; write gs://bucket/file.txt")
    how = {"retry": retry or gcs.retry_policy(), "timeout": gcs.TIMEOUT_S}
    with _telling(address, found[1]):
        rows = (client or gcs.connect(endpoint)).list_blobs(found[1], prefix=found[2], **how)
        texts = _chosen(list(rows), found[2], max_bytes)
        if not texts:
            raise CorpusError(
                f"corpus '{address}' is not there: no object of that name, and no .txt or .md "
                f"file below it; see: gcloud storage ls gs://{found[1]}"
            )
        is_file = texts[0].name == found[2]
        home = folder / _key(found[1], texts)
        with _writing(home):
            home.mkdir(parents=True, exist_ok=True)
            paths = [home / _name(number, blob.name) for number, blob in enumerate(texts)]
            for path, blob in zip(paths, texts, strict=True):
                _bring(path, blob, how)
    told = {str(path): f"gs://{found[1]}/{b.name}" for path, b in zip(paths, texts, strict=True)}
    return Texts(paths[0] if is_file else home, told | {str(home): address})


def _chosen(rows: list[Any], name: str, max_bytes: int | None) -> list[Any]:
    exact = [blob for blob in rows if blob.name == name and not name.endswith("/")]
    if exact:
        return exact
    home = f"{name.rstrip('/')}/" if name else ""
    below = {
        PurePosixPath(blob.name.removeprefix(home)): blob
        for blob in rows
        if blob.name.startswith(home) and _is_text(blob.name.removeprefix(home))
    }
    chosen, size = [], 0
    for _, blob in sorted(below.items()):  # as the files of a folder are read
        if max_bytes is not None and size >= max_bytes:
            break
        chosen.append(blob)
        size += int(blob.size)
    return chosen


def _is_text(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(p.startswith(".") for p in path.parts)


def _key(bucket: str, texts: list[Any]) -> str:
    parts = [bucket, *((blob.name, int(blob.generation)) for blob in texts)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _name(number: int, name: str) -> str:
    # A stranger's object may be called anything; only its end is kept, and a number before it.
    end = re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2])[-80:].lstrip(".")
    return f"{number:05d}-{end}"


def _bring(path: Path, blob: Any, how: Mapping[str, Any]) -> None:
    note = path.with_name(f".{path.name}.sha256")
    with suppress(FileNotFoundError):
        if note.read_text(encoding="ascii") == _sha256(path.read_bytes()):
            return
    for _ in range(TRIES):
        data = bytes(
            blob.download_as_bytes(
                if_generation_match=blob.generation, checksum=None, raw_download=True, **how
            )
        )
        if gcs.is_whole(blob, data):
            break
    else:
        raise StorageError(
            f"gs://{blob.bucket.name}/{blob.name} does not arrive as its checksum says; "
            "look at the network, or upload it anew"
        )
    text = _unpacked(data, blob) if blob.content_encoding == "gzip" else data
    _replace(path, text)
    _replace(note, _sha256(text).encode())


def _unpacked(data: bytes, blob: Any) -> bytes:
    where = f"gs://{blob.bucket.name}/{blob.name}"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            text = packed.read(UNPACKED_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(
            f"corpus '{where}' is said to be packed with gzip and cannot be unpacked ({error}); "
            "upload it anew"
        ) from error
    if len(text) > UNPACKED_BYTES:
        raise CorpusError(
            f"corpus '{where}' unpacks to more than {UNPACKED_BYTES / 1e9:.0f} GB; upload it "
            "unpacked, or a part of it"
        )
    return text


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{uuid4().hex}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _telling(address: str, bucket: str) -> Iterator[None]:
    kinds = gcs.failures()
    try:
        yield
    except SymbioError:
        raise
    except kinds as error:
        status = status_of(error)
        if status in (404, 412):
            if "No such object" in str(error) or status == 412:
                raise CorpusError(
                    f"corpus '{address}' was changed while it was read; start again"
                ) from error
            raise CorpusError(
                f"corpus '{address}': there is no bucket gs://{bucket}; check its name"
            ) from error
        if status == 403:
            raise CorpusError(
                f"corpus '{address}' may not be read; grant roles/storage.objectViewer on "
                f"gs://{bucket} to whoever runs this"
            ) from error
        said = told(error, "read", bucket, address)
        if isinstance(said, BucketUnreachable):
            raise said from error
        raise CorpusError(f"corpus '{address}' cannot be read: {said}") from error


@contextmanager
def _writing(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise  # one of the network, not of this disk
        _cannot_keep(home, error)


def _cannot_keep(home: Path, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskTooFull(
            f"the disk under '{home}' is full while the corpus is fetched; free some space, or "
            "name another folder in SYMBIO_CACHE"
        ) from error
    raise NotWritable(
        f"the corpus cannot be kept in '{home}' ({error.strerror}); name another folder in "
        "SYMBIO_CACHE"
    ) from error
