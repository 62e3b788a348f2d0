"""Named bytes with compare-and-swap: the small interface, and a folder behind it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol
from uuid import uuid4

from filelock import FileLock, Timeout

from symbio_core.errors import (
    AlreadyExists,
    CheckpointDamaged,
    ConfigError,
    Damaged,
    DiskTooFull,
    NotWritable,
    SwapLost,
)

# No segment starts with a dot, so neither `..` nor our own hidden files can be named.
_SEGMENT = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_KEY = re.compile(f"({_SEGMENT}/)*{_SEGMENT}")
_PREFIX = re.compile(f"({_SEGMENT}/)*({_SEGMENT})?")
_TEMPORARY = ".part-"
_LOCK = ".lock"
_POLL_S = 0.005
_LOCK_S = 120.0
_LEFT_OVER = re.compile(f"{re.escape(_TEMPORARY)}[0-9a-f]{{32}}")
LEFT_OVER_S = 3600.0
"""A half-written file of this age belongs to nobody any more (s)."""
HUGE_BYTES = 1_000_000_000
"""A file beyond this has to have been written, not only declared, before it is read."""
HOLLOW = 8
"""Of such a file at least one byte in so many was written; the zeros of moments may be holes."""
MAX_TEXT_BYTES = 256_000_000
"""Longest configuration, journal segment, manifest or pointer that is read at all."""
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Versioned:
    """What a key holds, and the version a swap has to name."""

    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store knows of a key without reading what it holds."""

    size: int
    """Length (bytes)."""
    sha256: str | None
    """Hash of the content, hex, where the store vouches for it; None where it must be read."""


class ObjectStore(Protocol):
    """Where runs live. Every write is whole or not there at all, also for a reader beside it.

    Keys are segments of letters, digits, ``.``, ``_`` and ``-`` with ``/`` between them. A key of
    another form raises ConfigError; a failure of the medium raises StorageError.
    """

    def read(self, key: str) -> Versioned | None:
        """Return what ``key`` holds, or None."""

    def facts(self, key: str) -> Facts | None:
        """Return what is known of ``key`` without reading what it holds, or None."""

    def sha256(self, key: str) -> str | None:
        """Return the hash (hex) of what ``key`` holds after reading it in little memory, or None.

        Raises:
            CheckpointDamaged: it claims more than was written.
        """

    def size(self, key: str) -> int | None:
        """Return the length of what ``key`` holds (bytes) without reading it, or None."""

    def exists(self, key: str) -> bool:
        """Say whether ``key`` holds anything."""

    def create(self, key: str, data: bytes) -> str:
        """Write ``key`` once and return its version; equal content that is there already is fine.

        Raises:
            AlreadyExists: other content is there.
        """

    def swap(self, key: str, data: bytes, expected_version: str | None) -> str:
        """Replace the expected version (None: nothing there yet) and return the new version.

        Raises:
            SwapLost: something else is there.
        """

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below ``prefix`` (ends in ``/``), sorted."""

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there."""

    def where(self, key: str) -> str:
        """Return the address of ``key`` as a person would open it."""

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Try to write, and see that so much space is free.

        Raises:
            NotWritable: writing is refused.
            DiskTooFull: it would not fit.
        """


def open_store(root: str, *, location: str | None = None) -> ObjectStore:
    """Return the store behind a storage root: a folder, or `gs://bucket/prefix`.

    Args:
        root: path or address.
        location: where a bucket has to lie, for example `us-central1`; None: anywhere.

    Raises:
        ConfigError: the root is a file, or of a kind that this version does not keep runs in.
    """
    if root.startswith("gs://"):
        from symbio_core.storage.gcs import BucketStore

        return BucketStore(root, location=location)
    if "://" in root:
        raise ConfigError(
            f"storage root '{root}' is neither a folder nor gs://bucket/prefix; give one of them"
        )
    if os.path.isfile(root):
        raise ConfigError(f"storage root '{root}' is a file; give a folder or gs://bucket/prefix")
    return FolderStore(Path(root))


def check_key(key: str) -> None:
    """Refuse a name that could lead elsewhere.

    Raises:
        ConfigError: it is not of the form that a store can hold.
    """
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key!r} is not a name that a store can hold; {_RULE}")


def check_prefix(prefix: str) -> None:
    """Refuse a start of names that could lead elsewhere.

    Raises:
        ConfigError: no name can begin like this.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"{prefix!r} is not the start of a name in a store; {_RULE}")


