"""Checkpoints: content-addressed blobs and a manifest that is written last.

::

    blobs/<sha256>                                     one part each, shared by equal content
    manifests/<step>-<first 16 of its sha256>.json     names the parts with sizes and hashes
    LATEST                                             names the last save; moves only forward

A manifest is written before ``LATEST`` can name it, and once only, so no swap refuses the one of a
holder that was replaced in between. But ``LATEST`` also lists every save that it has named, and
nobody goes on from one that it does not list.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from symbio_core.errors import CheckpointDamaged, SwapLost
from symbio_core.records import Record
from symbio_core.storage.blobs import BlobStore
from symbio_core.storage.canonical import (
    is_arrays,
    json_bytes,
    parsed_json,
    tensor_bytes,
    tensors,
)
from symbio_core.storage.lease import Fence
from symbio_core.storage.objects import ObjectStore, Versioned, read_text

_MANIFEST = re.compile(r"\d{10}-[0-9a-f]{16}")


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
        return json_bytes(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """Its name: step and the start of its hash."""
        return f"{self.step:010d}-{hashlib.sha256(self.data).hexdigest()[:16]}"


class Pointer(Record):
    """What ``LATEST`` holds."""

    id: str | None = Field(pattern=f"^{_MANIFEST.pattern}$")
    """None where the run was claimed before its first save."""
    order: int = Field(ge=-1)
    writer: str = ""
    """Tag of who moved it here."""
    saves: tuple[str, ...] | None = None
    """Every save it has named that was there when it was moved here; None in earlier versions."""
    sha256: str | None = None
    """Hash of all the rest, hex; None in earlier versions."""

    @property
    def sealed(self) -> Pointer:
        """The same under its hash."""
        rest = json_bytes(self.model_dump(mode="json", exclude={"sha256"}))
        return self.model_copy(update={"sha256": hashlib.sha256(rest).hexdigest()})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint whose every blob matched its hash."""

    manifest: Manifest
    blobs: Mapping[str, bytes]

    def arrays(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """Return a part that holds tensors.

        Raises:
            CheckpointDamaged: there is no such part, or its bytes are no tensors.
        """
        if self._media(name) == "json" and self.json(name) == {}:
            return {}  # no tensors at all and no data at all are saved alike
        try:
            return tensors(self.blobs[name])
        except ValueError as error:
            raise CheckpointDamaged(
                f"part '{name}' of checkpoint {self.manifest.id} holds no whole tensors ({error}); "
                "go on from another checkpoint"
            ) from error

    def json(self, name: str) -> Any:
        """Return a part that holds plain data.

        Raises:
            CheckpointDamaged: there is no such part, or it holds tensors.
        """
        if self._media(name) != "json":
            raise CheckpointDamaged(
                f"part '{name}' of checkpoint {self.manifest.id} holds tensors, not plain data"
            )
        try:
            return parsed_json(self.blobs[name])
        except ValueError as error:
            raise CheckpointDamaged(
                f"part '{name}' of checkpoint {self.manifest.id} is no plain data ({error}); "
                "go on from another checkpoint"
            ) from error

    def _media(self, name: str) -> str:
        part = self.manifest.parts.get(name)
        if part is None:
            raise CheckpointDamaged(
                f"checkpoint {self.manifest.id} has no part '{name}'; "
                f"it has: {', '.join(self.manifest.parts) or 'none'}"
            )
        return part.media


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint that is whole, and what was wrong with others on the way to it."""

    manifest: Manifest | None
    damaged: tuple[str, ...]


class CheckpointStore:
    """The checkpoints of one run. One process at a time saves and retains; any number may read."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.home = f"runs/{run_id}/checkpoints"
        self.blobs = BlobStore(store, self.home)
        self.fence: Fence | None = None
        self._busy = threading.RLock()

    def claim(self, fence: Fence) -> None:
        """Shut out all earlier savers: ``LATEST`` stays where it is, under the holder's tag.

        Raises:
            StorageError: ``fence`` is not ours any more.
        """
        self.fence = fence
        while True:
            found, pointer = self._pointed()
            try:
                if pointer is None or (pointer.id is not None and not self.pointer()):
                    pointer = self._rebuilt()
            except CheckpointDamaged:
                pointer = self._rebuilt()
            # What comes up from now on and is not named is of those who are shut out.
            saves = tuple(sorted(self._named(pointer)))
            try:
                self._point(found, pointer.model_copy(update={"saves": saves}))
            except SwapLost:
                continue
            return

    def save(
        self, parts: Mapping[str, Any], meta: Mapping[str, Any], *, step: int, kind: str
    ) -> Manifest:
        """Write a checkpoint, move ``LATEST`` to it and return its manifest.

        Saving the same as the newest once more, as after a crash, gives that one again.

        Args:
            parts: name to content: a mapping of numpy arrays, anything that JSON can hold, or a
                part that is stored already, as from `put`.
            meta: small facts to know without loading.
            step: steps of the run spent.
            kind: `start`, `step`, `best` or `end`.

        Raises:
            LeaseLost: another holder has taken the run over.
            SwapLost: another process saves checkpoints of this run.
        """
        with self._busy:
            # Before anything is written: a root that is gone is not begun anew in its place.
            self._check()
            draft = Manifest(
                run_id=self.run_id,
                step=step,
                kind=kind,
                order=0,
                parts={name: self._put(content) for name, content in sorted(parts.items())},
                meta=dict(meta),
            )
            manifest = self._numbered(draft)
            self._check()
            self.store.create(self._key(manifest.id), manifest.data)
            self._advance(manifest)
            return manifest

    def put(self, content: Any) -> Part:
        """Store one part ahead of the checkpoint that will name it.

        Until that is written the part belongs to nothing, and `retain` would delete it.

        Args:
            content: a mapping of numpy arrays, or anything that JSON can hold.

        Raises:
            LeaseLost: another holder has taken the run over.
        """
        with self._busy:
            self._check()
            return self._put(content)

    def has(self, part: Part) -> bool:
        """Say whether a part is there in its length; its content is looked at on loading."""
        return self.blobs.size(part.sha256) == part.size

    def load(self, checkpoint: str) -> Loaded:
        """Read a checkpoint and check every blob against its hash.

        Raises:
            CheckpointDamaged: a file is missing or is not what the manifest says.
        """
        manifest = self._read(self._key(checkpoint))
        return Loaded(manifest, {name: self._get(part) for name, part in manifest.parts.items()})

    def latest(self) -> Manifest | None:
        """Return the manifest that ``LATEST`` names, or None before the first save.

        Raises:
            CheckpointDamaged: the pointer or that manifest is damaged; see `newest_whole`.
        """
        found = self._pointer_file()
        if found is None:
            return None
        pointer = _pointer(found)
        if pointer is not None and pointer.id is None:
            return None
        if pointer is None or pointer.id is None:
            where = self.store.where(f"{self.home}/LATEST")
            raise CheckpointDamaged(f"{where} is damaged; the next save mends it")
        return self._read(self._key(pointer.id))

    def manifests(self) -> list[Manifest]:
        """Return all readable manifests, oldest save first."""
        return self._survey()[0]

    def newest_whole(self, kind: str | None = None) -> Newest:
        """Return the newest save whose files are all whole, with the damage found on the way.

        Args:
            kind: only saves of that kind; None for any.
        """
        loaded, damaged = self.load_newest(kind)
        return Newest(loaded.manifest if loaded else None, damaged)

    def load_newest(self, kind: str | None = None) -> tuple[Loaded | None, tuple[str, ...]]:
        """Read the newest save whose files are all whole, with the damage found on the way.

        Args:
            kind: only saves of that kind; None for any.
        """
        manifests, damaged = self._survey()
        named = self._named(self._pointed()[1])
        for manifest in reversed(manifests):
            if kind is not None and manifest.kind != kind:
                continue
            if manifest.run_id != self.run_id:
                damaged.append(
                    f"{self.store.where(self._key(manifest.id))} is a checkpoint of run "
                    f"'{manifest.run_id}'; it is left alone"
                )
                continue
            if manifest.id not in named:
                continue
            try:
                return self.load(manifest.id), tuple(damaged)
            except CheckpointDamaged as error:
                damaged.append(f"checkpoint {manifest.id}: {error}")
        return None, tuple(damaged)

    def survey(self) -> tuple[list[Manifest], list[str]]:
        """Return all readable manifests, oldest save first, and what is wrong with the others."""
        return self._survey()

    def pointer(self) -> Manifest | None:
        """Return what ``LATEST`` names; None where it names nothing.

        Raises:
            CheckpointDamaged: it does not name a save that is there.
        """
        latest = self.latest()
        _, pointer = self._pointed()
        if latest is not None and pointer is not None and pointer.order != latest.order:
            where = self.store.where(f"{self.home}/LATEST")
            raise CheckpointDamaged(f"{where} is damaged; the next save mends it")
        return latest

    def retain(self, keep: set[str]) -> None:
        """Delete the checkpoints not named in ``keep``, then blobs that none of the rest uses.

        What ``LATEST`` names is kept too, and files of unknown names and checkpoints of other runs,
        or of nobody knows whom, are never touched. While a kept manifest cannot be read no blob is
        deleted: it may be put back and need any of them.

        A deletion cannot be made to lose as a swap can, so the lease is looked at before each: a
        holder that falls asleep between look and deletion can delete one more file when it wakes.

        Raises:
            LeaseLost: another holder has taken the run over.
        """
        with self._busy:
            self._check()
            _, pointer = self._pointed()
            kept = keep | ({pointer.id} if pointer and pointer.id else set())
            for key in self._keys():
                if _id(key) not in kept and not self._is_anothers(key):
                    self._check()
                    self.store.delete(key)
            manifests, damaged = self._survey()
            if damaged:
                return
            used = {part.sha256 for manifest in manifests for part in manifest.parts.values()}
            for sha256 in self.blobs.names():
                if sha256 not in used:
                    self._check()
                    self.blobs.delete(sha256)

    def thin(self, kind: str, keep: int) -> None:
        """Delete all but the newest ``keep`` saves of a kind, and the blobs that only they name.

        Nothing may refer to saves of that kind but ``LATEST``, whose save stays.

        Raises:
            LeaseLost: another holder has taken the run over.
        """
        with self._busy:
            _, pointer = self._pointed()
            named = self._named(pointer)
            own = [m for m in self.manifests() if (m.kind, m.run_id) == (kind, self.run_id)]
            own = [m for m in own if m.id in named]
            old = [m for m in own[: max(0, len(own) - keep)] if pointer and m.id != pointer.id]
            for manifest in old:
                self._check()
                self.store.delete(self._key(manifest.id))
            manifests, damaged = self._survey()
            if damaged or not old:
                return
            used = {part.sha256 for m in manifests for part in m.parts.values()}
            for sha256 in {part.sha256 for m in old for part in m.parts.values()} - used:
                self._check()
                self.blobs.delete(sha256)

    def _check(self) -> None:
        if self.fence is not None:
            self.fence.check()

    def _put(self, content: Any) -> Part:
        if isinstance(content, Part):
            return content
        media: Literal["safetensors", "json"] = "safetensors" if is_arrays(content) else "json"
        data = tensor_bytes(content) if media == "safetensors" else json_bytes(content)
        return Part(sha256=self.blobs.put(data), size=len(data), media=media)

    def _get(self, part: Part) -> bytes:
        return self.blobs.get(part.sha256, part.size)

    def _named(self, pointer: Pointer | None) -> set[str]:
        """Return the saves there are that ``LATEST`` has named; all where it does not say."""
        there = {_id(key) for key in self._keys()}
        return there if pointer is None or pointer.saves is None else there & {*pointer.saves}

    def _numbered(self, draft: Manifest) -> Manifest:
        _, pointer = self._pointed()
        named = self._named(pointer)
        manifests = [manifest for manifest in self.manifests() if manifest.id in named]
        last = max([m.order for m in manifests[-1:]] + ([pointer.order] if pointer else [-1]))
        again = draft.model_copy(update={"order": max(0, last)})
        if manifests and manifests[-1].data == again.data:
            return again
        return draft.model_copy(update={"order": last + 1})

    def _advance(self, manifest: Manifest) -> None:
        found, pointer = self._pointed()
        saves = tuple(sorted(self._named(pointer) | {manifest.id}))
        to = Pointer(id=manifest.id, order=manifest.order, saves=saves)
        if pointer is not None and (pointer.id, pointer.order) == (to.id, to.order):
            self._check()
            return
        if pointer is not None and pointer.order >= to.order:
            raise SwapLost(
                f"{self.store.where(f'{self.home}/LATEST')} names save {pointer.order} already "
                f"and this is save {to.order}: another process works on this run; stop one of them"
            )
        try:
            self._point(found, to)
        except SwapLost:
            self._check()
            raise

    def _point(self, found: Versioned | None, to: Pointer) -> None:
        if self.fence is not None:
            to = to.model_copy(update={"writer": self.fence.tag})
        data = json_bytes(to.sealed.model_dump(mode="json"))
        self._check()
        self.store.swap(f"{self.home}/LATEST", data, found.version if found else None)

    def _rebuilt(self) -> Pointer:
        newest = [m for m in self.manifests() if m.run_id == self.run_id][-1:]
        return Pointer(id=newest[0].id, order=newest[0].order) if newest else _NOWHERE

    def _pointed(self) -> tuple[Versioned | None, Pointer | None]:
        found = self._pointer_file()
        return found, _pointer(found) if found else None

    def _pointer_file(self) -> Versioned | None:
        return read_text(self.store, f"{self.home}/LATEST")

    def _key(self, checkpoint: str) -> str:
        return f"{self.home}/manifests/{checkpoint}.json"

    def _keys(self) -> list[str]:
        keys = self.store.keys(f"{self.home}/manifests/")
        return [key for key in keys if key == self._key(_id(key)) and _MANIFEST.fullmatch(_id(key))]

    def _survey(self) -> tuple[list[Manifest], list[str]]:
        whole, damaged = [], []
        for key in self._keys():
            try:
                whole.append(self._read(key))
            except CheckpointDamaged as error:
                damaged.append(str(error))
        return sorted(whole, key=lambda manifest: (manifest.order, manifest.id)), damaged

    def _is_anothers(self, key: str) -> bool:
        """Say whether a manifest is another run's, or may be: too damaged to say whose it is."""
        try:
            found = read_text(self.store, key)
            content = parsed_json(found.data) if found else {}
        except (CheckpointDamaged, ValueError):
            return True
        return not isinstance(content, dict) or content.get("run_id") != self.run_id

    def _read(self, key: str) -> Manifest:
        where = self.store.where(key)
        found = read_text(self.store, key)
        if found is None:
            raise CheckpointDamaged(f"{where} is missing; go on from another checkpoint")
        try:
            manifest = Manifest.model_validate(parsed_json(found.data))
            is_same = manifest.data == found.data and manifest.id == _id(key)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise CheckpointDamaged(f"{where} is not a manifest ({why})") from error
        except ValueError as error:
            raise CheckpointDamaged(f"{where} is not a manifest ({error})") from error
        if not is_same:
            raise CheckpointDamaged(
                f"{where} does not match its hash; go on from another checkpoint"
            )
        return manifest


_NOWHERE = Pointer(id=None, order=-1)


def _id(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _pointer(found: Versioned) -> Pointer | None:
    """Return what a pointer's file says; None where it is damaged."""
    try:
        pointer = Pointer.model_validate_json(found.data)
    except ValidationError:
        return None
    return pointer if pointer.sha256 in (None, pointer.sealed.sha256) else None
