"""Who may write into a run: one holder at a time, and nothing of an old one after a new one.

::

    LEASE     {epoch, holder, since, renewed, expires}; moved by compare-and-swap

A lease that is not renewed expires; whoever takes it then has the next epoch. That alone would not
stop an old holder that was asleep and wakes up in the midst of a write. So each object that moves
(the journal's next segment, ``LATEST``, ``state.json``, ``files.json``) is *claimed* by the new
holder after it has the lease: it is rewritten under the holder's own tag. And every later write of
anybody goes

    1. know the version that the object has,  2. read LEASE: is it mine?,  3. swap that version.

If 2 says yes, a new holder takes the lease after 2, so it claims the object after 1. Then either
the swap comes before the claim, and the new holder, who reads after claiming, sees it as history;
or it comes after the claim, and loses because the version is another one. There is no third case.
What is written beside these (manifests, files for people) counts only where one of them names it.
Tags are made up anew by each holder, so that no two holders ever write the same bytes and no store
can take the one's write for the other's.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from pydantic import AwareDatetime, Field, ValidationError, field_validator

from symbio_core.errors import LeaseHeld, LeaseLost, StorageError, SwapLost
from symbio_core.records import Record
from symbio_core.storage.canonical import pretty_bytes
from symbio_core.storage.objects import ObjectStore, Versioned

TTL_S = 60.0
"""How long a lease holds without being renewed, where nothing else is said (s)."""


class Fence(Protocol):
    """What every write of a holder is checked against."""

    @property
    def tag(self) -> str:
        """Made up by each holder; no two have the same."""

    def check(self) -> None:
        """See that this process may still write.

        Raises:
            StorageError: it may not; another has taken its place.
        """


class Holder(Record):
    """The process that holds a lease."""

    host: str
    pid: int = Field(ge=0, lt=2**31)
    realm: str = ""
    """Boot and process namespace in which ``pid`` means something; empty where that is unknown."""
    began: str = ""
    """When the process began, as its system counts; tells apart two processes of one number."""
    nonce: str

    @property
    def is_here(self) -> bool:
        """Whether it is a process that this one could see."""
        me = this_process("")
        return (self.host, self.realm) == (me.host, me.realm)

    @property
    def is_dead(self) -> bool:
        """Whether it surely has ended; False also where that cannot be known."""
        return self.is_here and (not _lives(self.pid) or _began(self.pid) != self.began)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class LeaseFile(Record):
    """What ``LEASE`` holds."""

    epoch: int = Field(ge=1)
    """Counts the holders of a run."""
    holder: Holder | None
    """None once it was given back."""
    since: AwareDatetime
    renewed: AwareDatetime
    expires: AwareDatetime

    @field_validator("since", "renewed", "expires")
    @classmethod
    def is_of_our_age(cls, at: datetime) -> datetime:
        """Refuse times that no zone's clock could show."""
        if not 1970 <= at.year < 9000:
            raise ValueError(f"the year {at.year} is none of a lease")
        return at


