"""Named bytes with compare-and-swap: the small interface, and a folder behind it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from symbio_core.errors import AlreadyExists, ConfigError, DiskTooFull, NotWritable, SwapLost

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_TEMPORARY = ".part-"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Versioned:
    """What a key holds, and the version a swap has to name."""

    data: bytes
    version: str


class ObjectStore(Protocol):
    """Where runs live. Every write is whole or not there at all."""

    def read(self, key: str) -> Versioned | None:
        """Return what ``key`` holds, or None."""

    def size(self, key: str) -> int | None:
        """Return the length of what ``key`` holds (bytes) without reading it, or None."""

    def create(self, key: str, data: bytes) -> str:
        """Write ``key`` once and return its version; equal content that is there already is fine.

        Raises:
            AlreadyExists: other content is there.
        """

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the version ``expected`` (None: nothing there yet) and return the new version.

        Raises:
            SwapLost: somebody else was faster.
        """

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there."""

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Try to write, and see that so much space is free.

        Raises:
            NotWritable: writing is refused.
            DiskTooFull: it would not fit.
        """


def open_store(root: str) -> ObjectStore:
    """Return the store behind a storage root.

    Raises:
        ConfigError: the root is of a kind that this version does not keep runs in.
    """
    if "://" in root:
        raise ConfigError(
            f"storage root '{root}' is not a folder; this version keeps runs in a folder: "
            "give a path"
        )
    return FolderStore(Path(root))


class FolderStore:
    """Keys are paths below a folder; the version of a key is the hash of its content."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> Versioned | None:
        """Return what ``key`` holds, or None."""
        try:
            data = self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return Versioned(data, _version(data))

    def size(self, key: str) -> int | None:
        """Return the length of what ``key`` holds (bytes), or None."""
        try:
            return self._path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, key: str, data: bytes) -> str:
        """Write ``key`` once; see `ObjectStore.create`."""
        path = self._path(key)
        with self._writing(path), self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # fails where the name is taken, unlike a rename
                _sync_folder(path.parent)
            except FileExistsError:
                if path.read_bytes() != data:
                    raise AlreadyExists(f"{path} holds other content already") from None
        return _version(data)

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace a version; see `ObjectStore.swap`."""
        path = self._path(key)
        with self._writing(path), FileLock(str(self.root / _LOCK)):
            found = self.read(key)
            if (found.version if found else None) != expected:
                raise SwapLost(f"{path} was changed by somebody else in the meantime")
            with self._temporary(path, data) as temporary:
                os.replace(temporary, path)
                _sync_folder(path.parent)
        return _version(data)

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""
        folder = self.root / prefix.rpartition("/")[0]
        found = []
        for path in folder.rglob("*") if folder.is_dir() else ():
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and _KEY.fullmatch(key) and path.is_file():
                found.append(key)
        return sorted(found)

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there."""
        path = self._path(key)
        with self._writing(path), suppress(FileNotFoundError):
            path.unlink()

    def check_writable(self, needed_bytes: int = 0) -> None:
        """Try to write, and see that so much space is free."""
        probe = self.root / f"{_TEMPORARY}probe-{os.getpid()}"
        with self._writing(probe):
            probe.write_bytes(b"symbio")
            probe.unlink()
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise DiskTooFull(
                f"{self.root} has {free / 1e9:.1f} GB free and this run needs about "
                f"{needed_bytes / 1e9:.1f} GB; free some space or give another --storage"
            )

    def path(self, key: str) -> Path:
        """Return where ``key`` lies, for people and tools that want a file."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ConfigError(f"'{key}' is not a name that a store can hold")
        return self.root / key

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskTooFull(
                    f"the disk under {self.root} is full; what was saved before is whole. "
                    "Free some space and resume"
                ) from error
            if isinstance(error, FileNotFoundError) and not self.root.parent.exists():
                raise
            raise NotWritable(
                f"cannot write to storage root {self.root} ({error.strerror or error}); "
                "check its rights or give another --storage"
            ) from error

    @contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[str]:
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield name
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
