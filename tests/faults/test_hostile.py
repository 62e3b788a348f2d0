"""A run's folder from a stranger: it runs no code, leads nowhere, costs no memory."""

from __future__ import annotations

import hashlib
import json
import os
import pickle  # noqa: TID251 - the trap that must not go off
import shutil
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from symbio_core import runner
from symbio_core.cli.app import app
from symbio_core.config import RunConfig, checked
from symbio_core.errors import CheckpointDamaged, NotWritable, StorageError, SymbioError
from symbio_core.storage import BlobStore, FolderStore, Journal, RunStore
from symbio_core.storage.canonical import pretty_bytes, tensor_bytes

FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HOME = Path("runs") / "one"


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of a finished run to forge."""
    return Path(shutil.copytree(whole, tmp_path / "root"))


@pytest.fixture(scope="module")
def forged(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all examples of a property; each puts back what it changes."""
    return Path(shutil.copytree(whole, tmp_path_factory.mktemp("forged") / "root"))


def look(root: Path) -> list[str]:
    """Do all that a person does to look at a run; return the errors, each of one line."""
    told = []
    for command in (
        ["status", "one"], ["fsck", "one"], ["runs"],
        ["sample", "one", "--tokens", "3"],
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*command, "--storage", str(root)])
        error = done.exception
        if isinstance(error, SymbioError):
            told.append(str(error))
        else:
            assert error is None or isinstance(error, SystemExit), (command, repr(error))
    assert all("\n" not in line for line in told)
    return told


