"""What the Cloud Storage of the tests holds: buckets, generations, preconditions, permissions."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c

BLOCK = 256 * 1024
"""Chunks of a resumable upload are multiples of this (bytes), save the last."""
CONDITIONS = (
    "ifGenerationMatch",
    "ifGenerationNotMatch",
    "ifMetagenerationMatch",
    "ifMetagenerationNotMatch",
)
PERMISSIONS = {
    "create": "storage.objects.create",
    "get": "storage.objects.get",
    "list": "storage.objects.list",
    "delete": "storage.objects.delete",
    "update": "storage.objects.update",
    "bucket": "storage.buckets.get",
}
Params = Mapping[str, str]


class Rejected(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Stored:
    """One object at one generation."""

    name: str
    data: bytes
    generation: int
    content_type: str
    metadata: dict[str, str]
    metageneration: int = 1
    content_encoding: str | None = None
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.checksums = checksums(self.data)

    def resource(self, bucket: str) -> dict[str, Any]:
        """The object as the JSON API tells it."""
        shown = {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "timeCreated": _when(self.created),
            "updated": _when(self.updated),
            "etag": f"{self.generation}/{self.metageneration}",
            **self.checksums,
        }
        shown |= {"contentEncoding": self.content_encoding} if self.content_encoding else {}
        return shown | ({"metadata": self.metadata} if self.metadata else {})


@dataclass
class Bucket:
    """A flat table of objects, and who may do what with them."""

    name: str
    location: str = "US-CENTRAL1"
    denied: set[str] = field(default_factory=set)
    """Of PERMISSIONS."""
    objects: dict[str, Stored] = field(default_factory=dict)


@dataclass
class Session:
    """A resumable upload under way."""

    bucket: str
    params: dict[str, str]
    resource: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    done: Stored | None = None


class World:
    """All buckets; every change is atomic under one lock, as the service promises."""

    def __init__(self, folder: Path | None = None, writes_per_s: float | None = None) -> None:
        self.lock = threading.RLock()
        self.buckets: dict[str, Bucket] = {}
        self.sessions: dict[str, Session] = {}
        self.folder = folder
        self.writes_per_s = writes_per_s
        """Writes a second to one name, beyond which 429; None: no limit."""
        self.clock: Callable[[], float] = time.monotonic
        self.seen: Callable[[Stored], None] = lambda stored: None
        """Told of each object as it is put, in order."""
        self._written: dict[tuple[str, str], float] = {}
        self._generation = 0
        if folder is not None:
            self._load(folder)

    def add_bucket(
        self, name: str, location: str = "US-CENTRAL1", denied: set[str] | None = None
    ) -> Bucket:
        """Make a bucket, or change where it lies and who may use it."""
        with self.lock:
            bucket = self.buckets.setdefault(name, Bucket(name))
            bucket.location, bucket.denied = location, set(denied or ())
            self._keep_bucket(bucket)
            return bucket

    def bucket(self, name: str, *verbs: str) -> Bucket:
        """Return a bucket on which all of these are allowed."""
        bucket = self.buckets.get(name)
        if bucket is None:
            raise Rejected(404, "notFound", "The specified bucket does not exist.")
        for verb in verbs:
            if verb in bucket.denied:
                right = PERMISSIONS[verb]
                raise Rejected(
                    403,
                    "forbidden",
                    f"someone@example.com does not have {right} access to the Google Cloud Storage "
                    f"{'bucket' if verb == 'bucket' else 'object'}. Permission '{right}' denied on "
                    "resource (or it may not exist).",
                )
        return bucket

    def get(self, bucket: str, name: str, params: Params, *verbs: str) -> Stored:
        """Return an object whose preconditions hold."""
        with self.lock:
            found = self.bucket(bucket, *(verbs or ("get",))).objects.get(name)
            wanted = params.get("generation")
            if found is None or wanted not in (None, str(found.generation)):
                raise Rejected(404, "notFound", f"No such object: {bucket}/{name}")
            _check(found, params, reading=not verbs)
            return found

    def put(self, bucket: str, params: Params, resource: Mapping[str, Any], data: bytes) -> Stored:
        """Write an object at a new generation, if its checksums and preconditions hold."""
        name = params.get("name") or resource.get("name")
        if not name or len(name.encode()) > 1024:
            raise Rejected(400, "required", "Required parameter: name")
        for kind, found in checksums(data).items():
            if resource.get(kind, found) != found:
                raise Rejected(
                    400,
                    "invalid",
                    f'Provided {kind} "{resource[kind]}" doesn\'t match calculated {kind} '
                    f'"{found}".',
                )
        with self.lock:
            home = self.bucket(bucket, "create")
            there = home.objects.get(name)
            if there is not None:
                self.bucket(bucket, "delete")  # to overwrite is to delete
            _check(there, params)
            self._limit(bucket, name)
            stored = Stored(
                name=name,
                data=bytes(data),
                generation=self._next_generation(),
                content_type=resource.get("contentType") or "application/octet-stream",
                metadata=dict(resource.get("metadata") or {}),
            )
            home.objects[name] = stored
            self._keep(bucket, stored)
            self.seen(stored)
            return stored

    def check_start(self, bucket: str, params: Params, resource: Mapping[str, Any]) -> None:
        """Refuse a resumable upload that could not end well as things stand."""
        with self.lock:
            name = params.get("name") or resource.get("name") or ""
            _check(self.bucket(bucket, "create").objects.get(name), params)

    def patch(self, bucket: str, name: str, params: Params, changes: Mapping[str, Any]) -> Stored:
        """Change the metadata of an object, which raises its metageneration."""
        with self.lock:
            found = self.get(bucket, name, params, "update")
            self._limit(bucket, name)
            for key, value in (changes.get("metadata") or {}).items():
                found.metadata.pop(key, None)
                if value is not None:
                    found.metadata[key] = value
            found.content_type = changes.get("contentType", found.content_type)
            found.metageneration += 1
            found.updated = time.time()
            self._keep(bucket, found)
            return found

    def delete(self, bucket: str, name: str, params: Params) -> None:
        """Remove an object whose preconditions hold."""
        with self.lock:
            found = self.get(bucket, name, params, "delete")
            del self.bucket(bucket).objects[name]
            if self.folder is not None:
                for file in self._files(bucket, found.name):
                    file.unlink(missing_ok=True)

    def listed(self, bucket: str, params: Params) -> dict[str, Any]:
        """Return one page of objects and prefixes."""
        prefix, delimiter = params.get("prefix", ""), params.get("delimiter", "")
        start = max(params.get("startOffset", ""), params.get("pageToken", ""))
        end, limit = params.get("endOffset"), int(params.get("maxResults") or 1000)
        rows: dict[str, Stored | None] = {}
        with self.lock:
            for name, stored in sorted(self.bucket(bucket, "list").objects.items()):
                if not name.startswith(prefix) or (end is not None and name >= end):
                    continue
                rest = name[len(prefix) :]
                cut = rest.find(delimiter) if delimiter else -1
                folder = prefix + rest[: cut + len(delimiter)] if cut >= 0 else None
                if (folder or name) >= start:
                    rows.setdefault(folder or name, None if folder else stored)
        names = sorted(rows)
        page = {name: rows[name] for name in names[:limit]}
        items = [stored.resource(bucket) for stored in page.values() if stored is not None]
        prefixes = [name for name, stored in page.items() if stored is None]
        found: dict[str, Any] = {"kind": "storage#objects"}
        found |= {"items": items} if items else {}
        found |= {"prefixes": prefixes} if prefixes else {}
        return found | ({"nextPageToken": names[limit]} if len(names) > limit else {})

    def begin(self, bucket: str, params: Params, resource: dict[str, Any]) -> str:
        """Open a resumable upload and return its id."""
        self.check_start(bucket, params, resource)
        upload = uuid.uuid4().hex
        with self.lock:
            self.sessions[upload] = Session(bucket, dict(params), resource)
        return upload

    def _next_generation(self) -> int:
        self._generation = max(self._generation + 1, time.time_ns() // 1000)
        return self._generation

    def _limit(self, bucket: str, name: str) -> None:
        if self.writes_per_s is None:
            return
        now, before = self.clock(), self._written.get((bucket, name))
        if before is not None and now - before < 1 / self.writes_per_s:
            raise Rejected(
                429,
                "rateLimitExceeded",
                f"The object {bucket}/{name} exceeded the rate limit for object mutation "
                "operations (create, update, and delete). Please reduce your request rate.",
            )
        self._written[bucket, name] = now

    # --- on disk, where a folder was given

    def _files(self, bucket: str, name: str) -> tuple[Path, Path]:
        assert self.folder is not None
        home = self.folder / bucket
        stem = hashlib.sha256(name.encode()).hexdigest()
        return home / f"{stem}.data", home / f"{stem}.json"

    def _keep(self, bucket: str, stored: Stored) -> None:
        if self.folder is None:
            return
        data, facts = self._files(bucket, stored.name)
        data.write_bytes(stored.data)
        facts.write_text(json.dumps(asdict(stored) | {"data": None}), encoding="utf-8")

    def _keep_bucket(self, bucket: Bucket) -> None:
        if self.folder is None:
            return
        (self.folder / bucket.name).mkdir(parents=True, exist_ok=True)
        about = {"location": bucket.location, "denied": sorted(bucket.denied)}
        (self.folder / bucket.name / "bucket").write_text(json.dumps(about), encoding="utf-8")

    def _load(self, folder: Path) -> None:
        for about in folder.glob("*/bucket"):
            facts = json.loads(about.read_text(encoding="utf-8"))
            home = Bucket(about.parent.name, facts["location"], set(facts["denied"]))
            self.buckets[home.name] = home
            for file in about.parent.glob("*.json"):
                data = file.with_suffix(".data").read_bytes()
                stored = Stored(**json.loads(file.read_text(encoding="utf-8")) | {"data": data})
                home.objects[stored.name] = stored
                self._generation = max(self._generation, stored.generation)


def checksums(data: bytes) -> dict[str, str]:
    """Return both checksums in base64, as the JSON API writes them."""
    crc32c = google_crc32c.value(bytes(data)).to_bytes(4, "big")
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    return {
        "crc32c": base64.b64encode(crc32c).decode(),
        "md5Hash": base64.b64encode(md5).decode(),
    }


def _check(found: Stored | None, params: Params, *, reading: bool = False) -> None:
    """Hold an object, or its absence, against the preconditions of a request."""
    generation = found.generation if found else 0
    metageneration = found.metageneration if found else 0
    for name in CONDITIONS:
        if name not in params:
            continue
        there = metageneration if "Meta" in name else generation
        is_equal = int(params[name]) == there
        if is_equal == name.endswith("NotMatch"):
            if reading and is_equal:
                raise Rejected(304, "notModified", "Not Modified")
            raise Rejected(
                412,
                "conditionNotMet",
                "At least one of the pre-conditions you specified did not hold.",
            )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
