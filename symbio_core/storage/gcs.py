"""A bucket of Google Cloud Storage behind the interface that a folder has.

The version of a key is its generation, and every write and delete names the generation that it
found. A reply may get lost and the client then tries again, so a refused precondition is believed
only after a look at who wrote what is there: each write leaves its own mark in the metadata, and
carries on the marks of those before it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any
from uuid import uuid4

from symbio_core.errors import (
    AlreadyExists,
    BucketRefused,
    BucketUnreachable,
    CheckpointDamaged,
    ConfigError,
    StorageError,
    SwapLost,
)
from symbio_core.storage.gcs_failures import status_of, told
from symbio_core.storage.objects import Facts, Versioned, check_key, check_prefix, is_key
from symbio_core.storage.pacing import Pacer

SCHEME = "gs://"
ENDPOINT_VARIABLE = "STORAGE_EMULATOR_HOST"
"""Environment variable with another address of the service, which is then asked anonymously."""
QUIET_VARIABLE = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
"""Environment variable that keeps the client from asking for buckets in threads of its own."""
INSTALL = "pip install 'google-cloud-storage>=3.4,<4'"
RETRY_S = 120.0
"""How long one request is tried again (s)."""
TIMEOUT_S = 60.0
"""How long an answer is waited for (s)."""
CHUNK_BYTES = 32 * 1024 * 1024
"""Piece of a large upload; a broken connection costs at most one (bytes)."""
ONE_REQUEST_BYTES = 8 * 1024 * 1024
"""The client sends more than this in a resumable session (bytes)."""
WORTH_A_LOOK_BYTES = 256 * 1024
"""Beyond this it is cheaper to ask whether equal content is there than to send it (bytes)."""
TRIES = 5
"""Uploads of one content: a session may get lost, content may be damaged on its way."""
PRECONDITION_FAILED = 412
DAMAGED = (400,)
"""Answer to content that is not what its checksum says."""
LOST_OR_DAMAGED = (400, 404, 410)
"""The same for an upload in a session, which the service may have forgotten."""
READS = 10
"""Looks at an object that is replaced between its description and its content."""
DAMAGED_READS = 4
"""Downloads of one object that may come otherwise than it was written: then it is the object."""
REMEMBERED = 24
"""Writes whose marks an object carries on."""
_BUCKET = re.compile("[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_GENERATION = re.compile("[1-9][0-9]{0,18}")
_SHA256, _WRITER, _BEFORE = "symbio-sha256", "symbio-writer", "symbio-before"
_PACER = Pacer()


class BucketStore:
    """Keys are object names below a prefix; the version of a key is its generation.

    Threads may share it: each gets a client of its own.
    """

    def __init__(
        self,
        root: str,
        *,
        location: str | None = None,
        endpoint: str | None = None,
        client: Any = None,
        retry: Any = None,
        timeout_s: float = TIMEOUT_S,
        pacer: Pacer | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Name a bucket; nothing is asked of it yet.

        Args:
            root: `gs://bucket` or `gs://bucket/prefix`.
            location: where the bucket has to lie; None: anywhere. `check_writable` looks.
            endpoint: address of the service; None takes STORAGE_EMULATOR_HOST, else Google's.
            client: a `google.cloud.storage.Client` to use in all threads.
            retry: a `google.api_core.retry.Retry`; None: `retry_policy`.
            timeout_s: how long an answer is waited for (s).
            pacer: keeps writes to one name apart; None: one for this process, a write a second.
            chunk_bytes: piece of a large upload, a multiple of 256 KiB (bytes).

        Raises:
            ConfigError: the root is not such an address.
            BucketRefused: Google's client is not installed.
        """
        self.bucket_name, self._prefix = split_address(root)
        self.location = location
        self._endpoint, self._given = endpoint, client
        self._failures = failures()
        self._retry, self._timeout_s = retry or retry_policy(), timeout_s
        self._pacer, self._chunk_bytes = pacer or _PACER, chunk_bytes
        self._local = threading.local()

    # --- the interface of a store

    def read(self, key: str) -> Versioned | None:
        """Return what ``key`` holds, or None.

        Raises:
            CheckpointDamaged: again and again it came otherwise than it was written.
        """
        check_key(key)
        with self._telling("read", key):
            damaged = 0
            for _ in range(READS):
                facts = self._facts(key)
                if facts is None:
                    return None
                data = self._downloaded(facts)
                if data is None:
                    continue
                if is_whole(facts, data):
                    return Versioned(data, str(facts.generation))
                damaged += 1
                if damaged == DAMAGED_READS:
                    raise CheckpointDamaged(
                        f"{self.where(key)} does not match the hash it was written with; "
                        "put back a copy of it, or go on from another checkpoint"
                    )
            raise StorageError(f"{self.where(key)} is replaced faster than it can be read")

    def facts(self, key: str) -> Facts | None:
        """Return the length of ``key``, and the hash that its writer gave it.

        An object changes by being replaced, and whoever else replaces it leaves no hash of ours.
        """
        check_key(key)
        with self._telling("read", key):
            facts = self._facts(key)
        return facts and Facts(int(facts.size), (facts.metadata or {}).get(_SHA256))

    def sha256(self, key: str) -> str | None:
        """Return the hash (hex) of what ``key`` holds, or None."""
        found = self.read(key)
        return None if found is None else hashlib.sha256(found.data).hexdigest()

    def size(self, key: str) -> int | None:
        """Return the length of what ``key`` holds (bytes), or None."""
        check_key(key)
        with self._telling("read", key):
            facts = self._facts(key)
        return None if facts is None else int(facts.size)

    def exists(self, key: str) -> bool:
        """Say whether ``key`` holds anything."""
        return self.size(key) is not None

    def create(self, key: str, data: bytes) -> str:
        """Write ``key`` once; see `ObjectStore.create`."""
        check_key(key)
        with self._telling("create", key):
            if len(data) > WORTH_A_LOOK_BYTES and (there := self._same(key, data)):
                return there
            while True:
                try:
                    version = self._upload(key, data, 0, marks(data))
                except BucketUnreachable:
                    # What is missing may be no more than the answer.
                    version = self._same(key, data)
                    if version is None:
                        raise
                version = version or self._same(key, data)
                if version:
                    return version

    def swap(self, key: str, data: bytes, expected_version: str | None) -> str:
        """Replace a version; see `ObjectStore.swap`."""
        check_key(key)
        with self._telling("create", key):
            generation, before = self._expected(key, expected_version)
            ours = marks(data, before)
            try:
                version = self._upload(key, data, generation, ours)
            except BucketUnreachable:
                version = self._won(key, ours)
                if version is None:
                    raise
            version = version or self._won(key, ours)
        if version is None:
            raise self._lost(key)
        return version

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""
        check_prefix(prefix)
        with self._telling("list", prefix):
            rows = self._listed(prefix, fields="items(name),nextPageToken")
            names = [row.name.removeprefix(self._prefix) for row in rows]
        return sorted(name for name in names if is_key(name))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below ``prefix``, sorted."""
        check_prefix(prefix)
        home = prefix[: prefix.rfind("/") + 1]
        with self._telling("list", prefix):
            rows = self._listed(home, delimiter="/", fields="prefixes,nextPageToken")
            found = {name for page in rows.pages for name in page.prefixes}
        names = [name.removeprefix(self._prefix + home).rstrip("/") for name in found]
        return sorted(name for name in names if is_key(name))

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there."""
        check_key(key)
        with self._telling("delete", key):
            for _ in range(READS):
                facts = self._facts(key)
                if facts is None or self._deleted(facts.name, facts.generation):
                    return
        raise StorageError(f"{self.where(key)} is replaced faster than it can be deleted")

    def where(self, key: str) -> str:
        """Return the address of ``key``."""
        return f"{SCHEME}{self.bucket_name}/{self._prefix}{key}"

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Create, read, list and delete a probe, and see that the bucket lies where it should.

        Raises:
            BucketRefused: no such bucket, no credentials, no right to read or list, elsewhere.
            NotWritable: no right to create or to delete.
        """
        if self.location is not None:
            self._check_location(self.location)
        # No key begins with a dot, so nobody ever lists it.
        probe = f".probe-{uuid4().hex}"
        with self._telling("create", probe):
            version = self._upload(probe, b"symbio", 0, marks(b"symbio"))
        try:
            with self._telling("read", probe):
                facts = self._facts(probe)
                if facts is not None:
                    self._downloaded(facts)
                    # A lost reply, its repeat refused: the probe is there all the same.
                    version = version or str(facts.generation)
            with self._telling("list", ""):
                next(iter(self._listed("", max_results=1)), None)
        except StorageError:
            with suppress(*self._failures):
                self._deleted(self._prefix + probe, version or 0)
            raise
        with self._telling("delete", probe):
            self._deleted(self._prefix + probe, version or 0)

    # --- one request each

    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        kept = getattr(self._local, "kept", None)
        if kept is None or kept[0] != os.getpid():  # a forked process shares no connections
            kept = (os.getpid(), connect(self._endpoint))
            self._local.kept = kept
        return kept[1]

    def _how(self) -> dict[str, Any]:
        return {"retry": self._retry, "timeout": self._timeout_s}

    def _facts(self, key: str) -> Any:
        bucket = self._client().bucket(self.bucket_name)
        return bucket.get_blob(self._prefix + key, **self._how())

    def _downloaded(self, facts: Any) -> bytes | None:
        """Return the content of that very generation, or None if it is no longer there."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            # Our own hash is checked afterwards; a checksum here would be skipped by retries.
            data = facts.download_as_bytes(
                if_generation_match=facts.generation,
                checksum=None,
                raw_download=True,
                **self._how(),
            )
        except (NotFound, PreconditionFailed):
            return None
        return bytes(data)

    def _upload(
        self, key: str, data: bytes, generation: int, metadata: Mapping[str, str]
    ) -> str | None:
        """Write over that generation and return the new one, or None if another is there."""
        again = LOST_OR_DAMAGED if len(data) > ONE_REQUEST_BYTES else DAMAGED
        for left in reversed(range(TRIES)):
            self._pacer.wait(self.where(key))
            try:
                return self._sent(key, data, generation, metadata)
            except self._failures as error:
                if status_of(error) == PRECONDITION_FAILED:
                    return None
                if not left or status_of(error) not in again:
                    raise told(error, "create", self.bucket_name, self.where(key)) from error
        raise AssertionError("unreachable")

    def _sent(self, key: str, data: bytes, generation: int, metadata: Mapping[str, str]) -> str:
        is_large = len(data) > ONE_REQUEST_BYTES
        bucket = self._client().bucket(self.bucket_name)
        blob = bucket.blob(self._prefix + key, chunk_size=self._chunk_bytes if is_large else None)
        blob.metadata = dict(metadata)
        # For a session the hash goes ahead and the service compares: the client's own comparison
        # would answer a difference by a delete without any precondition.
        hashed = {"checksum": None, "crc32c_checksum_value": crc32c(data)} if is_large else {}
        blob.upload_from_file(
            io.BytesIO(data),
            size=len(data),
            content_type="application/octet-stream",
            if_generation_match=generation,
            retry=self._paced(self.where(key)),
            timeout=self._timeout_s,
            **hashed,
        )
        return str(blob.generation)

    def _paced(self, name: str) -> Any:
        """Return the way to try again, in which every try waits until ``name`` may be written.

        The pieces of one session follow each other at once: only the last of them writes.
        """

        def policy(request: Callable[[], Any]) -> Callable[[], Any]:
            is_first = True

            def send() -> Any:
                nonlocal is_first
                if not is_first:
                    self._pacer.wait(name)
                is_first = False
                try:
                    return request()
                finally:
                    # Counted from the answer: nobody knows when the service took it up, or whether.
                    self._pacer.hold(name)

            sent: Callable[[], Any] = self._retry(send)
            return sent

        return policy

    def _deleted(self, name: str, generation: int | str) -> bool:
        """Delete that generation; False if another is there."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        bucket = self._client().bucket(self.bucket_name)
        try:
            bucket.delete_blob(name, if_generation_match=generation, **self._how())
        except NotFound:
            return True  # also after a lost reply
        except PreconditionFailed:
            return False
        return True

    def _listed(self, prefix: str, **how: Any) -> Any:
        return self._client().list_blobs(
            self.bucket_name, prefix=self._prefix + prefix, **how, **self._how()
        )

    # --- who wrote what is there

    def _same(self, key: str, data: bytes) -> str | None:
        """Return the version of equal content; None if there is nothing.

        Raises:
            AlreadyExists: there is other content.
        """
        facts = self._facts(key)
        if facts is None:
            return None
        told = (facts.metadata or {}).get(_SHA256)
        if (
            int(facts.size) != len(data)
            or facts.crc32c != crc32c(data)
            or told not in (None, hashlib.sha256(data).hexdigest())
        ):
            raise AlreadyExists(
                f"{self.where(key)} holds other content already and is written only once; "
                "see that no other process works on this run"
            )
        return str(facts.generation)

    def _expected(self, key: str, version: str | None) -> tuple[int, str]:
        """Return the generation to write over, and the marks of its writers."""
        if version is None:
            return 0, ""
        facts = self._facts(key) if _GENERATION.fullmatch(version) else None
        if facts is None or str(facts.generation) != version:
            raise self._lost(key)
        told = facts.metadata or {}
        before = [f"{told.get(_WRITER, '')}@{version}", *told.get(_BEFORE, "").split(",")]
        return int(version), ",".join(before[:REMEMBERED])

    def _won(self, key: str, ours: Mapping[str, str]) -> str | None:
        """Return the version that our write became, also where others wrote over it since."""
        facts = self._facts(key)
        told = (facts.metadata or {}) if facts is not None else {}
        if told.get(_WRITER) == ours[_WRITER]:
            return str(facts.generation)
        for mark in told.get(_BEFORE, "").split(","):
            writer, _, version = mark.partition("@")
            if writer == ours[_WRITER]:
                return str(version)
        return None

    def _lost(self, key: str) -> SwapLost:
        return SwapLost(
            f"{self.where(key)} was changed by somebody else in the meantime; see that only one "
            "process works on this run, then resume it"
        )

    def _check_location(self, wanted: str) -> None:
        with self._telling("bucket", ""):
            found = self._client().get_bucket(self.bucket_name, **self._how()).location
        if str(found).casefold() != wanted.casefold():
            raise BucketRefused(
                f"bucket {SCHEME}{self.bucket_name} lies in {found} and storage.location asks for "
                f"{wanted}; name a bucket there, or change storage.location"
            )

    @contextmanager
    def _telling(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise told(error, doing, self.bucket_name, self.where(key)) from error


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the prefix of `gs://bucket/prefix`; the prefix is empty or ends in /.

    Raises:
        ConfigError: it is not such an address.
    """
    bucket, _, rest = address.removeprefix(SCHEME).partition("/")
    rest = rest.strip("/")
    if not address.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"'{address}' names no bucket; write gs://bucket/prefix, the bucket in small letters"
        )
    if rest:
        check_key(rest)
    return bucket, f"{rest}/" if rest else ""


