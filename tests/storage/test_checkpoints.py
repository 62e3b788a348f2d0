from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from symbio_core.errors import CheckpointDamaged
from symbio_core.storage import CheckpointStore, FolderStore, Manifest, ObjectStore, RunStore

Damage = Callable[[Path], object]
DTYPES = ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
arrays = hnp.arrays(
    st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
tensors = st.dictionaries(st.text(min_size=1, max_size=8), arrays, max_size=4)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


class Anyone:
    """A holder whose right nobody disputes."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def check(self) -> None:
        """Be allowed to."""


def checkpoints(root: Path) -> CheckpointStore:
    return CheckpointStore(FolderStore(root), "alpha")


def weights(seed: float) -> dict[str, Any]:
    return {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3) * np.float32(seed),
        "b": np.array(seed),
    }


def saved(to: CheckpointStore, seed: float, **more: Any) -> Manifest:
    facts: dict[str, Any] = {"step": int(10 * seed), "kind": "step"} | more
    return to.save({"member": weights(seed), "search": {"hall": ["x"]}}, {"seed": seed}, **facts)


def is_whole(store: CheckpointStore, manifest: Manifest, seed: float) -> bool:
    found = CheckpointStore(store.store, store.run_id).load(manifest.id)
    same = all(np.array_equal(found.arrays("member")[k], v) for k, v in weights(seed).items())
    return same and found.json("search") == {"hall": ["x"]} and found.manifest == manifest


def blob(root: Path, manifest: Manifest, part: str = "member") -> Path:
    return root / "runs/alpha/checkpoints/blobs" / manifest.parts[part].sha256


def manifest_file(root: Path, manifest: Manifest) -> Path:
    return root / "runs/alpha/checkpoints/manifests" / f"{manifest.id}.json"


def dumped(content: Any) -> str:
    """JSON text, in which one NaN equals another and the order of keys does not count."""
    return json.dumps(content, sort_keys=True)


# --- there and back


@settings(max_examples=30, deadline=None)
@given(content=tensors)
def test_tensors_come_back_bit_for_bit(shared: ObjectStore, content: dict[str, Any]) -> None:
    store = CheckpointStore(shared, "tensors")
    found = store.load(store.save({"member": content}, {}, step=1, kind="step").id)
    back = found.arrays("member")
    assert back.keys() == content.keys()
    for name, array in content.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


@settings(max_examples=30, deadline=None)
@given(content=plain, meta=st.dictionaries(st.text(max_size=5), plain, max_size=3))
def test_plain_data_comes_back_as_it_was(
    shared: ObjectStore, content: Any, meta: dict[str, Any]
) -> None:
    store = CheckpointStore(shared, "plain")
    found = store.load(store.save({"progress": content}, meta, step=1, kind="step").id)
    assert dumped(found.json("progress")) == dumped(content)
    assert dumped(found.manifest.meta) == dumped(meta)


def test_views_and_foreign_byte_orders_come_back_as_values(run: RunStore) -> None:
    table = np.arange(24, dtype=np.float64).reshape(4, 6)
    content = {"turned": table.T, "thin": table[::2, ::3], "big": table.astype(">f8")}
    manifest = run.checkpoints.save({"member": content}, {}, step=0, kind="end")
    back = run.checkpoints.load(manifest.id).arrays("member")
    for name, array in content.items():
        np.testing.assert_array_equal(back[name], array)


def test_a_part_that_is_not_there_or_is_no_tensor_is_named(run: RunStore) -> None:
    loaded = run.checkpoints.load(saved(run.checkpoints, 1.0).id)
    with pytest.raises(CheckpointDamaged, match="'ema'"):
        loaded.arrays("ema")
    with pytest.raises(CheckpointDamaged, match="'ema'"):
        loaded.json("ema")
    with pytest.raises(CheckpointDamaged, match="'search'"):
        loaded.arrays("search")
    with pytest.raises(CheckpointDamaged, match="'member'"):
        loaded.json("member")


# --- content decides names


def test_equal_content_gives_equal_bytes_and_names_whatever_the_order(tmp_path: Path) -> None:
    for root, order in (("a", 1), ("b", -1)):
        parts = {"member": dict(list(weights(2.0).items())[::order]), "search": {"y": 1, "x": 2}}
        checkpoints(tmp_path / root).save(
            dict(list(parts.items())[::order]), {"p": 1, "q": 2}, step=3, kind="end"
        )
    files = [
        {path.relative_to(tmp_path / root): path.read_bytes() for path in found if path.is_file()}
        for root in ("a", "b")
        for found in [(tmp_path / root).rglob("*")]
    ]
    assert files[0] == files[1]
    assert sum(path.name != ".lock" for path in files[0]) == 4  # two blobs, a manifest, LATEST


def test_a_part_that_two_checkpoints_share_is_stored_once(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    first, second = saved(store, 1.0), saved(store, 2.0)
    assert first.parts["search"] == second.parts["search"]
    assert first.parts["member"] != second.parts["member"]
    assert len(list(blob(tmp_path, first).parent.iterdir())) == 3


def test_saves_are_counted_in_their_order(run: RunStore) -> None:
    made = [saved(run.checkpoints, seed) for seed in (3.0, 1.0, 2.0)]
    assert [manifest.order for manifest in made] == [0, 1, 2]
    assert run.checkpoints.manifests() == made
    assert run.checkpoints.newest_whole().manifest == made[-1]


def test_the_newest_of_a_kind_is_found(run: RunStore) -> None:
    step, end = saved(run.checkpoints, 1.0), saved(run.checkpoints, 2.0, kind="end")
    assert run.checkpoints.newest_whole("step").manifest == step
    assert run.checkpoints.newest_whole("end").manifest == end
    assert run.checkpoints.newest_whole("best").manifest is None


# --- damage


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "shortened": shorten, "flipped": flip, "emptied": empty, "deleted": Path.unlink,
    "a folder": replace_by_folder,
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("part", ["member", "search"])
def test_a_damaged_blob_is_named_and_the_newest_whole_one_is_taken(
    tmp_path: Path, how: str, part: str
) -> None:
    store = checkpoints(tmp_path)
    older = store.save({part: {"n": np.ones(2)}}, {}, step=1, kind="step")
    newer = saved(store, 2.0)
    DAMAGES[how](blob(tmp_path, newer, part))
    with pytest.raises(CheckpointDamaged, match=newer.parts[part].sha256):
        store.load(newer.id)
    found = store.newest_whole()
    assert found.manifest == older
    assert len(found.damaged) == 1
    assert newer.parts[part].sha256 in found.damaged[0]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest_is_named_and_the_newest_whole_one_is_taken(
    tmp_path: Path, how: str
) -> None:
    store = checkpoints(tmp_path)
    older, newer = saved(store, 1.0), saved(store, 2.0)
    DAMAGES[how](manifest_file(tmp_path, newer))
    with pytest.raises(CheckpointDamaged, match=newer.id):
        store.load(newer.id)
    assert store.manifests() == [older]
    found = store.newest_whole("step")
    assert found.manifest == older
    if how not in ("deleted", "a folder"):  # then there is no file left to tell of
        assert [newer.id in text for text in found.damaged] == [True]


def test_a_manifest_under_another_name_is_not_believed(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    manifest = saved(store, 1.0)
    path = manifest_file(tmp_path, manifest)
    path.rename(path.with_name("0000000099-0123456789abcdef.json"))
    assert store.newest_whole().manifest is None
    with pytest.raises(CheckpointDamaged, match="does not match its hash"):
        store.load("0000000099-0123456789abcdef")


def test_a_manifest_may_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    path = manifest_file(tmp_path, saved(store, 1.0))
    for evil in ("../../../secret", "/etc/passwd"):
        content = json.loads(path.read_bytes())
        content["parts"]["member"]["sha256"] = evil
        forged = path.with_name("0000000010-0123456789abcdef.json")
        forged.write_text(json.dumps(content))
        with pytest.raises(CheckpointDamaged, match="is not a manifest"):
            store.load("0000000010-0123456789abcdef")


def test_a_blob_of_another_length_is_told_by_its_length(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    manifest = saved(store, 1.0)
    size = manifest.parts["member"].size
    shorten(blob(tmp_path, manifest))
    with pytest.raises(CheckpointDamaged, match=f"has {size - 3} bytes instead of {size}"):
        store.load(manifest.id)


def test_with_every_checkpoint_damaged_all_are_named(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    for manifest in (saved(store, 1.0), saved(store, 2.0)):
        empty(blob(tmp_path, manifest))
    found = store.newest_whole()
    assert found.manifest is None
    assert len(found.damaged) == 2


@pytest.mark.parametrize("how", sorted(set(DAMAGES) - {"a folder"}))
@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_training_the_same_again_mends_what_was_damaged(
    tmp_path: Path, how: str, what: str
) -> None:
    store = checkpoints(tmp_path)
    manifest = saved(store, 1.0)
    path = blob(tmp_path, manifest) if what == "blob" else manifest_file(tmp_path, manifest)
    DAMAGES[how](path)
    again = saved(store, 1.0)
    assert is_whole(store, again, 1.0)
    assert store.newest_whole().manifest == again


# --- what is kept


def test_retain_keeps_what_is_named_the_latest_and_the_parts_they_share(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    first, second, third, latest = (saved(store, seed) for seed in (1.0, 2.0, 3.0, 4.0))
    store.retain({second.id, "0000000099-0123456789abcdef"})
    assert store.manifests() == [second, latest]
    assert is_whole(store, second, 2.0)
    assert is_whole(store, latest, 4.0)
    assert not blob(tmp_path, first).exists()
    assert not blob(tmp_path, third).exists()
    assert len(list(blob(tmp_path, second).parent.iterdir())) == 3


def test_retain_never_touches_what_it_does_not_know(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    kept = saved(store, 1.0)
    saved(store, 2.0)
    home = tmp_path / "runs/alpha/checkpoints"
    strange = [
        home / "blobs/notes.txt", home / "blobs/my weights.safetensors",
        home / "blobs" / ("A" * 64),
        home / "manifests/readme.md", home / "manifests/12-abc.json", home / "other/file",
        home / "blobs" / ("0" * 63), tmp_path / "runs/beta/checkpoints/blobs" / ("0" * 64),
    ]  # fmt: skip
    for path in strange:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    store.retain({kept.id})
    store.retain(set())
    assert all(path.read_text() == "mine" for path in strange)


def test_retain_spares_every_blob_while_a_kept_manifest_cannot_be_read(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    kept, gone, latest = saved(store, 1.0), saved(store, 2.0), saved(store, 3.0)
    path = manifest_file(tmp_path, kept)
    whole = path.read_bytes()
    shorten(path)
    store.retain({kept.id})
    assert not manifest_file(tmp_path, gone).exists()
    path.write_bytes(whole)  # restored from a copy
    assert is_whole(store, kept, 1.0)
    store.retain({kept.id})
    assert not blob(tmp_path, gone).exists()
    assert is_whole(store, kept, 1.0)
    assert is_whole(store, latest, 3.0)


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 4), min_size=1, max_size=6), data=st.data())
def test_whatever_is_kept_stays_whole(
    shared: ObjectStore, seeds: list[int], data: st.DataObject
) -> None:
    for key in shared.keys("runs/kept/"):
        shared.delete(key)
    store = CheckpointStore(shared, "kept")
    made = [(saved(store, float(seed)), float(seed)) for seed in seeds]
    keep = data.draw(st.sets(st.sampled_from([manifest.id for manifest, _ in made])))
    store.retain(keep)
    keep = {*keep, made[-1][0].id}
    assert {manifest.id for manifest in store.manifests()} == keep
    assert all(is_whole(store, m, seed) for m, seed in made if m.id in keep)
    used = {part.sha256 for m, _ in made if m.id in keep for part in m.parts.values()}
    assert {key.rpartition("/")[2] for key in shared.keys("runs/kept/checkpoints/blobs/")} == used


# --- dying on the way


def test_a_save_that_dies_anywhere_leaves_every_earlier_checkpoint_whole(
    tmp_path: Path, faults: Any
) -> None:
    for call in range(200):
        store = checkpoints(tmp_path / str(call))
        first, second = saved(store, 1.0), saved(store, 2.0)
        died = faults.dies(call, lambda store=store: saved(store, 3.0))
        assert is_whole(store, first, 1.0)
        assert is_whole(store, second, 2.0)
        latest = store.latest()
        assert latest is not None
        assert latest.meta["seed"] in ((2.0, 3.0) if died else (3.0,))
        newest = store.newest_whole()
        assert newest.damaged == ()
        assert newest.manifest is not None
        assert newest.manifest.meta["seed"] in ((2.0, 3.0) if died else (3.0,))
        if not died:
            assert call >= 9  # three files, each opened, synced and named
            return
        again = saved(store, 3.0)
        assert is_whole(store, again, 3.0)
    raise AssertionError("a save without end")


def test_a_retain_that_dies_anywhere_loses_nothing_that_was_to_be_kept(
    tmp_path: Path, faults: Any
) -> None:
    for call in range(200):
        store = checkpoints(tmp_path / str(call))
        saved(store, 1.0), saved(store, 2.0)
        kept = saved(store, 3.0)
        died = faults.dies(call, lambda store=store, kept=kept: store.retain({kept.id}))
        assert is_whole(store, kept, 3.0)
        store.retain({kept.id})
        assert store.manifests() == [kept]
        assert len(list(blob(tmp_path / str(call), kept).parent.iterdir())) == 2
        if not died:
            assert call >= 4  # two manifests and two blobs go
            return
    raise AssertionError("a retain without end")


def test_a_manifest_survives_odd_numbers_in_its_facts(run: RunStore) -> None:
    meta = {"loss": math.nan, "best": -math.inf, "state": 2**127}
    manifest = run.checkpoints.save({}, meta, step=0, kind="start")
    back = run.checkpoints.load(manifest.id).manifest
    assert math.isnan(back.meta["loss"])
    assert (back.meta["best"], back.meta["state"]) == (-math.inf, 2**127)


# --- the pointer to the last save


def test_latest_names_the_last_save_whatever_its_step(run: RunStore) -> None:
    assert run.checkpoints.latest() is None
    for seed in (3.0, 1.0, 2.0):
        assert run.checkpoints.latest() != saved(run.checkpoints, seed)
        latest = run.checkpoints.latest()
        assert latest is not None
        assert latest.meta["seed"] == seed


def test_saving_the_same_once_more_after_a_crash_is_one_save(run: RunStore) -> None:
    saved(run.checkpoints, 1.0)
    first = saved(run.checkpoints, 2.0)
    assert saved(run.checkpoints, 2.0) == first
    assert [manifest.order for manifest in run.checkpoints.manifests()] == [0, 1]


def test_a_damaged_pointer_is_named_and_the_next_save_mends_it(run: RunStore) -> None:
    first = saved(run.checkpoints, 1.0)
    run.write_file("checkpoints/LATEST", b"{")
    with pytest.raises(CheckpointDamaged, match=r"checkpoints/LATEST is damaged"):
        run.checkpoints.latest()
    assert run.checkpoints.newest_whole().manifest == first
    second = saved(run.checkpoints, 2.0)
    assert run.checkpoints.latest() == second


def test_a_lost_pointer_costs_no_checkpoint(run: RunStore) -> None:
    first = saved(run.checkpoints, 1.0)
    run.store.delete("runs/alpha/checkpoints/LATEST")
    run.checkpoints.retain({first.id})
    assert run.checkpoints.newest_whole().manifest == first
    assert saved(run.checkpoints, 2.0).order == 1


def test_thinning_leaves_the_newest_saves_of_a_kind_and_all_that_others_need(
    store: ObjectStore,
) -> None:
    run = CheckpointStore(store, "alpha")
    steps = [saved(run, seed) for seed in (1, 2, 3)]
    # An end that is the same as the first save: it shares its blobs.
    end = saved(run, 1, kind="end", step=99)
    run.thin("step", 2)
    assert [m.id for m in run.manifests()] == [steps[1].id, steps[2].id, end.id]
    assert is_whole(run, end, 1)
    assert is_whole(run, steps[1], 2)
    run.thin("step", 1)
    gone = steps[1].parts["member"].sha256
    assert gone not in run.blobs.names()
    assert is_whole(run, end, 1)
    assert is_whole(run, steps[2], 3)


def test_thinning_never_takes_what_the_pointer_names(store: ObjectStore) -> None:
    run = CheckpointStore(store, "alpha")
    last = [saved(run, seed) for seed in (1, 2)][-1]
    run.thin("step", 0)
    assert [m.id for m in run.manifests()] == [last.id]
    assert is_whole(run, last, 2)


def test_whatever_bit_of_the_pointer_is_turned_a_new_holder_goes_on_from_the_newest_save(
    tmp_path: Path,
) -> None:
    run = RunStore(FolderStore(tmp_path), "alpha")
    run.claim()
    newest = [saved(run.checkpoints, seed) for seed in (1, 2)][-1]
    run.release()
    file = tmp_path / "runs/alpha/checkpoints/LATEST"
    whole = file.read_bytes()
    for at in range(len(whole) * 8):
        turned = bytearray(whole)
        turned[at // 8] ^= 1 << at % 8
        file.write_bytes(bytes(turned))
        again = CheckpointStore(FolderStore(tmp_path), "alpha")
        again.claim(Anyone(f"holder {at}"))
        pointed = again.pointer()
        assert pointed is not None, at
        assert pointed.id == newest.id, at


def test_a_checkpoint_that_may_be_anothers_is_left_alone_though_it_is_damaged(
    tmp_path: Path,
) -> None:
    foreign = saved(CheckpointStore(FolderStore(tmp_path / "other"), "beta"), 1)
    run = checkpoints(tmp_path)
    own = [saved(run, seed) for seed in (2, 3)]
    for folder in ("manifests", "blobs"):
        for path in (tmp_path / "other/runs/beta/checkpoints" / folder).iterdir():
            (tmp_path / "runs/alpha/checkpoints" / folder / path.name).write_bytes(
                path.read_bytes()
            )
    file = manifest_file(tmp_path, foreign)
    file.write_bytes(file.read_bytes().replace(b'"beta"', b'"bet\xe1"'))
    run.retain({own[1].id})
    assert file.exists()
    assert blob(tmp_path, foreign).exists()
    # Its own damaged manifest is known by its name in it, and goes.
    mine = manifest_file(tmp_path, own[1])
    mine.write_bytes(mine.read_bytes().replace(b'"seed":3', b'"seed":4'))
    newest = saved(run, 5)
    run.retain({newest.id})
    assert not mine.exists()


def test_a_blob_of_holes_is_damage_and_never_read_into_memory(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    first, second = saved(run, 1), saved(run, 2)
    holes = blob(tmp_path, second)
    with holes.open("wb") as file:
        file.truncate(10**13)
    part = second.parts["member"].model_copy(update={"size": 10**13})
    claimed = second.model_copy(update={"parts": second.parts | {"member": part}, "order": 9})
    manifest_file(tmp_path, claimed).write_bytes(claimed.data)
    with pytest.raises(CheckpointDamaged, match="more than was written"):
        run.load(claimed.id)
    newest = run.newest_whole()
    assert newest.manifest is not None
    assert newest.manifest.id == first.id


def test_a_lost_pointer_never_leads_to_another_runs_checkpoint(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    own = saved(run, 1)
    foreign = saved(CheckpointStore(FolderStore(tmp_path / "other"), "beta"), 7, step=900)
    later = foreign.model_copy(update={"order": 99})
    manifest_file(tmp_path, later).write_bytes(later.data)
    (tmp_path / "runs/alpha/checkpoints/LATEST").write_bytes(b"nonsense")
    again = checkpoints(tmp_path)
    again.claim(Anyone("next"))
    pointed = again.pointer()
    assert pointed is not None
    assert pointed.id == own.id


def test_facts_nested_beyond_measure_are_damage(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    first, second = saved(run, 1), saved(run, 2)
    deep = json.loads(second.data)
    for _ in range(300):
        deep["meta"] = {"meta": deep["meta"]}
    manifest_file(tmp_path, second).write_text(json.dumps(deep), encoding="utf-8")
    newest = run.newest_whole()
    assert newest.manifest is not None
    assert newest.manifest.id == first.id
    assert newest.damaged
