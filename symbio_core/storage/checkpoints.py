"""Checkpoints: content-addressed blobs and a manifest that is written last.

::

    blobs/<sha256>                                one part each, shared by equal content
    manifests/<step>-<first 16 of its sha256>     names the parts with sizes and hashes
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from symbio_core.errors import CheckpointDamaged
from symbio_core.records import Record
from symbio_core.storage.objects import ObjectStore

Arrays = Mapping[str, npt.NDArray[np.generic]]
_MANIFEST = re.compile(r"(\d{10})-([0-9a-f]{16})\.json")


class Part(Record):
    """One blob of a checkpoint."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    """Length (bytes)."""
    media: Literal["safetensors", "json"]


class Manifest(Record):
    """What a checkpoint consists of; it is written after all of its blobs."""

    run_id: str
    step: int = Field(ge=0)
    """Steps of the run spent when it was saved."""
    kind: str
    """`start`, `step`, `best` or `end`."""
    order: int = Field(ge=0)
    """Counts the saves of a run."""
    parts: dict[str, Part]
    meta: dict[str, Any]

    @property
    def data(self) -> bytes:
        """The manifest as it is stored."""
        return _json(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """Its name: step and the start of its hash."""
        return f"{self.step:010d}-{hashlib.sha256(self.data).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint whose every blob matched its hash."""

    manifest: Manifest
    blobs: Mapping[str, bytes]

    def arrays(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """Return a part that holds tensors."""
        try:
            return dict(load_tensors(self.blobs[name]))
        except (KeyError, SafetensorError) as error:
            raise CheckpointDamaged(
                f"checkpoint {self.manifest.id} has no whole tensors '{name}': {error}"
            ) from error

    def json(self, name: str) -> Any:
        """Return a part that holds plain data."""
        return json.loads(self.blobs[name])


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint that is whole, and what was wrong with newer ones."""

    manifest: Manifest | None
    damaged: tuple[str, ...]


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, store: ObjectStore, home: str, run_id: str) -> None:
        self.store = store
        self.home = home
        self.run_id = run_id

    def save(
        self, parts: Mapping[str, Any], meta: Mapping[str, Any], *, step: int, kind: str
    ) -> Manifest:
        """Write a checkpoint and return its manifest.

        Args:
            parts: name to content: a mapping of numpy arrays, or anything that JSON can hold.
            meta: small facts to know without loading.
            step: steps of the run spent.
            kind: `start`, `step`, `best` or `end`.
        """
        stored = {name: self._put(content) for name, content in sorted(parts.items())}
        manifest = Manifest(
            run_id=self.run_id,
            step=step,
            kind=kind,
            order=1 + max((m.order for m in self.manifests()), default=-1),
            parts=stored,
            meta=dict(meta),
        )
        self.store.create(self._manifest_key(manifest.id), manifest.data)
        return manifest

    def load(self, checkpoint: str) -> Loaded:
        """Read a checkpoint and check every blob against its hash.

        Raises:
            CheckpointDamaged: a file is missing or is not what the manifest says.
        """
        manifest = self._read(self._manifest_key(checkpoint))
        return Loaded(manifest, {name: self._get(part) for name, part in manifest.parts.items()})

    def manifests(self) -> list[Manifest]:
        """Return all readable manifests, oldest save first."""
        found = []
        for key in self.store.keys(f"{self.home}/manifests/"):
            try:
                found.append(self._read(key))
            except CheckpointDamaged:
                continue
        return sorted(found, key=lambda manifest: manifest.order)

    def newest_whole(self, kind: str | None = None) -> Newest:
        """Return the newest save whose files are all whole, with the damage found on the way."""
        damaged: list[str] = []
        for manifest in reversed(self.manifests()):
            if kind is not None and manifest.kind != kind:
                continue
            try:
                self.load(manifest.id)
            except CheckpointDamaged as error:
                damaged.append(str(error))
                continue
            return Newest(manifest, tuple(damaged))
        return Newest(None, tuple(damaged))

    def retain(self, keep: set[str]) -> None:
        """Delete the checkpoints not named in ``keep``, then blobs that none of the rest uses.

        Files of unknown names are never touched.
        """
        kept = [m for m in self.manifests() if m.id in keep]
        for key in self.store.keys(f"{self.home}/manifests/"):
            name = key.rpartition("/")[2]
            if _MANIFEST.fullmatch(name) and name.removesuffix(".json") not in keep:
                self.store.delete(key)
        used = {part.sha256 for manifest in kept for part in manifest.parts.values()}
        for key in self.store.keys(f"{self.home}/blobs/"):
            name = key.rpartition("/")[2]
            if re.fullmatch("[0-9a-f]{64}", name) and name not in used:
                self.store.delete(key)

    def _manifest_key(self, checkpoint: str) -> str:
        return f"{self.home}/manifests/{checkpoint}.json"

    def _put(self, content: Any) -> Part:
        is_tensors = (
            isinstance(content, Mapping)
            and bool(content)
            and all(isinstance(value, np.ndarray) for value in content.values())
        )
        data = save_tensors(_contiguous(content)) if is_tensors else _json(content)
        sha256 = hashlib.sha256(data).hexdigest()
        self.store.create(f"{self.home}/blobs/{sha256}", data)
        media: Literal["safetensors", "json"] = "safetensors" if is_tensors else "json"
        return Part(sha256=sha256, size=len(data), media=media)

    def _get(self, part: Part) -> bytes:
        key = f"{self.home}/blobs/{part.sha256}"
        size = self.store.size(key)
        if size is None:
            raise CheckpointDamaged(f"{key} is missing")
        if size != part.size:
            raise CheckpointDamaged(f"{key} has {size} bytes instead of {part.size}")
        found = self.store.read(key)
        if found is None or hashlib.sha256(found.data).hexdigest() != part.sha256:
            raise CheckpointDamaged(f"{key} does not match its hash")
        return found.data

    def _read(self, key: str) -> Manifest:
        found = self.store.read(key)
        if found is None:
            raise CheckpointDamaged(f"{key} is missing")
        try:
            manifest = Manifest.model_validate_json(found.data)
        except ValidationError as error:
            raise CheckpointDamaged(
                f"{key} is not a manifest: {error.errors()[0]['msg']}"
            ) from error
        if manifest.id != key.rpartition("/")[2].removesuffix(".json"):
            raise CheckpointDamaged(f"{key} does not match its hash")
        return manifest


def _contiguous(arrays: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    return {
        name: np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape)
        for name in sorted(arrays)
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