def read_text(store: ObjectStore, key: str) -> Versioned | None:
    """Return what a key holds that people could read: nothing of ours is as long as a gigabyte.

    Raises:
        CheckpointDamaged: it is longer than any text of a run; it was not read.
    """
    size = store.size(key)
    if size is not None and size > MAX_TEXT_BYTES:
        raise CheckpointDamaged(
            f"{store.where(key)} has {size / 1e6:.0f} MB, more than any text of a run: it is "
            "damaged or not of symbio; put back a copy of it"
        )
    return store.read(key)


def is_key(key: str) -> bool:
    """Say whether a store can hold something of this name."""
    return _KEY.fullmatch(key) is not None


class FolderStore:
    """Keys are paths below a folder; the version of a key is the hash of its content.

    Content is written to a hidden file beside its place and synced; only then, under one lock for
    the root, it is renamed into place. So threads and processes may share a root, and a process
    that dies at any instruction leaves the old content or the new, and at worst a hidden file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> Versioned | None:
        """Return what ``key`` holds, or None."""
        path = self._path(key)
        try:
            if _readable(path) is None:
                return None
            data = path.read_bytes()
        except _ABSENT:
            return None
        except MemoryError:
            _too_large(path, path.stat().st_size)
        except OSError as error:
            _cannot_read(path, error)
        return Versioned(data, _version(data))

    def facts(self, key: str) -> Facts | None:
        """Return the length of ``key``; a disk vouches for no content."""
        size = self.size(key)
        return None if size is None else Facts(size, None)

    def sha256(self, key: str) -> str | None:
        """Return the hash (hex) of what ``key`` holds, or None."""
        path = self._path(key)
        try:
            if _readable(path) is None:
                return None
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except _ABSENT:
            return None
        except OSError as error:
            _cannot_read(path, error)

    def size(self, key: str) -> int | None:
        """Return the length of what ``key`` holds (bytes), or None."""
        path = self._path(key)
        try:
            return path.stat().st_size if path.is_file() else None
        except _ABSENT:
            return None
        except OSError as error:
            _cannot_read(path, error)

    def exists(self, key: str) -> bool:
        """Say whether ``key`` holds anything."""
        return self.size(key) is not None

    def create(self, key: str, data: bytes) -> str:
        """Write ``key`` once; see `ObjectStore.create`."""
        path = self._path(key)
        self._stay_inside(key)
        if self._is_new(path, data):
            with self._writing(path), self._temporary(path, data) as temporary, self._lock():
                if self._is_new(path, data):
                    _move(temporary, path)
        else:
            # Whoever moved it here may have died before its name was on the disk.
            with self._writing(path):
                _sync_folder(path.parent)
        return _version(data)

    def swap(self, key: str, data: bytes, expected_version: str | None) -> str:
        """Replace a version; see `ObjectStore.swap`."""
        path = self._path(key)
        if expected_version is not None:
            # Before folders are made: where the root is gone, none is begun in its place.
            self._expect(key, expected_version)
        self._stay_inside(key)
        with self._writing(path), self._temporary(path, data) as temporary, self._lock():
            self._expect(key, expected_version)
            _move(temporary, path)
        return _version(data)

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""
        found = []
        for folder, _, files in os.walk(self._folder(prefix), onerror=_unless_absent):
            below = Path(folder).relative_to(self.root)
            found += [(below / name).as_posix() for name in files]
        return sorted(key for key in found if key.startswith(prefix) and _KEY.fullmatch(key))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below ``prefix``, sorted."""
        _, folders, _ = next(
            os.walk(self._folder(prefix), onerror=_unless_absent), ("", list[str](), list[str]())
        )
        return sorted(name for name in folders if _KEY.fullmatch(name))

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there."""
        path = self._path(key)
        self._stay_inside(key)
        if self.exists(key):
            with self._writing(path), self._lock(), suppress(FileNotFoundError):
                os.unlink(path)
                # Deletions reach the disk in order: a manifest goes before its blobs.
                _sync_folder(path.parent)

    def where(self, key: str) -> str:
        """Return the path of ``key``."""
        return str(self._path(key))

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Try to write, and see that so much space is free."""
        probe = self.root / "probe"
        with suppress(NotWritable):
            self.sweep()
        with self._writing(probe), self._temporary(probe, b"symbio"), self._lock():
            free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise DiskTooFull(
                f"{self.root} has {free / 1e9:.2f} GB free and this run needs about "
                f"{needed_bytes / 1e9:.2f} GB; free some space or give another --storage"
            )

    def sweep(self, older_than_s: float = LEFT_OVER_S) -> int:
        """Remove what processes that died in the midst of a write have left; return how many.

        Only files under the names that this store gives, and none that is younger: a write takes
        seconds, and one that slept for longer than this finds its file gone and says so.
        """
        now, removed = time.time(), 0
        with self._writing(self.root / _LOCK), self._lock():
            for folder, _, files in os.walk(self.root):
                for name in files:
                    path = Path(folder, name)
                    if _LEFT_OVER.fullmatch(name) and now - path.lstat().st_mtime > older_than_s:
                        os.unlink(path)
                        removed += 1
        return removed

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key

    def _stay_inside(self, key: str) -> None:
        # Whole runs may lie on another disk; inside of one, a link leads where nothing of it is.
        parts = key.split("/")
        for end in range(3, len(parts)):
            folder = self.root.joinpath(*parts[:end])
            if folder.is_symlink():
                raise NotWritable(
                    f"{folder} is a link and would lead out of the run; put a folder in its place"
                )

    def _folder(self, prefix: str) -> Path:
        check_prefix(prefix)
        return self.root / prefix.rpartition("/")[0]

    def _expect(self, key: str, version: str | None) -> None:
        found = self.read(key)
        if (found.version if found else None) != version:
            raise SwapLost(
                f"{self.where(key)} was changed by somebody else in the meantime; see that only "
                "one process works on this run, then resume it"
            )

    def _is_new(self, path: Path, data: bytes) -> bool:
        found = self.read(path.relative_to(self.root).as_posix())
        if found is not None and found.data != data:
            raise AlreadyExists(
                f"{path} holds other content already and is written only once; "
                "see that no other process works on this run"
            )
        return found is None

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            _make_folder(path.parent)
            yield
        except (OSError, NotImplementedError) as error:  # the latter: no locks on this file system
            if isinstance(error, Timeout):
                raise NotWritable(
                    f"another process has held {self.root / _LOCK} for {_LOCK_S:.0f} s, so it was "
                    "stopped in the midst of a write; let it go on, or end it"
                ) from error
            number = getattr(error, "errno", None)
            if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskTooFull(
                    f"no space left to write {path}; what was saved before is whole: "
                    "free some space and resume"
                ) from error
            why = os.strerror(number) if number else str(error)
            raise NotWritable(
                f"cannot write {path} ({why}); check the rights of {self.root} "
                "or give another --storage"
            ) from error

    @contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[str]:
        name = str(path.with_name(f"{_TEMPORARY}{uuid4().hex}"))
        # Not tempfile, which hides files from all others: the umask says who may read a report.
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield name
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)

    def _lock(self) -> FileLock:
        # A new object each time: it shuts out other threads as well as other processes.
        return FileLock(self.root / _LOCK, timeout=_LOCK_S, poll_interval=_POLL_S)


