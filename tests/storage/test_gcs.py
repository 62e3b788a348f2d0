"""A bucket where things go wrong: lost replies, lost sessions, damage on the way, races."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.errors import (
    AlreadyExists,
    BucketUnreachable,
    CheckpointDamaged,
    ConfigError,
    StorageError,
    SwapLost,
)
from symbio_core.storage import RunStore, check_run, gcs
from symbio_core.storage.fsck import SMALL_BYTES
from symbio_core.storage.gcs import BucketStore
from symbio_core.storage.pacing import Pacer
from tests.cloud.buckets import FAST, bucket_store, new_bucket
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer
from tests.cloud.storage_world import BLOCK

SMALL = b"a few bytes"
LARGE = bytes(range(256)) * (9 * 4096)
"""9 MiB: the client sends it in a resumable session."""
EITHER = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
def server() -> Iterator[StorageServer]:
    with StorageServer() as running:
        yield running
        if running.faults.total:
            gc.collect()


@pytest.fixture
def root(server: StorageServer) -> str:
    return f"gs://{new_bucket(server)}/runs"


@pytest.fixture
def store(server: StorageServer, root: str) -> BucketStore:
    return bucket_store(server, root, chunk_bytes=16 * BLOCK)


@pytest.fixture
def other(server: StorageServer, root: str) -> BucketStore:
    return bucket_store(server, root)


def there(server: StorageServer, store: BucketStore, key: str) -> Any:
    return server.world.buckets[store.bucket_name].objects.get(f"runs/{key}")


def must_read(store: BucketStore, key: str) -> bytes:
    found = store.read(key)
    assert found is not None
    return found.data


def once(server: StorageServer, method: str, path: str, action: Callable[[], object]) -> None:
    """Let something happen right before the next request of a kind is looked at."""
    armed = [action]

    def look(seen: str, at: str) -> None:
        if armed and seen == method and path in at:
            armed.pop()()

    server.before = look


# --- preconditions and versions


def test_every_write_and_delete_names_the_generation_that_it_found(
    server: StorageServer, store: BucketStore
) -> None:
    for data in (SMALL, LARGE):
        version = store.create("a", data)
        version = store.swap("b", data, None)
        store.swap("b", data + b"!", version)
        store.delete("a")
        store.delete("b")
    store.check_writable()
    changes = [
        call
        for call in server.calls
        if call.method in ("POST", "DELETE", "PATCH")
        or (call.method == "PUT" and "upload_id" not in call.path)
    ]
    assert len(changes) >= 12
    assert all("ifGenerationMatch=" in call.path for call in changes)


@EITHER
def test_the_version_is_the_generation(
    server: StorageServer, store: BucketStore, data: bytes
) -> None:
    version = store.create("a", data)
    assert version == str(there(server, store, "a").generation)
    assert (found := store.read("a")) is not None
    assert (found.data, found.version) == (data, version)
    assert store.size("a") == len(data)


@EITHER
def test_a_generation_that_is_gone_is_never_written_over(
    server: StorageServer, store: BucketStore, other: BucketStore, data: bytes
) -> None:
    version = store.create("a", b"first")
    # The other is quicker by a hair: after the look of this one and before its write.
    once(server, "POST", "upload", lambda: other.delete("a"))
    with pytest.raises(SwapLost, match=r"runs/a was changed by somebody else"):
        store.swap("a", data, version)
    assert store.read("a") is None


@EITHER
def test_a_session_is_checked_again_when_it_ends(
    server: StorageServer, store: BucketStore, other: BucketStore, data: bytes
) -> None:
    verb = "PUT" if data is LARGE else "POST"
    once(server, verb, "upload", lambda: other.create("a", b"quicker"))
    with pytest.raises(AlreadyExists, match="a holds other content already"):
        store.create("a", data)
    assert must_read(store, "a") == b"quicker"


# --- replies that get lost


@EITHER
def test_a_write_whose_reply_is_lost_is_ours(
    server: StorageServer, store: BucketStore, data: bytes
) -> None:
    verb = "PUT" if data is LARGE else "POST"
    skip = 2 if data is LARGE else 0  # the last of three pieces
    for write in (
        lambda: store.create("created", data),
        lambda: store.swap("swapped", data, None),
        lambda: store.swap("swapped", data + b"!", store.read("swapped").version),  # type: ignore[union-attr]
    ):
        server.faults.clear()
        server.faults.add(Rule("lost_reply", verb, "upload", count=1, skip=skip))
        version = write()
        name = "created" if server.faults.total == 1 else "swapped"
        assert version == str(there(server, store, name).generation)
    assert server.faults.total == 3
    assert must_read(store, "created") == data
    assert must_read(store, "swapped") == data + b"!"


def test_a_write_whose_every_reply_is_lost_is_found_by_looking(
    server: StorageServer, root: str
) -> None:
    store = bucket_store(server, root, retry=FAST.with_timeout(0.3))
    server.faults.add(Rule("lost_reply", "POST"))
    version = store.swap("swapped", SMALL, None)
    assert version == str(there(server, store, "swapped").generation)
    assert store.create("created", SMALL) == str(there(server, store, "created").generation)
    assert server.faults.total > 4


def test_a_win_is_known_though_others_wrote_over_it_before_the_reply_came_again(
    server: StorageServer, store: BucketStore, other: BucketStore
) -> None:
    first = store.swap("a", b"0", None)
    later: list[str] = []

    def overtake() -> None:
        for n in range(3):
            found = other.read("a")
            assert found is not None
            later.append(other.swap("a", found.data + b"%d" % n, found.version))

    def look(method: str, path: str) -> None:
        # The second attempt of the first writer is the first request after its reply was lost.
        if server.faults.total and not later and method == "POST":
            later.append("begun")
            overtake()

    server.before = look
    server.faults.add(Rule("lost_reply", "POST", count=1))
    version = store.swap("a", b"1", first)
    assert first < version < later[1]
    assert must_read(store, "a") == b"1012"
    with pytest.raises(SwapLost):
        store.swap("a", b"2", version)


def test_equal_content_of_another_writer_is_not_ours(
    server: StorageServer, store: BucketStore, other: BucketStore
) -> None:
    version = store.create("a", b"0")
    once(server, "POST", "upload", lambda: other.swap("a", b"same", version))
    with pytest.raises(SwapLost):
        store.swap("a", b"same", version)
    once(server, "POST", "upload", lambda: other.create("b", b"same"))
    with pytest.raises(SwapLost):
        store.swap("b", b"same", None)
    once(server, "POST", "upload", lambda: other.create("c", b"same"))
    assert store.create("c", b"same") == str(there(server, store, "c").generation)


def test_a_delete_whose_reply_is_lost_is_done(server: StorageServer, store: BucketStore) -> None:
    store.create("a", SMALL)
    server.faults.add(Rule("lost_reply", "DELETE", count=1))
    store.delete("a")
    assert server.count("DELETE") == 2
    assert store.read("a") is None


def test_what_is_replaced_while_it_is_deleted_is_deleted_too(
    server: StorageServer, store: BucketStore, other: BucketStore
) -> None:
    version = store.create("a", SMALL)
    once(server, "DELETE", "runs/a", lambda: other.swap("a", b"newer", version))
    store.delete("a")
    assert store.read("a") is None


# --- damage on the way


def test_a_download_that_comes_damaged_is_fetched_again(
    server: StorageServer, store: BucketStore
) -> None:
    store.create("a", SMALL)
    server.faults.add(Rule("corrupt_down", count=1))
    assert must_read(store, "a") == SMALL
    assert server.count("GET", "alt=media") == 2


def test_a_download_that_comes_damaged_every_time_is_told(
    server: StorageServer, store: BucketStore
) -> None:
    store.create("a", SMALL)
    server.faults.add(Rule("corrupt_down"))
    with pytest.raises(CheckpointDamaged, match=r"^gs://\S+/runs/a does not match") as error:
        store.read("a")
    assert "\n" not in str(error.value)
    assert server.count("GET", "alt=media") == gcs.DAMAGED_READS


@pytest.mark.parametrize(
    ("fault", "data"),
    [
        *((fault, SMALL) for fault in ("truncate", "reset_mid", "reset_before", "503", "429")),
        *((fault, LARGE) for fault in ("truncate", "reset_mid", "408")),
    ],
)
def test_a_download_that_breaks_off_goes_on(
    server: StorageServer, store: BucketStore, fault: str, data: bytes
) -> None:
    store.create("a", data)
    server.faults.add(Rule(fault, "GET", "alt=media", count=2))
    assert must_read(store, "a") == data
    assert server.faults.total == 2


@EITHER
def test_an_upload_that_is_damaged_on_its_way_is_refused_and_sent_again(
    server: StorageServer, store: BucketStore, data: bytes
) -> None:
    server.faults.add(Rule("corrupt_up", count=1))
    version = store.create("a", data)
    assert [call.fault for call in server.calls if call.status == 400] == (
        ["corrupt_up"] if data is SMALL else [None]  # a session is refused at its end
    )
    assert must_read(store, "a") == data
    assert version == str(there(server, store, "a").generation)


@EITHER
def test_an_upload_that_is_always_damaged_leaves_nothing(
    server: StorageServer, store: BucketStore, data: bytes
) -> None:
    store.create("old", b"whole")
    server.faults.add(Rule("corrupt_up"))
    with pytest.raises(StorageError, match="doesn't match") as error:
        store.create("a", data)
    assert "\n" not in str(error.value)
    assert store.read("a") is None
    assert must_read(store, "old") == b"whole"
    assert server.count("DELETE") == 0


@pytest.mark.parametrize("status", ["404", "410"])
@pytest.mark.parametrize("piece", [0, 2])
def test_a_session_that_the_service_forgets_is_begun_anew(
    server: StorageServer, store: BucketStore, status: str, piece: int
) -> None:
    server.faults.add(Rule(status, "PUT", "upload_id", count=1, skip=piece))
    store.create("a", LARGE)
    assert must_read(store, "a") == LARGE
    assert server.count("POST", "uploadType=resumable") == 2


@pytest.mark.parametrize("fault", ["reset_mid", "reset_before", "lost_reply", "503"])
@pytest.mark.parametrize("piece", [0, 2])
def test_a_piece_that_breaks_off_goes_on_in_its_session(
    server: StorageServer, store: BucketStore, fault: str, piece: int
) -> None:
    server.faults.add(Rule(fault, "PUT", "upload_id", count=1, skip=piece))
    store.create("a", LARGE)
    assert server.faults.total == 1
    assert must_read(store, "a") == LARGE
    assert server.count("POST", "uploadType=resumable") == 1


def test_content_of_others_is_checked_by_the_checksum_of_the_service(
    server: StorageServer, store: BucketStore
) -> None:
    server.world.put(store.bucket_name, {"name": "runs/a"}, {}, b"by hand")
    assert must_read(store, "a") == b"by hand"
    server.faults.add(Rule("corrupt_down"))
    with pytest.raises(CheckpointDamaged):
        store.read("a")


def test_what_is_replaced_while_it_is_read_is_read_whole(
    server: StorageServer, store: BucketStore, other: BucketStore
) -> None:
    version = store.create("a", b"older and longer")
    once(server, "GET", "alt=media", lambda: other.swap("a", b"newer", version))
    assert must_read(store, "a") == b"newer"
    once(server, "GET", "alt=media", lambda: other.delete("a"))
    assert store.read("a") is None


# --- patience


def test_a_service_that_stays_away_is_told_in_one_line(server: StorageServer, root: str) -> None:
    store = bucket_store(server, root, retry=FAST.with_timeout(0.2))
    server.faults.add(Rule("503"))
    for work in (
        lambda: store.read("a"),
        lambda: store.create("a", SMALL),
        lambda: store.swap("a", SMALL, None),
        lambda: store.delete("a"),
        lambda: store.keys(""),
        lambda: store.folders(""),
        lambda: store.check_writable(),
    ):
        with pytest.raises(BucketUnreachable, match=r"no good answer for gs://") as error:
            work()
        assert error.value.retryable
        assert "\n" not in str(error.value)


def test_a_port_where_nobody_answers_is_told_in_one_line(server: StorageServer) -> None:
    store = BucketStore(
        "gs://some-bucket/runs", endpoint="http://127.0.0.1:1", retry=FAST.with_timeout(0.2)
    )
    with pytest.raises(BucketUnreachable, match="no good answer") as error:
        store.read("a")
    assert "\n" not in str(error.value)


def test_an_answer_that_takes_too_long_is_asked_for_again(server: StorageServer, root: str) -> None:
    store = bucket_store(server, root, timeout_s=0.2)
    server.faults.add(Rule("stall:0.6", "POST", count=1))
    version = store.swap("a", SMALL, None)
    deadline = time.monotonic() + 10
    while server.count("POST") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    # The first request was taken up at last, and found that its generation was gone.
    assert sorted(c.status or 0 for c in server.calls if c.method == "POST") == [200, 412]
    assert version == str(there(server, store, "a").generation)


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_name_is_written_at_most_once_a_second(server: StorageServer, root: str) -> None:
    clock = Clock()
    server.world.writes_per_s = 1.0
    server.world.clock = lambda: clock.now
    pacer = Pacer(clock=lambda: clock.now, sleep=clock.sleep)
    store = bucket_store(server, root, pacer=pacer)
    version = None
    for n in range(4):
        version = store.swap("a", b"%d" % n, version)
        store.create(f"b/{n}", SMALL)
    assert clock.slept == [1.0, 1.0, 1.0]
    assert not any(call.status == 429 for call in server.calls)


@EITHER
@pytest.mark.parametrize("fault", ["503", "429", "lost_reply", "reset_before"])
def test_a_write_that_is_tried_again_keeps_its_distance_too(
    server: StorageServer, root: str, fault: str, data: bytes
) -> None:
    clock = Clock()
    pacer = Pacer(clock=lambda: clock.now, sleep=clock.sleep)
    store = bucket_store(server, root, pacer=pacer, chunk_bytes=16 * BLOCK)
    verb, pieces = ("PUT", 3) if data is LARGE else ("POST", 1)
    at: list[float] = []
    server.before = lambda method, path: at.append(clock.now) if method == verb else None
    # Only the last piece of a session writes.
    server.faults.add(Rule(fault, verb, "upload", count=2, skip=pieces - 1))
    version = store.swap("a", data, None)
    store.swap("a", b"next", version)
    assert server.faults.total == 2
    assert at[:pieces] == [100.0] * pieces, "the pieces before it did not wait"
    writes = at[pieces - 1 :]
    assert len(writes) >= 3
    assert all(later - sooner >= 1.0 for sooner, later in pairwise(writes))
    assert clock.now == 100.0 + 3, "and nothing waited longer than it had to"


def test_a_name_that_others_write_too_is_tried_again(server: StorageServer, root: str) -> None:
    server.world.writes_per_s = 1.0
    server.world.clock = lambda: 0.3 * len(server.calls)  # time goes by as requests come in
    one, two = bucket_store(server, root), bucket_store(server, root)
    version = one.swap("a", b"0", None)
    two.swap("a", b"1", version)
    assert any(call.status == 429 for call in server.calls)
    assert must_read(one, "a") == b"1"


@settings(max_examples=50, deadline=None)
@given(
    waits=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3, allow_nan=False)), max_size=12),
    interval=st.floats(0.1, 2),
)
def test_writes_to_one_name_keep_their_distance(
    waits: list[tuple[str, float]], interval: float
) -> None:
    clock = Clock()
    pacer = Pacer(interval, clock=lambda: clock.now, sleep=clock.sleep)
    last: dict[str, float] = {}
    for name, pause in waits:
        clock.now += pause
        before = clock.now
        pacer.wait(name)
        due = last.get(name, float("-inf")) + interval
        assert clock.now >= due - 1e-9
        assert clock.now <= max(before, due) + 1e-9, "waited for nothing"
        last[name] = clock.now


# --- names, lists, threads


def test_a_list_of_more_than_a_page_is_whole(server: StorageServer, store: BucketStore) -> None:
    for n in range(2100):
        name = f"runs/many/{n:04d}/x" if n % 2 else f"runs/many/{n:04d}"
        server.world.put(store.bucket_name, {"name": name}, {}, b"")
    assert len(store.keys("many/")) == 2100
    assert len(store.folders("many/")) == 1050


def test_names_that_are_not_ours_are_not_told(server: StorageServer, store: BucketStore) -> None:
    for name in ("runs/a b", "runs/.probe-1", "runs//x", "runs/ü", "run", "runs", "runs/d/", "x/y"):
        server.world.put(store.bucket_name, {"name": name}, {}, b"")
    server.world.put(store.bucket_name, {"name": "runs/b c/d"}, {}, b"")
    store.create("fine/one", SMALL)
    assert store.keys("") == ["fine/one"]
    assert store.folders("") == ["d", "fine"]


def test_two_prefixes_of_a_bucket_do_not_see_each_other(server: StorageServer) -> None:
    bucket = new_bucket(server)
    one, two = (bucket_store(server, f"gs://{bucket}/{prefix}") for prefix in ("a", "ab"))
    whole = bucket_store(server, f"gs://{bucket}")
    one.create("x", b"1")
    two.create("x", b"2")
    assert (one.keys(""), two.keys("")) == (["x"], ["x"])
    assert whole.keys("") == ["a/x", "ab/x"]
    assert two.where("x") == f"gs://{bucket}/ab/x"
    assert whole.where("x") == f"gs://{bucket}/x"


@pytest.mark.parametrize(
    "root",
    ["gs://", "gs:///x", "gs://B/x", "gs://a", "gs://ab/../x", "gs://abc//x", "gs://abc/x y",
     "gs://abc/.hidden", "gs://-abc", "gs://a b/x"],
)  # fmt: skip
def test_an_address_that_names_no_bucket_is_refused(root: str) -> None:
    if root == "gs://abc//x":
        assert gcs.split_address(root) == ("abc", "x/")
        return
    with pytest.raises(ConfigError):
        BucketStore(root)


def test_each_thread_speaks_through_a_client_of_its_own(
    server: StorageServer, store: BucketStore
) -> None:
    gate = threading.Barrier(3)

    def write(number: int) -> object:
        gate.wait()
        store.create(f"a/{number}", b"%d" % number)
        return store._client()

    with ThreadPoolExecutor(3) as pool:
        clients = list(pool.map(write, range(3)))
    assert len({id(client) for client in clients}) == 3
    assert store.keys("a/") == ["a/0", "a/1", "a/2"]


def test_content_that_is_there_already_is_not_sent_again(
    server: StorageServer, store: BucketStore
) -> None:
    version = store.create("a", LARGE)
    sent = sum(call.n_bytes for call in server.calls)
    assert store.create("a", LARGE) == version
    assert sum(call.n_bytes for call in server.calls) == sent


def test_nothing_is_streamed_into_an_object() -> None:
    # A writer of the client that is interrupted may publish half of what it was given.
    source = Path(gcs.__file__).read_text(encoding="utf-8")
    assert ".open(" not in source
    assert "upload_chunks_concurrently" not in source


def test_a_look_at_a_run_asks_the_bucket_for_hashes_and_reads_only_what_has_none(
    store: BucketStore, server: StorageServer
) -> None:
    run = RunStore(store, "alpha")
    run.create({})
    parts = {"small": {"w": np.ones(9)}, "large": {"w": np.ones(2 * SMALL_BYTES // 8)}}
    manifest = run.checkpoints.save(parts, {}, step=1, kind="end")
    before = len(server.calls)
    whole = check_run(run, {}, most_bytes=0)
    assert (whole.wrong, whole.unread) == ((), ())
    asked = [call.path for call in server.calls[before:] if "/blobs/" in call.path]
    assert asked
    assert not any("alt=media" in path for path in asked)
    names = {name: f"checkpoints/blobs/{part.sha256}" for name, part in manifest.parts.items()}
    for name, part in manifest.parts.items():
        there = {"name": f"runs/runs/alpha/{names[name]}"}
        server.world.put(store.bucket_name, there, {}, b"x" * part.size)
    found = check_run(run, {}, most_bytes=0)
    assert [file.name for file in found.wrong] == [names["small"]]
    assert found.unread == (names["large"],)
    assert {file.name for file in check_run(run, {}).wrong} == {*names.values()}
