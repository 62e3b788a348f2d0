"""A run's home: configuration, journal, snapshot of its state, checkpoints, metrics, files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from symbio_core.errors import AlreadyExists, ConfigError, StorageError, SwapLost, UnknownRun
from symbio_core.storage.checkpoints import CheckpointStore
from symbio_core.storage.objects import ObjectStore

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Journal:
    """Append-only events, one create-once segment an append, so no line is ever half written."""

    def __init__(self, store: ObjectStore, home: str) -> None:
        self.store = store
        self.home = home
        self._length: int | None = None

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write the next segment.

        Raises:
            SwapLost: another writer has appended in the meantime.
        """
        if self._length is None:
            self._length = len(self._segments())
        lines = [json.dumps(event, sort_keys=True, ensure_ascii=False) for event in events]
        key = f"{self.home}{self._length:08d}.jsonl"
        try:
            self.store.create(key, ("\n".join(lines) + "\n").encode())
        except AlreadyExists as error:
            raise SwapLost(
                f"{key} was written by somebody else: another process works on this run"
            ) from error
        self._length += 1

    def read(self) -> list[dict[str, Any]]:
        """Return all events, oldest first.

        Raises:
            StorageError: a segment is missing or damaged; the message names it.
        """
        events: list[dict[str, Any]] = []
        segments = self._segments()
        for number, key in enumerate(segments):
            if key != f"{self.home}{number:08d}.jsonl":
                raise StorageError(f"journal segment {self.home}{number:08d}.jsonl is missing")
            found = self.store.read(key)
            try:
                text = found.data.decode() if found else ""
                events += [json.loads(line) for line in text.splitlines()]
            except ValueError as error:
                raise StorageError(f"journal segment {key} is damaged: {error}") from error
        self._length = len(segments)
        return events

    def _segments(self) -> list[str]:
        return [key for key in self.store.keys(self.home) if key.endswith(".jsonl")]


class RunStore:
    """Everything of one run below ``runs/<run_id>/``."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        if not _RUN_ID.fullmatch(run_id):
            raise ConfigError(
                f"'{run_id}' is not a run name; use small letters, digits, '-', '_' and '.', "
                "at most 63"
            )
        self.store = store
        self.run_id = run_id
        self.home = f"runs/{run_id}"
        self.journal = Journal(store, f"{self.home}/journal/")
        self.checkpoints = CheckpointStore(store, f"{self.home}/checkpoints", run_id)

    def create(self, config: dict[str, Any]) -> None:
        """Write the configuration, once."""
        self.store.create(f"{self.home}/config.json", _pretty(config))

    def read_config(self) -> dict[str, Any]:
        """Return the configuration.

        Raises:
            UnknownRun: there is no such run.
            StorageError: it is damaged.
        """
        content = self._json("config.json")
        if content is None:
            raise UnknownRun(f"no run '{self.run_id}' here; `symbio runs` lists them")
        return content

    def write_state(self, state: dict[str, Any]) -> None:
        """Move the snapshot of the state forward."""
        key = f"{self.home}/state.json"
        found = self.store.read(key)
        self.store.swap(key, _pretty(state), found.version if found else None)

    def write_metrics(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as ``metrics/<name>.parquet``."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        self.write_file(f"metrics/{name}.parquet", buffer.getvalue())

    def read_metrics(self, name: str) -> pd.DataFrame:
        """Return a table that `write_metrics` wrote."""
        return pd.read_parquet(io.BytesIO(self.read_file(f"metrics/{name}.parquet")))

    def write_report(self, name: str, data: bytes) -> None:
        """Write a file of the report."""
        self.write_file(f"report/{name}", data)

    def write_file(self, name: str, data: bytes) -> None:
        """Write or replace a file of the run."""
        key = f"{self.home}/{name}"
        found = self.store.read(key)
        self.store.swap(key, data, found.version if found else None)

    def has_file(self, name: str) -> bool:
        """Say whether the run has such a file."""
        return self.store.size(f"{self.home}/{name}") is not None

    def read_file(self, name: str) -> bytes:
        """Return a file of the run.

        Raises:
            StorageError: it is not there.
        """
        found = self.store.read(f"{self.home}/{name}")
        if found is None:
            raise StorageError(f"{self.home}/{name} is missing")
        return found.data

    def sibling(self, run_id: str) -> RunStore:
        """Return another run of the same storage root."""
        return RunStore(self.store, run_id)

    def _json(self, name: str) -> dict[str, Any] | None:
        found = self.store.read(f"{self.home}/{name}")
        if found is None:
            return None
        try:
            content = json.loads(found.data)
        except ValueError as error:
            raise StorageError(f"{self.home}/{name} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise StorageError(f"{self.home}/{name} is damaged: not an object")
        return content


def list_runs(store: ObjectStore) -> list[str]:
    """Return the names of all runs, sorted."""
    keys = store.keys("runs/")
    return sorted({key.split("/")[1] for key in keys if key.endswith("/config.json")})


def _pretty(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
