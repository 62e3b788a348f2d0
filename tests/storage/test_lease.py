"""One process at a time writes into a run; one that was replaced in its sleep writes nothing."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symbio_core.errors import BucketUnreachable, LeaseHeld, LeaseLost, SwapLost
from symbio_core.storage import FolderStore, Lease, ObjectStore, RunStore, lease_of
from symbio_core.storage.lease import LeaseFile, this_process
from tests.waiting import until

HOUSE = Path(__file__).parents[2]
WEIGHTS = {"w": np.arange(4.0)}

HOLDER = """
import sys, time
from pathlib import Path
import numpy as np
from symbio_core.errors import StorageError
from symbio_core.storage import RunStore, open_store

home = Path(sys.argv[1])
run = RunStore(open_store(str(home / "root")), "alpha")
started = time.monotonic()
def wait_for(name):
    while not (home / name).exists():
        assert time.monotonic() - started < 60
        time.sleep(0.01)
wait_for("go")
try:
    events = run.claim(ttl_s=3.0)
    run.journal.append([{"event": "mine", "pid": 1}])
    run.write_state({"by": "first"})
    run.checkpoints.save({"m": {"w": np.ones(2)}}, {}, step=1, kind="step")
except StorageError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(3)
print("holds", flush=True)
wait_for("write")
for write in (
    lambda: run.journal.append([{"event": "stale"}]),
    lambda: run.write_state({"by": "stale"}),
    lambda: run.checkpoints.save({"m": {"w": np.zeros(9)}}, {}, step=9, kind="step"),
    lambda: run.checkpoints.retain(set()),
):
    try:
        write()
    except StorageError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    else:
        print("written", flush=True)
