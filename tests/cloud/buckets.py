"""Buckets of the small Cloud Storage, seen through the store that is tested."""

from __future__ import annotations

import uuid
from typing import Any

from google.cloud.storage.retry import DEFAULT_RETRY

from symbio_core.storage.gcs import BucketStore
from symbio_core.storage.pacing import Pacer
from tests.cloud.storage_server import StorageServer

FAST = DEFAULT_RETRY.with_delay(initial=0.02, maximum=0.2).with_timeout(10)


def new_bucket(server: StorageServer, **how: Any) -> str:
    """Make an empty bucket of a name that no other has."""
    return server.world.add_bucket(f"bucket-{uuid.uuid4().hex[:12]}", **how).name


def bucket_store(server: StorageServer, root: str | None = None, **how: Any) -> BucketStore:
    """Return a store that tries again soon and need not keep its writes apart."""
    settings: dict[str, Any] = {"endpoint": server.url, "retry": FAST, "pacer": Pacer(0.0)}
    return BucketStore(root or f"gs://{new_bucket(server)}/runs", **{**settings, **how})
