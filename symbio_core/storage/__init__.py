"""Checkpoints and run state: one small interface, a folder behind it."""

from symbio_core.storage.blobs import BlobStore
from symbio_core.storage.checkpoints import CheckpointStore, Loaded, Manifest, Newest
from symbio_core.storage.fsck import Checkup, FileState, check_run
from symbio_core.storage.journal import Journal
from symbio_core.storage.lease import Fence, Lease, lease_of
from symbio_core.storage.objects import FolderStore, ObjectStore, Versioned, open_store
from symbio_core.storage.runs import RunStore, list_runs

__all__ = [
    "BlobStore",
    "CheckpointStore",
    "Checkup",
    "Fence",
    "FileState",
    "FolderStore",
    "Journal",
    "Lease",
    "Loaded",
    "Manifest",
    "Newest",
    "ObjectStore",
    "RunStore",
    "Versioned",
    "check_run",
    "lease_of",
    "list_runs",
    "open_store",
]
