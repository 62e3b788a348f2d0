from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.errors import (
    AlreadyExists,
    CheckpointDamaged,
    ConfigError,
    DiskTooFull,
    NotWritable,
    StorageError,
    SwapLost,
)
from symbio_core.storage import FolderStore, ObjectStore, open_store
from symbio_core.storage.objects import HUGE_BYTES

names = st.lists(st.sampled_from(["a", "b", "c.json", "7-d_e"]), min_size=1, max_size=3)
contents = st.sampled_from([b"", b"one", b"two", bytes(range(256))])


def must_read(store: ObjectStore, key: str) -> bytes:
    found = store.read(key)
    assert found is not None
    return found.data


# --- create once, swap what was read


def test_what_is_created_is_read_back_with_its_version(store: ObjectStore) -> None:
    version = store.create("runs/a/config.json", b"facts")
    found = store.read("runs/a/config.json")
    assert found is not None
    assert (found.data, found.version) == (b"facts", version)
    assert store.size("runs/a/config.json") == 5


def test_nothing_is_read_where_nothing_is(store: ObjectStore) -> None:
    store.create("a/b", b"x")
    for key in ("c", "a", "a/b/c", "a/c"):
        assert store.read(key) is None
        assert store.size(key) is None


def test_a_name_is_created_once_and_equal_content_is_welcome(store: ObjectStore) -> None:
    version = store.create("a", b"first")
    assert store.create("a", b"first") == version
    with pytest.raises(AlreadyExists, match="a holds other content"):
        store.create("a", b"second")
    assert must_read(store, "a") == b"first"


def test_a_swap_has_to_name_the_version_that_is_there(store: ObjectStore) -> None:
    with pytest.raises(SwapLost):
        store.swap("a", b"x", "0" * 64)
    assert store.read("a") is None
    first = store.swap("a", b"one", None)
    with pytest.raises(SwapLost):
        store.swap("a", b"late", None)
    second = store.swap("a", b"two", first)
    with pytest.raises(SwapLost):
        store.swap("a", b"late", first)
    assert must_read(store, "a") == b"two"
    assert second != first


def test_a_deleted_name_may_be_created_anew(store: ObjectStore) -> None:
    store.create("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.read("a/b") is None
    store.create("a/b", b"y")
    assert must_read(store, "a/b") == b"y"


@settings(max_examples=25, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["create", "swap", "late swap", "delete"]), names, contents),
        max_size=12,
    )
)
def test_a_store_behaves_as_a_dictionary_would(
    shared: ObjectStore, moves: list[tuple[str, list[str], bytes]]
) -> None:
    for key in shared.keys(""):
        shared.delete(key)
    model: dict[str, bytes] = {}
    for verb, parts, data in moves:
        # Every part but the last is a folder, so no name is a folder and a file at once.
        key = "/".join([*(f"in-{part}" for part in parts[:-1]), parts[-1]])
        found = shared.read(key)
        assert (found.data if found else None) == model.get(key)
        if verb == "delete":
            shared.delete(key)
            model.pop(key, None)
        elif verb == "swap":
            shared.swap(key, data, found.version if found else None)
            model[key] = data
        elif verb == "late swap":
            with pytest.raises(SwapLost):
                shared.swap(key, data, "an older version")
        elif model.setdefault(key, data) == data:
            shared.create(key, data)
        else:
            with pytest.raises(AlreadyExists):
                shared.create(key, data)
    assert shared.keys("") == sorted(model)
    assert {key: must_read(shared, key) for key in shared.keys("")} == model


# --- racing


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    gate = threading.Barrier(count)

    def started(number: int) -> Any:
        gate.wait()
        try:
            return work(number)
        except StorageError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(started, range(count)))


