"""How fast a checkpoint reaches a bucket and comes back, beside the same bytes without any care."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np

from symbio_core.errors import StorageError
from symbio_core.storage import gcs, open_store

BUCKET = "gs://"
SERVER = Path("tests/cloud/storage_server.py")
"""A Cloud Storage of a checkout, on this machine, for those who have no bucket at hand."""
MOST_BYTES = 64_000_000
"""Of a larger checkpoint so much is sent (bytes)."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """MB/s of one content, to a bucket and back."""

    upload: float
    """As checkpoints go: with preconditions, marks and hashes."""
    download: float
    """As checkpoints come: checked against their hash."""
    plain_upload: float
    """The same bytes by the client alone, nothing looked at."""
    plain_download: float


@contextmanager
def reachable(root: str) -> Iterator[str | None]:
    """Yield an address to send to: a bucket that is given, else one on this machine, else None.

    Args:
        root: storage root of the bench.
    """
    if root.startswith(BUCKET):
        yield root
        return
    if not SERVER.exists():
        yield None
        return
    words = [sys.executable, "-m", "tests.cloud.storage_server", "--bucket", "bench"]
    before = os.environ.get(gcs.ENDPOINT_VARIABLE)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ[gcs.ENDPOINT_VARIABLE] = server.stdout.readline().strip()
        try:
            yield f"{BUCKET}bench/runs"
        finally:
            server.terminate()
            del os.environ[gcs.ENDPOINT_VARIABLE]
            if before is not None:
                os.environ[gcs.ENDPOINT_VARIABLE] = before


def speeds(root: str, size: int, *, seed: int) -> Speeds:
    """Send ``size`` bytes both ways and both with care and without; nothing of it stays.

    Args:
        root: `gs://bucket/prefix`.
        size: length of the content (bytes); at most `MOST_BYTES` are sent.
        seed: of the content.

    Raises:
        StorageError: the bucket refuses, or gives no good answer.
    """
    data = np.random.default_rng(seed).bytes(min(size, MOST_BYTES))
    store, key = open_store(root), f"bench-{uuid4().hex}"
    bucket, prefix = gcs.split_address(root)
    blob = gcs.connect().bucket(bucket).blob(f"{prefix}{key}-plain")
    back: list[bytes] = []

    def read() -> None:
        found = store.read(key)
        back.append(found.data if found else b"")

    try:
        found = Speeds(
            upload=_speed(len(data), lambda: store.create(key, data)),
            download=_speed(len(data), read),
            plain_upload=_speed(
                len(data), lambda: blob.upload_from_file(BytesIO(data), checksum=None)
            ),
            plain_download=_speed(
                len(data), lambda: blob.download_as_bytes(checksum=None, raw_download=True)
            ),
        )
    finally:
        store.delete(key)
        store.delete(f"{key}-plain")
    if back != [data]:
        raise StorageError(f"{store.where(key)} did not come back as it was sent; try again")
    return found


def _speed(size: int, send: Callable[[], object]) -> float:
    began = time.perf_counter()
    send()
    return size / (time.perf_counter() - began) / 1e6