class Lease:
    """The right to write into a run, renewed by a thread while this object lives."""

    def __init__(self, store: ObjectStore, run_id: str, file: LeaseFile, version: str) -> None:
        assert file.holder is not None
        self.store = store
        self.run_id = run_id
        self.key = lease_key(run_id)
        self.file = file
        self.holder = file.holder
        self.ttl_s = (file.expires - file.renewed).total_seconds()
        self._version = version
        self._renewed_at = time.monotonic()
        self._lost: LeaseLost | None = None
        self._released = threading.Event()
        self._turn = threading.RLock()
        self._moves = 0
        self._is_kept = False
        _held[self.holder.nonce] = self
        threading.Thread(
            target=_keep_renewing,
            args=(weakref.ref(self), self._released, max(1.0, self.ttl_s / 3)),
            name=f"lease of {run_id}",
            daemon=True,
        ).start()

    @classmethod
    def take(
        cls, store: ObjectStore, run_id: str, *, ttl_s: float = TTL_S, take_over: bool = False
    ) -> Lease:
        """Take the lease of a run if it is free: never held, given back, expired, or of the dead.

        Within one process a holder that is neither at work nor kept yields to the next.

        Args:
            store: where the run lives.
            run_id: its name.
            ttl_s: how long the lease holds unless it is renewed (s); at least 3.
            take_over: take it also from a holder that lives; what that one writes afterwards is
                refused.

        Raises:
            LeaseHeld: another process works on the run; the message says which, and until when.
        """
        key = lease_key(run_id)
        found = store.read(key)
        before = parsed(found)
        if before is not None and not take_over:
            _refuse_if_held(run_id, before)
        now = datetime.now(UTC)
        file = LeaseFile(
            epoch=before.epoch + 1 if before else 1,
            holder=this_process(uuid4().hex),
            since=now,
            renewed=now,
            expires=now + timedelta(seconds=ttl_s),
        )
        try:
            version = store.swap(key, _data(file), found.version if found else None)
        except SwapLost:
            # Whoever was faster has it, also where a person asked for it by force.
            faster = parsed(store.read(key))
            if faster is not None and faster.holder is not None:
                raise _held_by(run_id, faster) from None
            raise
        if before is not None and before.holder is not None:
            elder = _held.get(before.holder.nonce)
            if elder is not None:
                elder._lose(file)
        return cls(store, run_id, file, version)

    @property
    def tag(self) -> str:
        """What this holder's writes carry: epoch and nonce."""
        return f"{self.file.epoch}-{self.holder.nonce}"

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self._released.is_set()

    @property
    def is_at_work(self) -> bool:
        """Whether a move is being made under it at this moment."""
        return self._moves > 0

    @property
    def is_in_use(self) -> bool:
        """Whether another of the same process has to leave it alone."""
        return self._is_kept or self.is_at_work

    def keep(self) -> None:
        """Yield no more to others of the same process, also between moves, until the release."""
        self._is_kept = True

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the lease from yielding to another of the same process while the body runs."""
        self._moves += 1
        try:
            yield
        finally:
            self._moves -= 1

    def check(self) -> None:
        """See in the store that the lease is still ours; one that has expired is renewed.

        Raises:
            LeaseLost: another process has taken the run over, or the lease was given back.
        """
        with self._turn:
            self.raise_if_lost()
            if time.monotonic() - self._renewed_at > self.ttl_s:
                self.renew()
                return
            found = self.store.read(self.key)
            if found is None or found.version != self._version:
                self._restore(found)

    def renew(self) -> None:
        """Hold the lease for another ``ttl_s``.

        Raises:
            LeaseLost: another process has taken the run over.
        """
        with self._turn:
            self.raise_if_lost()
            try:
                self._write(self._version)
            except SwapLost:
                self._restore(self.store.read(self.key))

    def release(self) -> None:
        """Give the lease back, so that the next need not wait; one that is lost is left alone."""
        with self._turn:
            is_ours = self._lost is None and self.holder.pid == os.getpid()
            if self._released.is_set() or not is_ours:
                return
            self._released.set()
            file = self.file.model_copy(update={"holder": None, "renewed": datetime.now(UTC)})
            # One that cannot be given back expires.
            with suppress(StorageError):
                self.store.swap(self.key, _data(file), self._version)

    def raise_if_lost(self) -> None:
        """Raise what ended the lease, if something did; asks nobody and costs nothing.

        Raises:
            LeaseLost: another process has taken the run over, or the lease was given back.
        """
        if self._lost is not None:
            raise self._lost
        if self._released.is_set():
            raise LeaseLost(f"the lease of run '{self.run_id}' was given back; resume the run")

    def _restore(self, found: Versioned | None) -> None:
        # A file that is gone or unreadable was taken by nobody: a taker leaves its name in it.
        there = parsed(found)
        is_anothers = there is not None and (
            there.holder is None or there.holder.nonce != self.holder.nonce
        )
        if is_anothers or (found is None and not self.store.keys(f"runs/{self.run_id}/")):
            self._lose(there)
            self.raise_if_lost()
        try:
            self._write(found.version if found else None)
        except SwapLost:
            self._lose(parsed(self.store.read(self.key)))
            self.raise_if_lost()

    def _write(self, expected_version: str | None) -> None:
        began, now = time.monotonic(), datetime.now(UTC)
        fresh = {"renewed": now, "expires": now + timedelta(seconds=self.ttl_s)}
        file = self.file.model_copy(update=fresh)
        self._version = self.store.swap(self.key, _data(file), expected_version)
        self.file, self._renewed_at = file, began

    def _lose(self, to: LeaseFile | None) -> None:
        if to is None:
            self._lost = LeaseLost(
                f"{self.store.where(self.key)} is not there any more: the run was moved or "
                "removed, or its disk is gone; this process writes nothing more. Resume it where "
                "it is now"
            )
            return
        who = f" by {to.holder} since {_clock(to.since)}" if to.holder else ""
        self._lost = LeaseLost(
            f"run '{self.run_id}' was taken over{who}; this process writes nothing more. What was "
            f"saved before is whole: look at it by `symbio status {self.run_id}`"
        )


_held: weakref.WeakValueDictionary[str, Lease] = weakref.WeakValueDictionary()
"""The leases of this process, by nonce."""


def lease_key(run_id: str) -> str:
    """Return the name of a run's lease in its store."""
    return f"runs/{run_id}/LEASE"