def test_of_many_who_create_a_name_exactly_one_wins(store: ObjectStore) -> None:
    for turn in range(5):
        key = f"prize-{turn}"
        results = in_threads(6, lambda number, key=key: store.create(key, b"%d" % number))
        winners = [n for n, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1
        assert must_read(store, key) == b"%d" % winners[0]
        assert sum(isinstance(result, AlreadyExists) for result in results) == 5


def test_of_many_who_swap_a_version_exactly_one_wins(store: ObjectStore) -> None:
    version: str | None = None
    for _ in range(5):
        expected = version
        results = in_threads(6, lambda n, at=expected: store.swap("a", f"{at} {n}".encode(), at))
        winners = [n for n, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1
        assert sum(isinstance(result, SwapLost) for result in results) == 5
        found = store.read("a")
        assert found is not None
        assert found.data == f"{expected} {winners[0]}".encode()
        version = found.version


def count_up(store: ObjectStore, times: int) -> None:
    done = 0
    while done < times:
        found = store.read("count")
        number = int(found.data) if found else 0
        try:
            store.swap("count", b"%d" % (number + 1), found.version if found else None)
        except SwapLost:
            continue
        done += 1


def test_threads_that_count_together_lose_no_step(store: ObjectStore) -> None:
    in_threads(4, lambda number: count_up(store, 8))
    assert must_read(store, "count") == b"32"


COUNT_UP = """
import sys
from symbio_core.errors import SwapLost
from symbio_core.storage import open_store
store, done = open_store(sys.argv[1]), 0
while done < 20:
    found = store.read("count")
    try:
        number = int(found.data) if found else 0
        store.swap("count", b"%d" % (number + 1), found.version if found else None)
        done += 1
    except SwapLost:
        pass
"""


def test_processes_that_count_together_lose_no_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT_UP, str(tmp_path / "root")]
    house = Path(__file__).parents[2]
    started = [subprocess.Popen(command, cwd=house) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert must_read(open_store(str(tmp_path / "root")), "count") == b"40"


# --- names


@pytest.mark.parametrize(
    "key",
    [
        "", "/etc/passwd", "../up", "a/../../up", "a/..", "a//b", "a/", ".hidden", "a/.hidden",
        "a b", "a\n", "a\\b", "C:/a", "~/a", "ü", "a/\x00", "./a",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(store: ObjectStore, key: str) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.create(key, b"x"),
        lambda: store.swap(key, b"x", None),
        lambda: store.delete(key),
    )
    for call in calls:
        with pytest.raises(ConfigError, match="is not a name that a store can hold"):
            call()
    assert store.keys("") == []


@pytest.mark.parametrize("prefix", ["/etc/", "../", "a/../../", "//", "runs/../"])
def test_a_prefix_that_leads_elsewhere_is_refused(store: ObjectStore, prefix: str) -> None:
    store.create("a/b", b"x")
    with pytest.raises(ConfigError, match="is not the start of a name in a store"):
        store.keys(prefix)


def test_keys_are_sorted_and_a_prefix_need_not_end_at_a_slash(store: ObjectStore) -> None:
    for key in ("b/2", "b/1", "b/10", "bc", "a/b/c"):
        store.create(key, b"x")
    assert store.keys("") == ["a/b/c", "b/1", "b/10", "b/2", "bc"]
    assert store.keys("b") == ["b/1", "b/10", "b/2", "bc"]
    assert store.keys("b/") == ["b/1", "b/10", "b/2"]
    assert store.keys("b/1") == ["b/1", "b/10"]
    assert store.keys("z/") == []


@pytest.mark.parametrize("root", ["s3://here/runs", "https://here/runs", "gs://"])
def test_a_root_of_an_unknown_kind_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match=r"neither a folder nor gs://|names no bucket"):
        open_store(root)


# --- a folder on a disk that refuses


def files_below(root: Path) -> list[Path]:
    """Everything that was left there, save the lock, which stays on purpose."""
    return [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]


def write_all_ways(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        lambda: store.create("new/one", b"x"),
        lambda: store.swap("new/two", b"x", None),
        lambda: store.check_writable(),
    ]


@pytest.mark.parametrize("place", ["a file", "a file/root", "a file/deep/root"])
def test_a_root_that_cannot_be_a_folder_is_not_writable(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("not a folder")
    store = FolderStore(tmp_path / place)
    for write in write_all_ways(store):
        with pytest.raises(
            NotWritable, match=r"cannot write .*or give another --storage$"
        ) as error:
            write()
        assert str(tmp_path / place) in str(error.value)
        assert "\n" not in str(error.value)
    assert store.read("new/one") is None
    assert store.keys("") == []


@pytest.mark.parametrize("operation", ["mkdir", "open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_told_in_one_line_and_nothing_is_left_behind(
    tmp_path: Path, faults: Any, operation: str, code: int
) -> None:
    store = FolderStore(tmp_path / "root")
    store.create("old", b"whole")
    faults.refuse(operation, code)
    expected = DiskTooFull if code in (errno.ENOSPC, errno.EDQUOT) else NotWritable
    with pytest.raises(expected, match=str(tmp_path / "root")) as error:
        store.create("new/one", b"x")
    assert "\n" not in str(error.value)
    faults.heal()
    assert store.read("new/one") is None
    assert must_read(store, "old") == b"whole"
    assert [path.name for path in files_below(tmp_path)] == ["old"]


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_swap_that_fails_keeps_the_old_version(
    tmp_path: Path, faults: Any, operation: str, code: int
) -> None:
    store = FolderStore(tmp_path / "root")
    version = store.swap("a", b"old", None)
    faults.refuse(operation, code)
    with pytest.raises((NotWritable, DiskTooFull)):
        store.swap("a", b"new", version)
    faults.heal()
    assert must_read(store, "a") == b"old"
    store.swap("a", b"new", version)
    assert must_read(store, "a") == b"new"


def test_a_swap_that_dies_anywhere_leaves_the_old_or_the_new(tmp_path: Path, faults: Any) -> None:
    for call in range(100):
        store = FolderStore(tmp_path / str(call))
        version = store.swap("a", b"old", None)
        died = faults.dies(call, lambda at=store, v=version: at.swap("a", b"new", v))
        assert must_read(store, "a") in ((b"old", b"new") if died else (b"new",))
        assert store.keys("") == ["a"]
        if not died:
            assert call >= 3
            return
    raise AssertionError("a swap without end")


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StorageError, match=r"cannot read .*loop") as error:
        FolderStore(tmp_path).read("loop")
    assert "\n" not in str(error.value)


def test_a_run_is_told_beforehand_that_it_will_not_fit(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    store.check_writable(1)
    with pytest.raises(DiskTooFull, match=r"GB free and this run needs about 1000000000\.00 GB"):
        store.check_writable(10**18)
    assert files_below(tmp_path) == []


def test_looking_for_trouble_leaves_nothing_behind(tmp_path: Path, faults: Any) -> None:
    store = FolderStore(tmp_path / "root")
    for code in (errno.ENOSPC, errno.EROFS):
        faults.refuse("fsync", code)
        with pytest.raises((DiskTooFull, NotWritable)):
            store.check_writable()
    faults.heal()
    assert files_below(tmp_path) == []


def test_strange_files_are_neither_listed_nor_in_the_way(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create("a/b", b"x")
    (tmp_path / "a" / ".part-left-over").write_bytes(b"half")
    (tmp_path / "a" / "my notes.txt").write_text("mine")
    (tmp_path / "a" / "empty").mkdir()
    assert store.keys("") == ["a/b"]
    store.create("a/empty/c", b"y")
    assert store.keys("a/") == ["a/b", "a/empty/c"]


def test_files_have_the_rights_that_a_person_gives_to_new_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create("a", b"x")
    store.swap("b", b"x", None)
    old = os.umask(0o027)
    try:
        store.create("c", b"x")
    finally:
        os.umask(old)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o640


def holed(path: Path, written: int, size: int) -> bytes:
    """Write so many bytes and declare more; return what a reader would see."""
    with path.open("wb") as file:
        file.write(b"x" * written)
        file.truncate(size)
    return b"x" * written + bytes(size - written)


@pytest.mark.parametrize("written", [0, 4096])
def test_a_file_that_claims_far_more_than_was_written_is_not_read(
    tmp_path: Path, written: int
) -> None:
    store = FolderStore(tmp_path)
    holed(tmp_path / "blob", written, 3 * HUGE_BYTES)
    for look in (store.read, store.sha256):
        with pytest.raises(CheckpointDamaged, match=r"blob claims .* GB, more than was written"):
            look("blob")


def test_zeros_that_a_disk_keeps_as_holes_are_content_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symbio_core.storage.objects.HUGE_BYTES", 1000)
    data = holed(tmp_path / "blob", 2**18, 2**20)
    store = FolderStore(tmp_path)
    found = store.read("blob")
    assert found is not None
    assert found.data == data
    assert store.sha256("blob") == hashlib.sha256(data).hexdigest()


def test_a_hash_is_found_in_little_memory(tmp_path: Path) -> None:
    data = holed(tmp_path / "blob", 2**20, 2**26)
    expected = hashlib.sha256(data).hexdigest()
    del data
    tracemalloc.start()
    try:
        assert FolderStore(tmp_path).sha256("blob") == expected
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_store_knows_length_and_hash_of_what_it_holds(store: ObjectStore) -> None:
    assert store.facts("a") is None
    assert store.sha256("a") is None
    store.create("a", b"some")
    told = hashlib.sha256(b"some").hexdigest()
    facts = store.facts("a")
    assert facts is not None
    assert facts.size == 4
    assert facts.sha256 in (None, told)
    assert store.sha256("a") == told
