"""Stores to test, and faults to plant between two file operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symbio_core.storage import ObjectStore, RunStore, open_store
from tests.cloud.buckets import bucket_store
from tests.cloud.storage_server import StorageServer

KINDS = ("folder", "bucket")
"""Every kind of store has to pass the same tests; a new one joins here and in `new_store`."""
OPERATIONS = ("open", "mkdir", "fsync", "link", "replace", "unlink")
"""Calls through which a store changes a disk."""


@pytest.fixture(scope="session")
def cloud() -> Iterator[StorageServer]:
    """A Cloud Storage of our own, without faults; whoever plants some starts another."""
    with StorageServer() as server:
        yield server


def new_store(kind: str, folder: Path, cloud: StorageServer) -> ObjectStore:
    return bucket_store(cloud) if kind == "bucket" else open_store(str(folder))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, cloud: StorageServer) -> ObjectStore:
    return new_store(request.param, tmp_path / "root", cloud)


@pytest.fixture(params=KINDS, scope="module")
def shared(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cloud: StorageServer,
) -> ObjectStore:
    """One store for all examples of a property."""
    return new_store(request.param, tmp_path_factory.mktemp("shared") / "root", cloud)


@pytest.fixture
def run(store: ObjectStore) -> RunStore:
    return RunStore(store, "alpha")


class Died(BaseException):
    """The process was killed: nothing after it reaches the disk, not even tidying up."""


class Faults:
    """Counts the operations on the disk and breaks one of them, or all from one on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._fails: Any = lambda name, number: None
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._broken(name, getattr(os, name)))

    def refuse(self, operation: str, errno: int) -> None:
        """Let one kind of operation fail as a disk would."""
        error = OSError(errno, os.strerror(errno))
        self._arm(lambda name, number: error if name == operation else None)

    def dies(self, call: int, work: Callable[[], object]) -> bool:
        """Let nothing reach the disk from this operation on (from 0); say if that broke work."""
        self._arm(lambda name, number: Died() if number >= call else None)
        try:
            work()
        except Died:
            return True
        finally:
            self.heal()
        return False

    def heal(self) -> None:
        self._arm(lambda name, number: None)

    def _arm(self, fails: Any) -> None:
        self.calls, self._fails = 0, fails

    def _broken(self, name: str, real: Any) -> Any:
        def operation(*arguments: Any, **options: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            error = self._fails(name, number)
            if error is not None:
                raise error
            return real(*arguments, **options)

        return operation


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    planted = Faults(monkeypatch)
    yield planted
    planted.heal()