run.release()
"""


@contextmanager
def processes(home: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", HOLDER, str(home)]
    started = [
        subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def held_elsewhere(store: ObjectStore, run_id: str, **changes: Any) -> LeaseFile:
    """Leave the lease of a process on another machine."""
    now = datetime.now(UTC)
    file = LeaseFile(
        epoch=7,
        holder=this_process("abc").model_copy(update={"host": "faraway", "pid": 41}),
        since=now,
        renewed=now,
        expires=now + timedelta(seconds=60),
    ).model_copy(update=changes)
    store.create(f"runs/{run_id}/LEASE", file.model_dump_json().encode())
    return file


# --- taking and giving back


def test_a_lease_counts_its_holders_and_is_given_back(store: ObjectStore) -> None:
    for epoch in (1, 2, 3):
        lease = Lease.take(store, "alpha")
        there = lease_of(store, "alpha")
        assert there is not None
        assert (there.epoch, there.holder) == (epoch, lease.holder)
        lease.check()
        lease.release()
        assert lease_of(store, "alpha") is None
        with pytest.raises(LeaseLost, match="given back"):
            lease.check()


def test_a_second_holder_is_refused_and_told_who_holds_it_since_when_and_what_to_do(
    store: ObjectStore,
) -> None:
    file = held_elsewhere(store, "alpha")
    with pytest.raises(LeaseHeld) as caught:
        Lease.take(store, "alpha")
    told = str(caught.value)
    for fact in (
        "run 'alpha'", "process 41 on faraway", f"{file.since:%H:%M:%S} UTC",
        f"until {file.expires:%Y-%m-%d %H:%M:%S} UTC", "symbio resume alpha --take-over",
    ):  # fmt: skip
        assert fact in told
    assert "\n" not in told
    assert caught.value.exit_code == 2


def test_an_expired_lease_is_taken_without_asking(store: ObjectStore) -> None:
    held_elsewhere(store, "alpha", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert Lease.take(store, "alpha").file.epoch == 8


def test_a_person_may_take_over_from_a_holder_that_lives(store: ObjectStore) -> None:
    held_elsewhere(store, "alpha")
    assert Lease.take(store, "alpha", take_over=True).file.epoch == 8


def test_of_two_who_take_over_by_force_at_once_one_is_refused(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_elsewhere(store, "alpha")
    swap = store.swap

    def overtaken(key: str, data: bytes, expected: str | None) -> str:
        monkeypatch.setattr(store, "swap", swap)
        Lease.take(store, "alpha", take_over=True)
        return swap(key, data, expected)

    monkeypatch.setattr(store, "swap", overtaken)
    with pytest.raises(LeaseHeld, match="run 'alpha' is being worked on"):
        Lease.take(store, "alpha", take_over=True)
    there = lease_of(store, "alpha")
    assert there is not None
    assert there.epoch == 8


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(store: ObjectStore) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    held_elsewhere(store, "alpha", holder=this_process("x").model_copy(update={"pid": ended.pid}))
    assert Lease.take(store, "alpha").file.epoch == 8


def test_a_process_that_was_given_a_dead_ones_number_is_not_taken_for_it(
    store: ObjectStore,
) -> None:
    other = this_process("x").model_copy(update={"pid": os.getppid(), "began": "1"})
    held_elsewhere(store, "alpha", holder=other)
    assert Lease.take(store, "alpha").file.epoch == 8


def test_a_process_of_another_machine_with_a_number_that_is_free_here_is_not_taken_for_dead(
    store: ObjectStore,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    there = this_process("x").model_copy(update={"pid": ended.pid, "realm": "another boot"})
    held_elsewhere(store, "alpha", holder=there)
    with pytest.raises(LeaseHeld):
        Lease.take(store, "alpha")


def test_within_a_process_one_at_work_is_not_replaced_and_one_that_idles_is(
    store: ObjectStore,
) -> None:
    first = RunStore(store, "alpha")
    first.claim()
    assert first.lease is not None
    with first.lease.at_work(), pytest.raises(LeaseHeld):
        RunStore(store, "alpha").claim()
    second = RunStore(store, "alpha")
    second.claim()
    with pytest.raises(LeaseLost, match="taken over"):
        first.lease.raise_if_lost()
    second.journal.append([{"event": "on"}])


def test_within_a_process_one_that_is_kept_is_not_replaced_until_it_is_released_or_forgotten(
    store: ObjectStore,
) -> None:
    first = RunStore(store, "alpha")
    first.claim()
    assert first.lease is not None
    first.lease.keep()
    with pytest.raises(LeaseHeld, match=rf"process {os.getpid()} on .*--take-over"):
        RunStore(store, "alpha").claim()
    first.journal.append([{"event": "on"}])
    first.release()
    second = RunStore(store, "alpha")
    second.claim()
    assert second.lease is not None
    second.lease.keep()
    del second
    gc.collect()
    RunStore(store, "alpha").claim()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"epoch": 0}', b"\xff", b"[" * 100_000])
def test_a_damaged_or_missing_lease_is_mended_by_its_holder_and_keeps_nobody_out(
    store: ObjectStore, damage: bytes
) -> None:
    RunStore(store, "alpha").create({})
    lease = Lease.take(store, "alpha")
    found = store.read("runs/alpha/LEASE")
    assert found is not None
    store.swap("runs/alpha/LEASE", damage, found.version)
    lease.check()
    there = lease_of(store, "alpha")
    assert there is not None
    assert there.holder == lease.holder
    store.delete("runs/alpha/LEASE")
    lease.renew()
    assert lease_of(store, "alpha") is not None
    store.delete("runs/alpha/LEASE")
    store.create("runs/alpha/LEASE", damage)
    other = Lease.take(store, "alpha")
    with pytest.raises(LeaseLost):
        lease.check()
    other.check()


def test_a_lease_that_expired_in_a_sleep_is_renewed_if_nobody_took_it(store: ObjectStore) -> None:
    lease = Lease.take(store, "alpha", ttl_s=3.0)
    lease._renewed_at -= 10.0
    before = lease.file.expires
    lease.check()
    assert lease.file.expires > before


def test_a_run_that_was_moved_away_is_not_begun_again_in_its_old_place(tmp_path: Path) -> None:
    lease = Lease.take(FolderStore(tmp_path / "root"), "alpha")
    (tmp_path / "root").rename(tmp_path / "other")
    for touch in (lease.renew, lease.check):
        with pytest.raises(LeaseLost, match="is not there any more: the run was moved"):
            touch()
    assert not (tmp_path / "root").exists()


def test_a_lease_is_renewed_by_itself(store: ObjectStore) -> None:
    lease = Lease.take(store, "alpha", ttl_s=3.0)

    def was_renewed() -> bool:
        there = lease_of(store, "alpha")
        return there is not None and there.renewed > there.since

    until(was_renewed)
    lease.release()


# --- fencing: an old holder between any two steps of its write


def old_and_new(store: ObjectStore) -> tuple[RunStore, RunStore]:
    old = RunStore(store, "alpha")
    start(old)
    return old, RunStore(store, "alpha")


def start(run: RunStore) -> None:
    run.claim()
    run.journal.append([{"event": "first"}])
    run.write_state({"n": 1})
    run.checkpoints.save({"m": WEIGHTS}, {}, step=1, kind="step")


WRITES: dict[str, Callable[[RunStore], object]] = {
    "journal": lambda run: run.journal.append([{"event": "stale"}]),
    "state": lambda run: run.write_state({"n": 0}),
    "save": lambda run: run.checkpoints.save({"m": {"w": np.zeros(3)}}, {}, step=5, kind="step"),
    "the same save": lambda run: run.checkpoints.save({"m": WEIGHTS}, {}, step=1, kind="step"),
    "file": lambda run: run.write_file("model/model.safetensors", b"stale"),
}


class Stepped:
    """A store that lets something happen before one of its calls."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.calls = 0
        self.at = -1
        self.happens: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name == "where":
            return real

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self.happens()
            return real(*arguments)

        return call


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("new_writes", [False, True])
def test_a_holder_replaced_before_any_step_of_its_write_moves_nothing_afterwards(
    tmp_path: Path, write: str, new_writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in another process: the old one is not told, it finds out.
    monkeypatch.setattr("symbio_core.storage.lease._held", {})
    for step in range(1, 40):
        store = FolderStore(tmp_path / str(step))
        slowed = Stepped(store)
        old, new = RunStore(slowed, "alpha"), RunStore(store, "alpha")
        start(old)

        def replaced(new: RunStore = new) -> None:
            new.claim(take_over=True)
            if new_writes:
                new.journal.append([{"event": "new"}])
                new.write_state({"n": 2})

        slowed.calls, slowed.at, slowed.happens = 0, step, replaced
        lost: Exception | None = None
        try:
            WRITES[write](old)
        except (LeaseLost, SwapLost) as error:
            lost = error
        if slowed.calls < step:
            old.release()
            assert lost is None
            assert step > 2
            return
        assert isinstance(lost, LeaseLost), "somebody took over in the midst of a write"
        seen = RunStore(store, "alpha")
        told = [{"event": "first"}, *([{"event": "new"}] if new_writes else [])]
        assert seen.journal.read() == told
        assert seen.read_state() == {"n": 2 if new_writes else 1}
        newest = seen.checkpoints.newest_whole().manifest
        assert newest is not None
        assert newest.step == 1, "nobody goes on from what an old holder saved"
        assert seen.files_listed() == {}, "no file of an old holder is believed"
        goes_on(new, old)
        newest = seen.checkpoints.newest_whole().manifest
        assert newest is not None
        (tmp_path / str(step) / f"runs/alpha/checkpoints/manifests/{newest.id}.json").unlink()
        newest = seen.checkpoints.newest_whole().manifest
        assert newest is not None
        assert newest.step == 1, "also where the newest is damaged"
        new.release()
    raise AssertionError("a write without end")


FIRST: dict[str, Callable[[RunStore], object]] = {
    "state": lambda run: run.write_state({"n": "stale"}),
    "save": WRITES["save"],
    "file": WRITES["file"],
}


@pytest.mark.parametrize("write", FIRST)
def test_a_holder_replaced_before_its_first_write_begins_nothing(
    tmp_path: Path, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symbio_core.storage.lease._held", {})
    for step in range(1, 40):
        store = FolderStore(tmp_path / str(step))
        slowed = Stepped(store)
        old, new = RunStore(slowed, "alpha"), RunStore(store, "alpha")
        old.claim()
        slowed.calls, slowed.at = 0, step
        slowed.happens = lambda new=new: new.claim(take_over=True)
        try:
            FIRST[write](old)
        except LeaseLost:
            assert new.read_state() is None
            assert new.checkpoints.newest_whole().manifest is None
            assert new.files_listed() == {}
            new.refuse_if_journal_is_gone()
            new.write_state({"n": 3})
            new.release()
        else:
            assert slowed.calls < step, "somebody took over in the midst of a write"
            assert step > 2
            old.release()
            return
    raise AssertionError("a write without end")


def goes_on(new: RunStore, old: RunStore) -> None:
    """The new holder can write all there is, the old one nothing."""
    new.journal.append([{"event": "on"}])
    new.write_state({"n": 3})
    new.checkpoints.save({"m": {"w": np.ones(7)}}, {}, step=9, kind="end")
    for late in WRITES.values():
        with pytest.raises(LeaseLost, match="taken over by process"):
            late(old)
    seen = RunStore(new.store, "alpha")
    assert seen.journal.read()[-1] == {"event": "on"}
    assert seen.read_state() == {"n": 3}
    latest = seen.checkpoints.latest()
    assert latest is not None
    assert latest.step == 9


def test_what_an_old_holder_wrote_just_before_it_was_shut_out_is_history_for_the_new(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = old_and_new(store)
    assert old.lease is not None
    swap = store.swap

    def late(key: str, data: bytes, expected: str | None) -> str:
        if "/journal/" in key:
            # The old one has looked at the lease before; its swap comes just ahead of the claim.
            monkeypatch.setattr(store, "swap", swap)
            monkeypatch.setattr(old.lease, "check", lambda: None)
            old.journal.append([{"event": "just in time"}])
        return swap(key, data, expected)

    monkeypatch.setattr(store, "swap", late)
    assert new.claim(take_over=True)[-1] == {"event": "just in time"}


def test_a_claim_leaves_no_trace_in_the_events_and_keeps_checkpoints_and_state(
    store: ObjectStore,
) -> None:
    old, _ = old_and_new(store)
    plain = old.journal.read()
    old.release()
    for _ in range(3):
        run = RunStore(store, "alpha")
        assert run.claim() == plain
        run.release()
    assert run.journal.read() == plain
    assert run.read_state() == {"n": 1}
    latest = run.checkpoints.latest()
    assert latest is not None
    assert latest.step == 1


# --- real processes


def test_of_two_processes_that_start_at_once_exactly_one_goes_on(tmp_path: Path) -> None:
    with processes(tmp_path, 2) as both:
        (tmp_path / "go").touch()
        said = [line(process) for process in both]
        assert sorted(text.partition(":")[0] for text in said) == ["LeaseHeld", "holds"]
        refused = next(text for text in said if text != "holds")
        winner = both[said.index("holds")]
        assert f"process {winner.pid} on" in refused
        (tmp_path / "write").touch()
        assert [line(winner) for _ in range(4)] == ["written"] * 4


def test_a_holder_that_was_stopped_and_replaced_writes_nothing_when_it_wakes(
    tmp_path: Path,
) -> None:
    store = FolderStore(tmp_path / "root")
    with processes(tmp_path, 1) as (old,):
        (tmp_path / "go").touch()
        assert line(old) == "holds"
        os.kill(old.pid, signal.SIGSTOP)
        run = RunStore(store, "alpha")
        with pytest.raises(LeaseHeld, match=f"process {old.pid} on"):
            run.claim()

        def expired() -> bool:
            there = lease_of(store, "alpha")
            return there is not None and there.expires < datetime.now(UTC)

        until(expired)
        assert run.claim() == [{"event": "mine", "pid": 1}]
        run.journal.append([{"event": "new"}])
        (tmp_path / "write").touch()
        os.kill(old.pid, signal.SIGCONT)
        for _ in range(4):
            told = line(old)
            assert told.startswith("LeaseLost: run 'alpha' was taken over by process"), told
            assert str(os.getpid()) in told
    assert RunStore(store, "alpha").journal.read()[-1] == {"event": "new"}
    assert run.read_state() == {"by": "first"}
    latest = run.checkpoints.latest()
    assert latest is not None
    assert latest.step == 1
    run.release()


def test_a_killed_holder_is_replaced_at_once(tmp_path: Path) -> None:
    with processes(tmp_path, 1) as (old,):
        (tmp_path / "go").touch()
        assert line(old) == "holds"
        old.kill()
        old.wait()
        run = RunStore(FolderStore(tmp_path / "root"), "alpha")
        assert run.claim(ttl_s=60.0) == [{"event": "mine", "pid": 1}]
        run.release()


@pytest.mark.parametrize("name", ["model/model.safetensors", "tokenizer.json"])
def test_a_holder_that_was_replaced_writes_no_file_for_people(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symbio_core.storage.lease._held", {})
    store = FolderStore(tmp_path)
    old, new = RunStore(store, "alpha"), RunStore(store, "alpha")
    start(old)
    old.write_file(name, b"of the old one")
    new.claim(take_over=True)
    new.write_file(name, b"of the new one")
    with pytest.raises(LeaseLost):
        old.write_file(name, b"too late")
    assert new.read_file(name) == b"of the new one"
    # Whoever has given the lease back, or never had one, may: `symbio report` does.
    new.release()
    new.write_file(name, b"of anybody")


@pytest.mark.parametrize(
    "change",
    [
        {"expires": "2030-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"renewed": "9999-12-31T23:59:59-14:00"},
        {"holder": {"host": "x", "pid": 10**30, "nonce": "n"}},
        {"holder": {"host": "x", "pid": -1, "nonce": "n"}},
    ],
)
def test_a_lease_that_no_process_wrote_is_damage_and_holds_nobody_off(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    store = FolderStore(tmp_path)
    run = RunStore(store, "alpha")
    start(run)
    run.release()
    found = store.read("runs/alpha/LEASE")
    assert found is not None
    damaged = json.dumps(json.loads(found.data) | change).encode()
    store.swap("runs/alpha/LEASE", damaged, found.version)
    RunStore(store, "alpha").claim()


def test_a_state_that_arrived_without_a_reply_is_looked_at_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    run = RunStore(store, "alpha")
    start(run)
    swap = FolderStore.swap

    def unheard(self: FolderStore, key: str, data: bytes, expected_version: str | None) -> str:
        version = swap(self, key, data, expected_version)
        if key.endswith("state.json"):
            raise BucketUnreachable("no reply for long")
        return version

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "swap", unheard)
        with pytest.raises(BucketUnreachable):
            run.write_state({"n": 1})
    run.write_state({"n": 2})
    assert run.read_state() == {"n": 2}