_RULE = "names are letters, digits, '.', '_' and '-', with '/' between folders"


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _move(temporary: str, path: Path) -> None:
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _readable(path: Path) -> int | None:
    """Return the length of a file of ours (bytes); None for a pipe or a device: it never ends.

    Raises:
        CheckpointDamaged: it claims more than was written.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        return None
    if facts.st_size > HUGE_BYTES and _written_bytes(path, facts.st_size) < facts.st_size:
        _too_large(path, facts.st_size)
    return facts.st_size


def _written_bytes(path: Path, size: int) -> int:
    """Return how much of a file is no hole, as soon as that is a share that ours may have.

    A disk may keep the zeros that we write, such as moments of fresh weights, as holes.
    """
    enough, found, at = size // HOLLOW, 0, 0
    with path.open("rb") as file:
        while found <= enough:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return found
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found += at - start
    return size


def _too_large(path: Path, size: int) -> NoReturn:
    raise CheckpointDamaged(
        f"{path} claims {size / 1e9:.1f} GB, more than was written or than memory holds: it is "
        "damaged or not of symbio; put back a copy of it"
    ) from None


def _cannot_read(path: Path | str, error: OSError) -> NoReturn:
    raise Damaged(
        f"cannot read {path} ({error.strerror or error}); check its rights and the disk"
    ) from error


def _unless_absent(error: OSError) -> None:
    # A folder that cannot be listed must not look empty: what it holds would seem unreferenced.
    if not isinstance(error, _ABSENT):
        _cannot_read(error.filename, error)