def connect(endpoint: str | None = None) -> Any:
    """Return a client of Cloud Storage.

    Args:
        endpoint: address to ask anonymously; None takes STORAGE_EMULATOR_HOST, and else Google's
            with the credentials of whoever runs this.

    Raises:
        BucketRefused: there are no credentials.
    """
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud.storage import Client

    # Such a thread would share our connections and need a right that we can do without.
    os.environ.setdefault(QUIET_VARIABLE, "true")
    endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    if endpoint:
        address = endpoint if "://" in endpoint else f"http://{endpoint}"
        return Client(
            project=None,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": address},
        )
    try:
        return Client(project=None)
    except DefaultCredentialsError as error:
        raise BucketRefused(
            "no credentials for Google Cloud were found; run: gcloud auth application-default "
            "login (on a machine of Google: give it a service account)"
        ) from error


def retry_policy() -> Any:
    """Return the client's own way to try again, for RETRY_S seconds."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_S)


def failures() -> tuple[type[Exception], ...]:
    """Return everything that the client may raise when a request fails.

    Raises:
        BucketRefused: the client is not installed.
    """
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import InvalidResponse
    except ImportError as error:
        raise BucketRefused(
            f"Cloud Storage needs a package that is not installed; run: {INSTALL}"
        ) from error
    # The errors of requests are OSErrors.
    return (GoogleAPIError, GoogleAuthError, InvalidResponse, OSError, HTTPException)


def marks(data: bytes, before: str = "") -> dict[str, str]:
    """Return the metadata of a write: hash of its content, its own mark, the marks before it."""
    found = {_SHA256: hashlib.sha256(data).hexdigest(), _WRITER: uuid4().hex[:16]}
    return found | ({_BEFORE: before} if before else {})


def crc32c(data: bytes) -> str:
    """Return the checksum that Cloud Storage knows each object by, in base64."""
    import google_crc32c

    return base64.b64encode(int(google_crc32c.value(data)).to_bytes(4, "big")).decode()


def is_whole(facts: Any, data: bytes) -> bool:
    """Say whether downloaded content is what was written; content of others has a checksum only."""
    told = (facts.metadata or {}).get(_SHA256)
    if told is not None:
        return bool(told == hashlib.sha256(data).hexdigest())
    return len(data) == int(facts.size) and bool(facts.crc32c == crc32c(data))
