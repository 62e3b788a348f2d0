"""Content-addressed blobs: the name of a blob is the hash of what it holds."""

from __future__ import annotations

import hashlib
import re

from symbio_core.errors import AlreadyExists, CheckpointDamaged
from symbio_core.storage.objects import ObjectStore

_SHA256 = re.compile("[0-9a-f]{64}")


class BlobStore:
    """Blobs below ``<home>/blobs/``; equal content is stored once."""

    def __init__(self, store: ObjectStore, home: str) -> None:
        self.store = store
        self.home = f"{home}/blobs/"

    def put(self, data: bytes) -> str:
        """Store a blob and return its sha256 (hex); a damaged one of that name is healed."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = self.home + sha256
        try:
            self.store.create(key, data)
        except AlreadyExists:
            # Under a name that is the content's hash, other content can only be damage.
            found = self.store.read(key)
            self.store.swap(key, data, found.version if found else None)
        return sha256

    def get(self, sha256: str, size: int | None = None) -> bytes:
        """Return a blob after checking it against its name.

        Args:
            sha256: its name, hex.
            size: its length if that is known (bytes), compared before anything is read.

        Raises:
            CheckpointDamaged: it is missing or not what it should be; the message names the file.
        """
        key = self.home + sha256
        there = self.store.size(key)
        if there is None:
            raise CheckpointDamaged(f"{self.store.where(key)} is missing; {_NEXT}")
        if size is not None and there != size:
            raise CheckpointDamaged(
                f"{self.store.where(key)} has {there} bytes instead of {size}; {_NEXT}"
            )
        found = self.store.read(key)
        if found is None or hashlib.sha256(found.data).hexdigest() != sha256:
            raise CheckpointDamaged(f"{self.store.where(key)} does not match its hash; {_NEXT}")
        return found.data

    def size(self, sha256: str) -> int | None:
        """Return the length of a blob (bytes), or None where there is none."""
        return self.store.size(self.home + sha256)

    def names(self) -> list[str]:
        """Return the sha256 of every blob; files of other names are not ours and not told."""
        names = [key.removeprefix(self.home) for key in self.store.keys(self.home)]
        return [name for name in names if _SHA256.fullmatch(name)]

    def delete(self, sha256: str) -> None:
        """Remove a blob if it is there."""
        self.store.delete(self.home + sha256)


_NEXT = "put back a copy of that file, or go on from another checkpoint"