class Evil:
    """Pickled, it makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_in_place_of_any_file_is_never_run(root: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    data = pickle.dumps(Evil(mark))
    pickle.loads(data)
    assert mark.exists(), "the trap works"
    mark.rmdir()
    for path in sorted(p for p in (root / HOME).rglob("*") if p.is_file()):
        before = path.read_bytes()
        path.write_bytes(data)
        if path.suffix in (".json", ".safetensors", ".parquet") or path.name in ("LATEST", "LEASE"):
            look(root)
        else:
            runner.examine(str(root), "one")
        assert not mark.exists(), path
        path.write_bytes(before)


def test_a_model_with_one_bit_changed_writes_nothing(root: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        path = root / HOME / "model" / name
        before = path.read_bytes()
        data = bytearray(before)
        data[len(data) * 3 // 4] ^= 1
        path.write_bytes(bytes(data))
        told = look(root)
        assert any(f"model/{name}" in line and "does not match its hash" in line for line in told)
        path.write_bytes(before)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 40, b'{"model": 1}', b'"text"'])
def test_a_model_of_other_content_writes_nothing(root: Path, data: bytes) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        with listed_anew(root, f"model/{name}", data):
            assert any("exported model of run 'one' is damaged" in line for line in look(root))


# --- ways out of the folder


@pytest.mark.parametrize("folder", ["report", "journal", "checkpoints/blobs", "model"])
def test_a_link_inside_a_run_does_not_let_it_write_elsewhere(
    root: Path, tmp_path: Path, folder: str
) -> None:
    outside = tmp_path / "outside"
    (root / HOME / folder).rename(outside)
    (root / HOME / folder).symlink_to(outside)
    before = {p: p.read_bytes() for p in outside.iterdir()}
    store = FolderStore(root)
    key = f"{HOME}/{folder}/{'0' * 64}"
    for write in (
        lambda: store.create(key, b"x"),
        lambda: store.swap(key, b"x", None),
        lambda: store.delete(f"{HOME}/{folder}/{next(iter(before)).name}"),
    ):
        with pytest.raises(NotWritable, match="is a link and would lead out of the run"):
            write()
    assert {p: p.read_bytes() for p in outside.iterdir()} == before


def test_pipes_and_devices_are_no_files_of_a_run(root: Path) -> None:
    for name in ("config.json", "state.json", "checkpoints/LATEST", "LEASE"):
        path = root / HOME / name
        before = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        look(root)
        path.unlink()
        path.symlink_to("/dev/zero")
        look(root)
        path.unlink()
        path.write_bytes(before)


# --- promises that are not kept


@contextmanager
def in_little_memory(limit: int = 60_000_000) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def sparse(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    "name", ["config.json", "state.json", "checkpoints/LATEST", "journal/00000001.jsonl"]
)
def test_a_text_of_terabytes_is_refused_unread(root: Path, name: str) -> None:
    sparse(root / HOME / name, 10**12)
    with in_little_memory():
        found = runner.examine(str(root), "one").wrong
    assert name in [file.name for file in found]


def test_a_blob_of_terabytes_is_refused_unread(root: Path) -> None:
    run = RunStore(FolderStore(root), "one")
    manifest = run.checkpoints.manifests()[-1]
    sparse(root / HOME / "checkpoints/blobs" / manifest.parts["member"].sha256, 10**12)
    with in_little_memory(), pytest.raises(CheckpointDamaged, match="has 1000000000000 bytes"):
        run.checkpoints.load(manifest.id)


def with_member(run: RunStore, data: bytes, **changes: Any) -> str:
    """Forge a checkpoint whose hashes are right: the newest one with other weights."""
    manifest = run.checkpoints.manifests()[-1]
    sha256 = BlobStore(run.store, run.checkpoints.home).put(data)
    part = manifest.parts["member"].model_copy(
        update={"sha256": sha256, "size": len(data), **changes}
    )
    forged = manifest.model_copy(update={"parts": {**manifest.parts, "member": part}})
    run.store.create(f"{run.checkpoints.home}/manifests/{forged.id}.json", forged.data)
    return forged.id


def test_a_manifest_that_promises_an_exabyte_is_refused_before_it_is_allocated(root: Path) -> None:
    run = RunStore(FolderStore(root), "one")
    checkpoint = with_member(run, b"x", size=10**18)
    with in_little_memory(), pytest.raises(CheckpointDamaged, match=f"instead of {10**18}"):
        run.checkpoints.load(checkpoint)


def header(fields: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("shape", [[10**12], [2**31, 2**31], [0, 2**62], [-1]])
def test_tensors_that_promise_more_than_the_file_holds_are_refused(
    root: Path, shape: list[int]
) -> None:
    run = RunStore(FolderStore(root), "one")
    fields = {"weights/a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    checkpoint = with_member(run, header(fields, bytes(4)))
    loaded = run.checkpoints.load(checkpoint)
    with in_little_memory(), pytest.raises(CheckpointDamaged, match="holds no whole tensors"):
        loaded.arrays("member")


def changed_tensors(root: Path, how: str) -> bytes:
    run = RunStore(FolderStore(root), "one")
    loaded = run.checkpoints.load(run.checkpoints.manifests()[-1].id)
    arrays = dict(loaded.arrays("member"))
    name = next(key for key in arrays if key.startswith("weights/"))
    match how:
        case "one number for a matrix":
            arrays[name] = np.ones(1, np.float32)
        case "transposed":
            name = next(k for k, a in arrays.items() if a.ndim == 2 and a.shape[0] != a.shape[1])
            arrays[name] = np.ascontiguousarray(arrays[name].T)
        case "left out":
            del arrays[name]
        case "a name of other parts":
            arrays["optimiser/x/y/z/w"] = np.ones(1, np.float32)
    return tensor_bytes(arrays)


def test_a_checkpoint_whose_function_cannot_be_read_is_damage_like_any_other(root: Path) -> None:
    run = runner.reopen(str(root), "one")
    manifest = run.store.checkpoints.manifests()[-1]
    forged = manifest.model_copy(update={"meta": {**manifest.meta, "formula": ""}})
    key = f"{run.store.checkpoints.home}/manifests/{forged.id}.json"
    run.store.store.create(key, forged.data)
    for load in (run.vault.load, run.vault.load_model):
        with pytest.raises(CheckpointDamaged, match="does not fit the run's model") as caught:
            load(forged.id)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "how", ["one number for a matrix", "transposed", "left out", "a name of other parts"]
)
def test_weights_of_another_shape_are_never_loaded(root: Path, how: str) -> None:
    run = runner.reopen(str(root), "one")
    checkpoint = with_member(run.store, changed_tensors(root, how))
    with pytest.raises(CheckpointDamaged, match="does not fit the run's model") as caught:
        run.vault.load(checkpoint)
    assert "\n" not in str(caught.value)


# --- anything at all in place of a file


junk = st.one_of(
    st.binary(max_size=60),
    st.just(b"[" * 100_000),
    st.just(b'{"a":' * 50_000),
    st.just(b"9" * 10_000),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda content: json.dumps(content).encode()),
)


@FUZZ
@given(data=junk, which=st.integers(0, 99), at=st.integers(0, 10**6), mode=st.integers(0, 2))
def test_no_bytes_in_any_text_make_a_traceback_or_a_wrong_load(
    forged: Path, data: bytes, which: int, at: int, mode: int
) -> None:
    texts = sorted(
        p
        for p in (forged / HOME).rglob("*")
        if p.is_file() and (p.suffix in (".json", ".jsonl") or p.name in ("LATEST", "LEASE"))
    )
    path = texts[which % len(texts)]
    before = path.read_bytes()
    cut = at % len(before)
    path.write_bytes(
        [data, before[:cut] + data, before[:cut] + data + before[cut + len(data) :]][mode]
    )
    try:
        expect_one_line_or_the_truth(forged, path)
    finally:
        path.write_bytes(before)


def expect_one_line_or_the_truth(root: Path, path: Path) -> None:
    try:
        run = runner.reopen(str(root), "one")
        told = runner.damage(run)
        assert all("\n" not in line for line in told)
        runner.summary(run)
        if path.name == "config.json":
            assert run.config.seed == 1
        newest, damaged = run.store.checkpoints.load_newest()
        assert newest is None or newest.manifest.run_id == "one"
        assert all("\n" not in line for line in damaged)
    except SymbioError as error:
        one_line(error)


def one_line(error: SymbioError) -> None:
    assert "\n" not in str(error)


values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.just([]), st.just({}), st.just([{}]),
)  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        content.items() if isinstance(content, dict)
        else enumerate(content[:3]) if isinstance(content, list)
        else ()
    )  # fmt: skip
    for key, inner in items:
        yield from places(inner, (*path, key))


DROPPED = object()


def put(content: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    if value is DROPPED:
        del content[path[-1]]
    else:
        content[path[-1]] = value


@contextmanager
def sealed_anew(root: Path, events: list[dict[str, Any]]) -> Iterator[None]:
    """Give the run a journal of these events, as its own writer would have sealed them."""
    home = root / HOME / "journal"
    aside = home.with_name("kept")
    home.rename(aside)
    try:
        journal = Journal(FolderStore(root), "one")
        for event in events:
            journal.append([event])
        yield
    finally:
        shutil.rmtree(home)
        aside.rename(home)


@FUZZ
@given(data=st.data(), value=values)
def test_no_value_in_a_journal_that_is_sealed_anew_makes_a_traceback(
    forged: Path, data: st.DataObject, value: Any
) -> None:
    events = RunStore(FolderStore(forged), "one").journal.read()
    number = data.draw(st.integers(0, len(events) - 1))
    path = data.draw(st.sampled_from(sorted(places(events[number]), key=repr)))
    if not path:
        events[number] = {"event": value, "at": value}
    else:
        put(events[number], path, value)
    with sealed_anew(forged, events):
        expect_one_line_or_the_truth(forged, forged / HOME / "journal")


@FUZZ
@given(data=st.data(), value=values)
def test_no_value_in_a_configuration_makes_a_traceback_or_a_setting_out_of_bounds(
    forged: Path, data: st.DataObject, value: Any
) -> None:
    """Also where the journal agrees with it."""
    events = RunStore(FolderStore(forged), "one").journal.read()
    path = data.draw(st.sampled_from(sorted(filter(None, places(events[0]["config"])), key=repr)))
    put(events[0]["config"], path, value)
    file = forged / HOME / "config.json"
    before = file.read_bytes()
    with sealed_anew(forged, events):
        file.write_bytes(pretty_bytes(events[0]["config"]))
        try:
            config = runner.reopen(str(forged), "one").config
            assert checked(RunConfig, config.model_dump(mode="json")) == config
        except SymbioError as error:
            one_line(error)
        expect_one_line_or_the_truth(forged, forged / HOME / "journal")
        file.write_bytes(before)


@FUZZ
@given(data=st.data(), value=values)
def test_no_value_in_a_state_is_believed_against_the_journal(
    forged: Path, data: st.DataObject, value: Any
) -> None:
    file = forged / HOME / "state.json"
    before, truth = file.read_bytes(), runner.reopen(str(forged), "one").state
    content = json.loads(before)
    path = data.draw(st.sampled_from(sorted(places(content), key=repr)))
    if path:
        put(content, path, value)
    file.write_bytes(pretty_bytes(content if path else value))
    try:
        run = runner.reopen(str(forged), "one")
        told = runner.damage(run)
        assert run.state == truth
        assert all("\n" not in line for line in told)
        is_same = content == json.loads(before) if path else value == json.loads(before)
        if path[:1] not in (("segments",), ("writer",)) and not is_same:
            assert any("state.json" in line for line in told), (path, value)
    finally:
        file.write_bytes(before)


@FUZZ
@given(data=st.data(), value=values)
def test_no_value_in_a_manifest_with_a_right_hash_makes_a_traceback(
    forged: Path, data: st.DataObject, value: Any
) -> None:
    run = runner.reopen(str(forged), "one")
    content = json.loads(run.store.checkpoints.manifests()[-1].data)
    path = data.draw(st.sampled_from(sorted(filter(None, places(content)), key=repr)))
    put(content, path, value)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    encoded = text.encode("utf-8", errors="backslashreplace")
    step = content["step"] if isinstance(content["step"], int) else 0
    name = f"{abs(step) % 10**10:010d}-{hashlib.sha256(encoded).hexdigest()[:16]}"
    file = forged / HOME / "checkpoints/manifests" / f"{name}.json"
    was_there = file.exists()
    file.write_bytes(encoded)
    try:
        for load in (run.vault.load, run.vault.load_model):
            try:
                load(name)
            except StorageError as error:
                one_line(error)
        expect_one_line_or_the_truth(forged, file)
    finally:
        if not was_there:
            file.unlink()


@FUZZ
@given(data=st.data(), value=values, name=st.sampled_from(["config.json", "tokenizer.json"]))
def test_no_value_in_a_model_to_take_away_makes_a_traceback(
    forged: Path, data: st.DataObject, value: Any, name: str
) -> None:
    path = forged / HOME / "model" / name
    before = path.read_bytes()
    content = json.loads(before)
    at = data.draw(st.sampled_from(sorted(places(content), key=repr)))
    if data.draw(st.booleans()) and at and isinstance(at[-1], str):
        put(content, at, DROPPED)
    elif at:
        put(content, at, value)
    with listed_anew(forged, f"model/{name}", pretty_bytes(content if at else value)):
        write_or_one_line(forged)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda content: content.pop("format")),
        ("config.json", lambda content: content.update(n_vocab=content["n_vocab"] - 1)),
        ("tokenizer.json", lambda content: content.update(model={"type": "BPE"})),
        ("tokenizer.json", lambda content: content.update(model=shifted(content["model"]))),
    ],
)
def test_a_model_that_does_not_fit_together_writes_nothing(
    forged: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    content = json.loads((forged / HOME / "model" / name).read_bytes())
    change(content)
    with listed_anew(forged, f"model/{name}", pretty_bytes(content)):
        assert "exported model of run 'one' is damaged" in str(write_or_one_line(forged))


class Allocations(TorchDispatchMode):
    """Sees how large a tensor becomes that takes memory (elements)."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type == "cpu":
            self.largest = max(self.largest, made.numel())
        return made


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_declares_a_large_shape_is_refused_before_it_is_allocated(
    forged: Path, tied: bool
) -> None:
    content = json.loads((forged / HOME / "model/config.json").read_bytes())
    content["model"] |= {"n_embd": 2048, "n_head": 4, "n_layer": 2, "tie_embeddings": tied}
    with (
        listed_anew(forged, "model/config.json", pretty_bytes(content)),
        Allocations() as allocations,
    ):
        assert "has the shape" in str(write_or_one_line(forged))
    assert allocations.largest < 1_000_000


