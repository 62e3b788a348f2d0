from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symbio_core.errors import CheckpointDamaged, NotWritable, StorageError, SwapLost, UnknownRun
from symbio_core.storage import BlobStore, FolderStore, ObjectStore, RunStore

WEIGHTS = {"w": np.arange(6.0)}


def changes_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record what is synced, replaced and removed, each by its inode."""
    seen: list[tuple[str, int]] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def synced(handle: int) -> None:
        seen.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def replaced(source: str, target: Path) -> None:
        seen.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    def unlinked(path: str) -> None:
        if os.path.exists(path):
            seen.append(("unlink", os.stat(path).st_ino))
        unlink(path)

    for name, call in (("fsync", synced), ("replace", replaced), ("unlink", unlinked)):
        monkeypatch.setattr(os, name, call)
    return seen


# --- what a power cut could undo is synced, in this order


@pytest.mark.parametrize("write", ["create", "swap"])
def test_content_is_synced_before_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    store = FolderStore(tmp_path / "root")
    seen = changes_of_the_disk(monkeypatch)
    key = "runs/a/file"
    _ = store.create(key, b"x") if write == "create" else store.swap(key, b"x", None)
    file, folder = Path(store.where(key)), Path(store.where("runs/a"))
    content, name = file.stat().st_ino, folder.stat().st_ino
    wanted = [("sync", content), ("replace", content), ("sync", name)]
    assert [event for event in seen if event in wanted] == wanted


def test_new_folders_are_synced_into_those_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = changes_of_the_disk(monkeypatch)
    FolderStore(tmp_path / "root").create("runs/a/file", b"x")
    for above in (tmp_path, tmp_path / "root", tmp_path / "root/runs"):
        assert ("sync", above.stat().st_ino) in seen


def test_a_deletion_is_synced_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    store.create("manifests/m", b"x")
    store.create("blobs/b", b"y")
    inodes = [Path(store.where(key)).stat().st_ino for key in ("manifests/m", "blobs/b")]
    seen = changes_of_the_disk(monkeypatch)
    store.delete("manifests/m")
    store.delete("blobs/b")
    wanted = [
        ("unlink", inodes[0]),
        ("sync", (tmp_path / "manifests").stat().st_ino),
        ("unlink", inodes[1]),
    ]
    assert [event for event in seen if event in wanted] == wanted


# --- what cannot be seen is not taken for absent


def test_a_folder_that_cannot_be_listed_does_not_look_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunStore(FolderStore(tmp_path), "alpha")
    saved = run.checkpoints.save({"member": WEIGHTS}, {}, step=1, kind="end")
    real = os.scandir

    def refuse(folder: Any) -> Any:
        if str(folder).rstrip("/").endswith("manifests"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(StorageError, match=r"cannot read .*manifests.* \(Permission denied\)"):
            run.checkpoints.retain(set())
    assert np.array_equal(run.checkpoints.load(saved.id).arrays("member")["w"], WEIGHTS["w"])


def test_a_place_without_locks_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(self: FolderStore) -> None:
        raise NotImplementedError("file system has no locks")

    monkeypatch.setattr(FolderStore, "_lock", no_locks)
    with pytest.raises(NotWritable, match="file system has no locks") as caught:
        FolderStore(tmp_path).check_writable()
    assert "\n" not in str(caught.value)


# --- a checkpoint is believed only as far as it is proven


def test_a_blob_of_the_wrong_size_is_refused_unread(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunStore(store, "alpha")
    saved = run.checkpoints.save({"member": WEIGHTS}, {}, step=1, kind="end")
    key = f"runs/alpha/checkpoints/blobs/{saved.parts['member'].sha256}"
    store.delete(key)
    store.create(key, bytes(10_000))
    read = store.read

    def not_blobs(wanted: str) -> Any:
        assert wanted != key, "a blob of the wrong size was read"
        return read(wanted)

    monkeypatch.setattr(store, "read", not_blobs)
    with pytest.raises(CheckpointDamaged, match=f"{key} has 10000 bytes instead of"):
        run.checkpoints.load(saved.id)


def header(fields: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 10**15) + b"{}",
        header({"w": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}}),
        header({"w": {"dtype": "F32", "shape": [2**62, 16], "data_offsets": [0, 4]}}, bytes(4)),
        header({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.",
    ],
    ids=["empty", "huge header", "petabyte", "beyond the file", "overflow", "no dtype", "pickle"],
)
def test_a_true_hash_over_no_tensors_is_damage_all_the_same(
    store: ObjectStore, data: bytes
) -> None:
    run = RunStore(store, "alpha")
    honest = run.checkpoints.save({"member": WEIGHTS}, {}, step=1, kind="end")
    sha256 = BlobStore(store, run.checkpoints.home).put(data)
    part = honest.parts["member"].model_copy(update={"sha256": sha256, "size": len(data)})
    forged = honest.model_copy(update={"parts": {"member": part}})
    store.create(f"runs/alpha/checkpoints/manifests/{forged.id}.json", forged.data)
    loaded = run.checkpoints.load(forged.id)
    with pytest.raises(CheckpointDamaged, match=r"'member' of checkpoint .* no whole tensors"):
        loaded.arrays("member")


def test_a_manifest_that_says_the_same_in_other_bytes_is_damage(store: ObjectStore) -> None:
    run = RunStore(store, "alpha")
    saved = run.checkpoints.save({"member": WEIGHTS}, {}, step=1, kind="end")
    key = f"runs/alpha/checkpoints/manifests/{saved.id}.json"
    store.delete(key)
    store.create(key, saved.data + b" ")
    with pytest.raises(CheckpointDamaged, match=f"{saved.id}.json does not match its hash"):
        run.checkpoints.load(saved.id)


def test_facts_in_another_order_are_the_same_bytes(store: ObjectStore) -> None:
    one, two = (
        RunStore(store, name).checkpoints.save({"search": data}, data, step=1, kind="end")
        for name, data in (("one", {"a": 1, "b": [2]}), ("two", {"b": [2], "a": 1}))
    )
    assert one.parts == two.parts
    assert one.data.replace(b'"one"', b'"two"') == two.data


# --- two writers


def test_a_save_that_another_overtakes_is_told_and_moves_nothing_back(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = RunStore(store, "alpha").checkpoints, RunStore(store, "alpha").checkpoints
    slow.save({"member": WEIGHTS}, {}, step=1, kind="step")
    create = store.create
    faster: list[str] = []

    def overtaken(key: str, data: bytes) -> str:
        if "/manifests/" in key:
            monkeypatch.setattr(store, "create", create)
            faster.append(fast.save({"member": WEIGHTS}, {}, step=3, kind="step").id)
        return create(key, data)

    monkeypatch.setattr(store, "create", overtaken)
    with pytest.raises(SwapLost, match="another process works on this run"):
        slow.save({"member": WEIGHTS}, {"by": "slow"}, step=2, kind="step")
    latest = fast.latest()
    assert latest is not None
    assert latest.id == faster[0]


def test_a_state_that_somebody_else_moved_is_not_overwritten(store: ObjectStore) -> None:
    first, second = RunStore(store, "alpha"), RunStore(store, "alpha")
    first.write_state({"steps": 1})
    second.write_state({"steps": 2})
    with pytest.raises(SwapLost, match=r"state\.json was changed by somebody else"):
        first.write_state({"steps": 3})
    assert first.read_state() == {"steps": 2}
    first.write_state({"steps": 3})
    assert second.read_state() == {"steps": 3}


def test_a_damaged_snapshot_is_told_to_readers_and_replaced_by_the_writer(
    store: ObjectStore,
) -> None:
    store.create("runs/alpha/state.json", b"{")
    run = RunStore(store, "alpha")
    run.write_state({"steps": 1})
    assert run.read_state() == {"steps": 1}
    store.delete("runs/alpha/state.json")
    store.create("runs/alpha/state.json", b"[]")
    with pytest.raises(StorageError, match=r"state\.json is damaged \(not an object\)"):
        run.read_state()


# --- what people see


def test_half_a_surrogate_pair_in_a_text_comes_back(store: ObjectStore) -> None:
    RunStore(store, "alpha").journal.append([{"text": "\ud83d and \udca9"}])
    assert RunStore(store, "alpha").journal.read() == [{"text": "\ud83d and \udca9"}]


def test_a_mistyped_run_is_answered_with_the_nearest(store: ObjectStore) -> None:
    for name in ("demo-1", "nightly"):
        RunStore(store, name).create({})
    with pytest.raises(UnknownRun, match=r"no run 'demo-2' .*there are: demo-1; "):
        RunStore(store, "demo-2").read_config()
    with pytest.raises(UnknownRun, match="there are: demo-1, nightly; "):
        RunStore(store, "zzz").read_config()


def test_a_report_says_where_it_lies(tmp_path: Path) -> None:
    place = RunStore(FolderStore(tmp_path), "alpha").write_report("report.html", b"<p>")
    assert Path(place) == tmp_path / "runs/alpha/report/report.html"
    assert Path(place).read_bytes() == b"<p>"


def test_equal_tables_are_equal_bytes(store: ObjectStore) -> None:
    frames = [pd.DataFrame({"step": [1, 2], "loss": [0.5, float("nan")]}) for _ in range(2)]
    run = RunStore(store, "alpha")
    for name, frame in zip(("one", "two"), frames, strict=True):
        run.write_metrics(name, frame)
    assert run.read_file("metrics/one.parquet") == run.read_file("metrics/two.parquet")


def test_storage_needs_no_torch() -> None:
    probe = "import sys, symbio_core.storage; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", probe], cwd=root, check=False).returncode == 0