def lease_of(store: ObjectStore, run_id: str) -> LeaseFile | None:
    """Return who holds a run, or None: never held, given back, or unreadable."""
    file = parsed(store.read(lease_key(run_id)))
    return file if file is not None and file.holder is not None else None


def parsed(found: Versioned | None) -> LeaseFile | None:
    """Return a lease as a file holds it; None where there is none, or damage."""
    if found is None:
        return None
    try:
        return LeaseFile.model_validate_json(found.data)
    except ValidationError:
        return None


def this_process(nonce: str) -> Holder:
    """Return this process as a holder."""
    return Holder(
        host=platform.node() or "this machine",
        pid=os.getpid(),
        realm=_realm(),
        began=_began(os.getpid()),
        nonce=nonce,
    )


def _refuse_if_held(run_id: str, file: LeaseFile) -> None:
    holder = file.holder
    if holder is None or file.expires <= datetime.now(UTC) or holder.is_dead:
        return
    if holder.is_here and holder.pid == os.getpid():
        elder = _held.get(holder.nonce)
        if elder is None or not elder.is_in_use:
            return
    raise _held_by(run_id, file)


def _held_by(run_id: str, file: LeaseFile) -> LeaseHeld:
    return LeaseHeld(
        f"run '{run_id}' is being worked on by {file.holder} since {_clock(file.since)}; it holds "
        f"the run until {_clock(file.expires)} and renews that while it lives. Stop it, or if it "
        f"is gone wait until then and resume; to take over now: symbio resume {run_id} --take-over"
    )


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _data(file: LeaseFile) -> bytes:
    return pretty_bytes(file.model_dump(mode="json"))


def _keep_renewing(
    lease_ref: weakref.ref[Lease], released: threading.Event, every_s: float
) -> None:
    while not released.wait(every_s):
        lease = lease_ref()
        if lease is None:
            return
        try:
            lease.renew()
        except LeaseLost:
            return
        except StorageError:
            pass  # A store out of reach is asked again; until then the lease may expire.
        del lease


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _began(pid: int) -> str:
    # Empty for a process that has ended, also where its parent has not noticed yet. The second
    # field is the program's name, which may hold spaces and parentheses.
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def _realm() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
