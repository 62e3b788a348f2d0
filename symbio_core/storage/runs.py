"""A run's home: configuration, journal, snapshot of its state, checkpoints, metrics, files.

::

    runs/<run_id>/
        LEASE            who may write; see `Lease`
        config.json      written once            state.json     a snapshot, moved by its writer
        journal/         see `Journal`           checkpoints/   see `CheckpointStore`
        metrics/         tables as parquet       report/        files for people
        model/           the model to take away  files.json     hashes of these three
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import pandas as pd

from symbio_core.errors import (
    CheckpointDamaged,
    ConfigError,
    Damaged,
    StorageError,
    SwapLost,
    UnknownRun,
)
from symbio_core.storage.canonical import parsed_json, pretty_bytes
from symbio_core.storage.checkpoints import CheckpointStore
from symbio_core.storage.journal import Journal
from symbio_core.storage.lease import TTL_S, Lease
from symbio_core.storage.objects import ObjectStore, Versioned, is_key, read_text

_WRITER = "writer"
"""Key of the state under which its writer's tag stands."""
_SEGMENTS = "segments"
"""Key of the state under which the number of the journal's segments stands."""
_OURS = (_WRITER, _SEGMENTS)
_SEAL = "sha256"
"""Key of the list of files under which the hash of all the rest stands."""
LIST = "files.json"
"""Names hash and length of the files for people, so that damage to them is noticed."""
FOR_PEOPLE = ("metrics/", "report/", "model/")
"""Where the files lie that the list names."""
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
        self._listed: dict[str, dict[str, Any]] = {}
        self._is_listing = False
        self._state_version: str | None = None
        self._knows_state = False

    def claim(self, *, ttl_s: float = TTL_S, take_over: bool = False) -> list[dict[str, Any]]:
        """Become the only one who writes into this run, and return its journal's events.

        Args:
            ttl_s: how long the lease holds unless it is renewed (s).
            take_over: take it also from a holder that lives.

        Raises:
            LeaseHeld: another process works on the run.
            Damaged: the journal is damaged; the lease is given back.
        """
        lease = Lease.take(self.store, self.run_id, ttl_s=ttl_s, take_over=take_over)
        try:
            events = self.journal.claim(lease)
            self.checkpoints.claim(lease)
            self._claim_state(lease)
            self._claim_list(lease)
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
        """Return the configuration; where its file is damaged, the one that the journal opens with.

        Raises:
            UnknownRun: there is no such run; the message lists the nearest that there are.
            Damaged: it is damaged, and the journal holds none.
        """
        recorded = self._recorded_config()
        if recorded is not None:
            return recorded
        content = self._parsed("config.json", read_text(self.store, f"{self.home}/config.json"))
        if content is None:
            known = list_runs(self.store)
            near = get_close_matches(self.run_id, known, n=3) or known[-5:]
            there = f"there are: {', '.join(near)}" if near else "there are none yet"
            raise UnknownRun(
                f"no run '{self.run_id}' ({self.store.where(self.home)} has no configuration); "
                f"{there}; `symbio runs` lists them"
            )
        return content

    def wrong_config(self) -> str | None:
        """Return what is wrong with ``config.json``, or None; the journal holds the same."""
        where = self.store.where(f"{self.home}/config.json")
        try:
            content = self._parsed("config.json", read_text(self.store, f"{self.home}/config.json"))
        except Damaged as error:
            return str(error)
        if content is None:
            return f"{where} is missing"
        recorded = self._recorded_config()
        if recorded is not None and recorded != content:
            return f"{where} is not the configuration that the run was opened with"
        return None

    def mend_config(self) -> bool:
        """Write ``config.json`` anew from the journal where it is damaged; say if that was done."""
        recorded = self._recorded_config()
        if recorded is None or self.wrong_config() is None:
            return False
        found = self.store.read(f"{self.home}/config.json")
        version = found.version if found else None
        self._check()
        self.store.swap(f"{self.home}/config.json", pretty_bytes(recorded), version)
        return True

    def write_state(self, state: dict[str, Any]) -> None:
        """Move the snapshot of the state on from the one this store read or wrote last.

        Raises:
            LeaseLost: another holder has taken the run over.
            SwapLost: another writer has moved it since.
        """
        if not self._knows_state:
            self._see_state(read_text(self.store, f"{self.home}/state.json"))
        try:
            self._move_state(state, self.lease)
        except StorageError as error:
            if self.lease is not None:
                # It may have arrived though its reply did not: the next write looks first, and
                # the lease says then as now whose it is.
                self._knows_state = False
                if isinstance(error, SwapLost):
                    self.lease.check()
            raise

    def read_state(self) -> dict[str, Any] | None:
        """Return the snapshot of the state, or None before the first, also where it is claimed.

        Raises:
            Damaged: it is damaged.
        """
        found = read_text(self.store, f"{self.home}/state.json")
        self._see_state(found)
        content = self._parsed("state.json", found)
        return {k: v for k, v in (content or {}).items() if k not in _OURS} or None

    def segments_told(self) -> int:
        """Return how many segments the journal had when the state was written; 0: not known."""
        try:
            content = self._parsed("state.json", read_text(self.store, f"{self.home}/state.json"))
        except Damaged:
            return 0
        told = (content or {}).get(_SEGMENTS)
        return told if isinstance(told, int) else 0

    def refuse_if_journal_is_gone(self) -> None:
        """See that a run without any event has never had one.

        Raises:
            Damaged: its state was written after some: what they led to must not be lived over.
        """
        told = self.segments_told()
        if told and self.read_state() is not None:
            journal, state = f"{self.home}/journal", f"{self.home}/state.json"
            raise Damaged(
                f"the journal of run '{self.run_id}' is gone and had {told} segments; put back a "
                f"copy of {self.store.where(journal)}, or delete {self.store.where(state)} to live "
                "the run again from its start"
            )

    def write_metrics(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as ``metrics/<name>.parquet``."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        self.write_file(f"metrics/{name}.parquet", buffer.getvalue())

    def read_metrics(self, name: str) -> pd.DataFrame:
        """Return a table that `write_metrics` wrote.

        Raises:
            Damaged: it is not there, or damaged.
        """
        data = self.read_file(f"metrics/{name}.parquet")
        try:
            return pd.read_parquet(io.BytesIO(data))
        except (ValueError, OSError) as error:
            where = self.store.where(f"{self.home}/metrics/{name}.parquet")
            raise Damaged(
                f"{where} is damaged ({error}); `symbio report` writes it anew"
            ) from error

    def write_report(self, name: str, data: bytes) -> str:
        """Write a file of the report and return where it lies."""
        self.write_file(f"report/{name}", data)
        return self.store.where(f"{self.home}/report/{name}")

    def write_file(self, name: str, data: bytes) -> None:
        """Write or replace a file of the run; tables, report and model are listed with hashes.

        Raises:
            LeaseLost: another holder has taken the run over.
        """
        key = f"{self.home}/{name}"
        found = self.store.read(key)
        self._check()
        self.store.swap(key, data, found.version if found else None)
        if name.startswith(FOR_PEOPLE):
            self._listed[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            if not self._is_listing:
                self._write_list()

    @contextmanager
    def listing(self) -> Iterator[None]:
        """Write the list of files once, after the body, instead of after each file."""
        self._is_listing = True
        try:
            yield
        finally:
            self._is_listing = False
            if self._listed:
                self._write_list()

    def files_listed(self) -> dict[str, tuple[str, int]]:
        """Return hash and length (bytes) of each file for people; empty before the first.

        Raises:
            Damaged: the list is damaged.
        """
        content = self._parsed(LIST, read_text(self.store, f"{self.home}/{LIST}")) or {}
        return _understood(content, self.store.where(f"{self.home}/{LIST}"))

    def _write_list(self) -> None:
        key = f"{self.home}/{LIST}"
        while True:
            found = self.store.read(key)
            self._check()
            try:
                before = self._parsed(LIST, found) or {}
            except Damaged:
                before = {}
            try:
                data = _sealed({**before, **self._listed})
                self.store.swap(key, data, found.version if found else None)
            except SwapLost:
                continue
            self._listed.clear()
            return

    def _has_files(self) -> bool:
        return any(self.store.keys(f"{self.home}/{start}") for start in FOR_PEOPLE)

    def has_file(self, name: str) -> bool:
        """Say whether the run has such a file."""
        return self.store.exists(f"{self.home}/{name}")

    def read_file(self, name: str) -> bytes:
        """Return a file of the run; a file for people only if it is what the list of files says.

        Raises:
            Damaged: it is not there.
            CheckpointDamaged: it is not what was written, or not listed.
        """
        where = self.store.where(f"{self.home}/{name}")
        found = self.store.read(f"{self.home}/{name}")
        if found is None:
            raise Damaged(f"{where} is missing")
        if not name.startswith(FOR_PEOPLE):
            return found.data
        anew = f"make it anew by `symbio fsck {self.run_id} --repair`"
        listed = self.files_listed()
        if name not in listed:
            raise CheckpointDamaged(
                f"{where} is not in {LIST}, so nobody knows what it should hold; {anew}"
            )
        if hashlib.sha256(found.data).hexdigest() != listed[name][0]:
            raise CheckpointDamaged(f"{where} does not match its hash; {anew}")
        return found.data

    def sibling(self, run_id: str) -> RunStore:
        """Return another run of the same storage root."""
        return RunStore(self.store, run_id)

    def _recorded_config(self) -> dict[str, Any] | None:
        try:
            first = self.journal.first()
        except Damaged:
            return None
        config = first.get("config") if first and first.get("event") == "opened" else None
        return config if isinstance(config, dict) else None

    def _claim_state(self, lease: Lease) -> None:
        # Also where there is none yet: else nothing would refuse the first one of an old holder.
        while True:
            found = self.store.read(f"{self.home}/state.json")
            self._see_state(found)
            try:
                content = self._parsed("state.json", found) or {}
            except Damaged:
                content = {}  # It is written anew from the journal with the next event.
            try:
                self._move_state(content, lease)
            except SwapLost:
                continue
            return

    def _claim_list(self, lease: Lease) -> None:
        while True:
            found = self.store.read(f"{self.home}/{LIST}")
            try:
                content = self._parsed(LIST, found)
            except Damaged:
                return  # It is damaged and stays so until the files are made anew.
            if content is None and self._has_files():
                return
            data = _sealed({**(content or {}), _WRITER: lease.tag})
            lease.check()
            try:
                self.store.swap(f"{self.home}/{LIST}", data, found.version if found else None)
            except SwapLost:
                continue
            return

    def _move_state(self, state: dict[str, Any], fence: Lease | None) -> None:
        content = state
        if fence is not None:
            content = {**state, _WRITER: fence.tag, _SEGMENTS: self.journal.length}
            fence.check()
        key = f"{self.home}/state.json"
        self._state_version = self.store.swap(key, pretty_bytes(content), self._state_version)

    def _check(self) -> None:
        # Files for people can be written without a lease, but never by one who has lost it.
        if self.lease is not None and not self.lease.is_released:
            self.lease.check()

    def _see_state(self, found: Versioned | None) -> None:
        self._state_version = found.version if found else None
        self._knows_state = True

    def _parsed(self, name: str, found: Versioned | None) -> dict[str, Any] | None:
        if found is None:
            return None
        where = self.store.where(f"{self.home}/{name}")
        try:
            content = parsed_json(found.data)
        except ValueError as error:
            raise Damaged(f"{where} is damaged ({error}); put back a copy of it") from error
        if not isinstance(content, dict):
            raise Damaged(f"{where} is damaged (not an object); put back a copy of it")
        return content


def _sealed(listed: Mapping[str, Any]) -> bytes:
    """Return a list of files as it is stored: with its own hash, so that damage is its own."""
    rest = {name: about for name, about in listed.items() if name != _SEAL}
    return pretty_bytes({**rest, _SEAL: hashlib.sha256(pretty_bytes(rest)).hexdigest()})


def _understood(content: Mapping[str, Any], where: str) -> dict[str, tuple[str, int]]:
    """Return hash and length of each file of a list.

    Raises:
        Damaged: it is none.
    """
    files = {name: about for name, about in content.items() if name not in (_WRITER, _SEAL)}
    try:
        listed = {str(n): (str(f["sha256"]), int(f["size"])) for n, f in files.items()}
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise Damaged(f"{where} is damaged; `symbio report` writes it anew") from error
    is_whole = _SEAL not in content or pretty_bytes(content) == _sealed(content)
    if not is_whole or not all(n.startswith(FOR_PEOPLE) and is_key(f"runs/x/{n}") for n in listed):
        raise Damaged(f"{where} is damaged; `symbio report` writes it anew")
    return listed


def list_runs(store: ObjectStore) -> list[str]:
    """Return the names of all runs, sorted."""
    names = [name for name in store.folders("runs/") if _RUN_ID.fullmatch(name)]
    return [
        name
        for name in names
        if store.exists(f"runs/{name}/config.json")
        # A run that lost its configuration is a run: its journal holds it too.
        or any(store.exists(f"runs/{name}/journal/{at:08d}.jsonl") for at in (0, 1))
    ]