def shifted(model: dict[str, Any]) -> dict[str, Any]:
    return model | {"vocab": {word: at + 10**6 for word, at in model["vocab"].items()}}


def write_or_one_line(root: Path) -> SymbioError | None:
    try:
        runner.sample(str(root), "one", "the", temperature=0.7, tokens=3, count=1, seed=1)
    except SymbioError as error:
        one_line(error)
        return error
    return None


@contextmanager
def listed_anew(root: Path, name: str, data: bytes) -> Iterator[None]:
    """Put other content in the place of a file, and its hash into the list."""
    path, listed = root / HOME / name, root / HOME / "files.json"
    before, told = path.read_bytes(), listed.read_bytes()
    content = json.loads(told)
    content[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    content.pop("sha256", None)  # its own hash, which an earlier version did not write
    path.write_bytes(data)
    listed.write_bytes(pretty_bytes(content))
    try:
        yield
    finally:
        path.write_bytes(before)
        listed.write_bytes(told)


def test_a_configuration_beyond_all_bounds_is_refused_in_one_line(root: Path) -> None:
    """Also where the journal agrees with it."""
    run = RunStore(FolderStore(root), "one")
    events = run.journal.read()
    for key, value in (("n_layer", 10**9), ("n_embd", -1), ("n_head", "x")):
        forged = json.loads(json.dumps(events))
        forged[0]["config"]["model"][key] = value
        shutil.rmtree(root / HOME / "journal")
        journal = Journal(run.store, "one")
        for event in forged:
            journal.append([event])
        (root / HOME / "config.json").write_bytes(pretty_bytes(forged[0]["config"]))
        with pytest.raises(SymbioError, match=f"model.{key}") as caught:
            runner.reopen(str(root), "one")
        assert "\n" not in str(caught.value)
