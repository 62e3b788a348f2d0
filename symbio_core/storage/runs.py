"""A run's home: configuration, journal, snapshot of its state, checkpoints, metrics, files.

::

    runs/<run_id>/
        LEASE            who may write; see `Lease`
        config.json      written once            state.json     a snapshot, moved by its writer
        journal/         see `Journal`           checkpoints/   see `CheckpointStore`
        metrics/         tables as parquet       report/        files for people
"""

from __future__ import annotations

import io
import json
import re
from difflib import get_close_matches
from typing import Any

import pandas as pd

from symbio_core.errors import ConfigError, StorageError, SwapLost, UnknownRun
from symbio_core.storage.canonical import pretty_bytes
from symbio_core.storage.checkpoints import CheckpointStore
from symbio_core.storage.journal import Journal
from symbio_core.storage.lease import TTL_S, Lease
from symbio_core.storage.objects import ObjectStore, Versioned

_WRITER = "writer"
"""Key of the state under which its writer's tag stands."""
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class RunStore:
    """Everything of one run below ``runs/<run_id>/``."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(
                f"'{run_id}' is not a run name; use small letters, digits, '-', '_' and '.', "
                "at most 63, a letter or digit first"
            )
        self.store = store
        self.run_id = run_id
        self.home = f"runs/{run_id}"
        self.journal = Journal(store, run_id)
        self.checkpoints = CheckpointStore(store, run_id)
        self.lease: Lease | None = None
        self._state_version: str | None = None
        self._knows_state = False

    def claim(self, *, ttl_s: float = TTL_S, take_over: bool = False) -> list[dict[str, Any]]:
        """Become the only one who writes into this run, and return its journal's events.

        Args:
            ttl_s: how long the lease holds unless it is renewed (s).
            take_over: take it also from a holder that lives.

        Raises:
            LeaseHeld: another process works on the run.
            StorageError: the journal is damaged; the lease is given back.
        """
        lease = Lease.take(self.store, self.run_id, ttl_s=ttl_s, take_over=take_over)
        try:
            events = self.journal.claim(lease)
            self.checkpoints.claim(lease)
            self._claim_state(lease)
        except BaseException:
            lease.release()
            raise
        self.lease = lease
        return events

    def release(self) -> None:
        """Give the lease back, if this store holds it."""
        if self.lease is not None:
            self.lease.release()

    def create(self, config: dict[str, Any]) -> None:
        """Write the configuration, once.

        Raises:
            AlreadyExists: the run exists with another configuration.
        """
        self.store.create(f"{self.home}/config.json", pretty_bytes(config))

    def read_config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            UnknownRun: there is no such run; the message lists the nearest that there are.
            StorageError: it is damaged.
        """
        content = self._parsed("config.json", self.store.read(f"{self.home}/config.json"))
        if content is None:
            known = list_runs(self.store)
            near = get_close_matches(self.run_id, known, n=3) or known[-5:]
            there = f"there are: {', '.join(near)}" if near else "there are none yet"
            raise UnknownRun(
                f"no run '{self.run_id}' ({self.store.where(self.home)} has no configuration); "
                f"{there}; `symbio runs` lists them"
            )
        return content

    def write_state(self, state: dict[str, Any]) -> None:
        """Move the snapshot of the state on from the one this store read or wrote last.

        Raises:
            LeaseLost: another holder has taken the run over.
            SwapLost: another writer has moved it since.
        """
        if not self._knows_state:
            self._see_state(self.store.read(f"{self.home}/state.json"))
        try:
            self._move_state(state, self.lease)
        except SwapLost:
            if self.lease is not None:
                self.lease.check()
            raise

    def read_state(self) -> dict[str, Any] | None:
        """Return the snapshot of the state, or None before the first.

        Raises:
            StorageError: it is damaged.
        """
        found = self.store.read(f"{self.home}/state.json")
        self._see_state(found)
        content = self._parsed("state.json", found)
        return None if content is None else {k: v for k, v in content.items() if k != _WRITER}

    def write_metrics(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as ``metrics/<name>.parquet``."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        self.write_file(f"metrics/{name}.parquet", buffer.getvalue())

    def read_metrics(self, name: str) -> pd.DataFrame:
        """Return a table that `write_metrics` wrote.

        Raises:
            StorageError: it is not there, or damaged.
        """
        data = self.read_file(f"metrics/{name}.parquet")
        try:
            return pd.read_parquet(io.BytesIO(data))
        except (ValueError, OSError) as error:
            where = self.store.where(f"{self.home}/metrics/{name}.parquet")
            raise StorageError(
                f"{where} is damaged ({error}); `symbio report` writes it anew"
            ) from error

    def write_report(self, name: str, data: bytes) -> str:
        """Write a file of the report and return where it lies."""
        self.write_file(f"report/{name}", data)
        return self.store.where(f"{self.home}/report/{name}")

    def write_file(self, name: str, data: bytes) -> None:
        """Write or replace a file of the run."""
        key = f"{self.home}/{name}"
        found = self.store.read(key)
        self.store.swap(key, data, found.version if found else None)

    def has_file(self, name: str) -> bool:
        """Say whether the run has such a file."""
        return self.store.exists(f"{self.home}/{name}")

    def read_file(self, name: str) -> bytes:
        """Return a file of the run.

        Raises:
            StorageError: it is not there.
        """
        found = self.store.read(f"{self.home}/{name}")
        if found is None:
            raise StorageError(f"{self.store.where(f'{self.home}/{name}')} is missing")
        return found.data

    def sibling(self, run_id: str) -> RunStore:
        """Return another run of the same storage root."""
        return RunStore(self.store, run_id)

    def _claim_state(self, lease: Lease) -> None:
        while (found := self.store.read(f"{self.home}/state.json")) is not None:
            self._see_state(found)
            try:
                content = self._parsed("state.json", found) or {}
            except StorageError:
                content = {}  # It is written anew from the journal with the next event.
            try:
                self._move_state(content, lease)
            except SwapLost:
                continue
            return

    def _move_state(self, state: dict[str, Any], fence: Lease | None) -> None:
        content = state if fence is None else {**state, _WRITER: fence.tag}
        if fence is not None:
            fence.check()
        key = f"{self.home}/state.json"
        self._state_version = self.store.swap(key, pretty_bytes(content), self._state_version)

    def _see_state(self, found: Versioned | None) -> None:
        self._state_version = found.version if found else None
        self._knows_state = True

    def _parsed(self, name: str, found: Versioned | None) -> dict[str, Any] | None:
        if found is None:
            return None
        where = self.store.where(f"{self.home}/{name}")
        try:
            content = json.loads(found.data)
        except ValueError as error:
            raise StorageError(f"{where} is damaged ({error}); put back a copy of it") from error
        if not isinstance(content, dict):
            raise StorageError(f"{where} is damaged (not an object); put back a copy of it")
        return content


def list_runs(store: ObjectStore) -> list[str]:
    """Return the names of all runs, sorted."""
    names = [name for name in store.folders("runs/") if _RUN_ID.fullmatch(name)]
    return [name for name in names if store.exists(f"runs/{name}/config.json")]
