"""Flip, cut or delete any one file of a run: it is named, and the run goes on where it can."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from symbio_core import runner
from symbio_core.cli.app import app
from symbio_core.config import changed
from symbio_core.errors import BucketUnreachable, CheckpointDamaged, Interrupted, StorageError
from symbio_core.progress import clear_stop, request_stop, subscribe
from symbio_core.records import CheckpointRef
from symbio_core.runner import Run
from symbio_core.runner.finishing import ship
from symbio_core.storage import FileState, FolderStore, RunStore
from tests.conftest import tiny


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(whole, tmp_path / "root"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """Cut at the end of a line where there is one, which is the hardest to notice."""
    data = path.read_bytes()
    end = data.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(data[: end or len(data) // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {"flipped": flip, "cut": cut, "gone": Path.unlink}


def files_of(root: Path) -> list[Path]:
    home = root / "runs" / "one"
    return sorted(p for p in home.rglob("*") if p.is_file() and not p.name.startswith("."))


def wrong(root: Path) -> tuple[FileState, ...]:
    return runner.examine(str(root), "one").wrong


def test_nothing_is_wrong_with_a_whole_run_and_every_file_is_known(whole: Path) -> None:
    found = runner.examine(str(whole), "one", deep=True)
    assert found.wrong == ()
    assert {file.health for file in found.files} == {"whole"}
    assert {file.name for file in found.files} == {
        path.relative_to(whole / "runs" / "one").as_posix() for path in files_of(whole)
    }


def test_exactly_the_checkpoints_that_somebody_needs_are_kept(whole: Path) -> None:
    run = runner.reopen(str(whole), "one")
    there = {manifest.id for manifest in run.store.checkpoints.manifests()}
    latest = run.store.checkpoints.latest()
    assert latest is not None
    assert run.state.best is not None
    assert run.state.line is not None
    needed = {run.state.best.id, run.state.line, *(ref.id for ref in run.state.dormant)}
    assert needed | set(run.state.known) <= set(run.referenced()) <= there
    assert there <= {*run.referenced(), latest.id}
    found = runner.examine(str(whole), "one")
    uses = {use for file in found.files for use in file.used_by}
    assert {"best", "line", "start"} <= uses


def saved(run: Run, step: int, loss: float) -> CheckpointRef:
    """Save a copy of the best line that differs from it by one number, and name it."""
    assert run.state.best is not None
    loaded = run.store.checkpoints.load(run.state.best.id)
    arrays = dict(loaded.arrays("member"))
    name = next(name for name in arrays if name.startswith("weights/"))
    arrays[name] = np.add(arrays[name], np.float32(step), dtype=np.float32)
    parts = {"member": arrays, "search": loaded.json("search")}
    manifest = run.store.checkpoints.save(parts, loaded.manifest.meta, step=step, kind="end")
    return run.state.best.model_copy(update={"id": manifest.id, "val_bpb": loss})


def told(run: Run, **changes: Any) -> None:
    """Let the run's state say something else than its journal does."""
    state = run.state.model_copy(update=changes)
    run._folded = run._folded.model_copy(update={"state": state})


def test_what_a_run_names_is_kept_and_what_nothing_names_goes_with_its_blobs(root: Path) -> None:
    run = runner.reopen(str(root), "one")
    run.claim()
    nobodys, asleep, known, best, text, line, last = (saved(run, 900 + n, 9.0) for n in range(7))
    named = {"dormant": (asleep,), "known": {known.id: known}, "best": best, "best_text": text}
    told(run, **named, line=line.id)
    blobs = root / "runs/one/checkpoints/blobs"
    gone = run.store.checkpoints.load(nobodys.id).manifest.parts["member"].sha256
    assert (blobs / gone).exists()
    with run.writing():
        run._retain()
    start, confirmed = run._first.id, run.confirmed
    assert confirmed is not None
    assert run.referenced() == {
        start: ("start",),
        confirmed.id: ("confirmed",),
        asleep.id: ("dormant",),
        known.id: (f"end of {known.phase}",),
        best.id: ("best",),
        text.id: ("best text",),
        line.id: ("line",),
    }
    there = {manifest.id for manifest in run.store.checkpoints.manifests()}
    assert there == {*run.referenced(), last.id}, "LATEST names the last save"
    assert all(run.store.checkpoints.load(checkpoint) for checkpoint in there)
    assert not (blobs / gone).exists()
    run.release()


def test_the_donor_of_a_run_is_kept_as_its_own_start_when_the_elder_is_gone(
    root: Path, tiny_corpus: Path
) -> None:
    elder = runner.reopen(str(root), "one")
    assert elder.state.best is not None
    given = elder.vault.load(elder.state.best.id).member.arrays()
    child = runner.open_run(changed(tiny(tiny_corpus, root), {"start_from": "one"}), "child")
    with child.writing():
        child._retain()
    child.release()
    tokenizer = root / "runs/child/model/tokenizer.json"
    own = tokenizer.read_bytes()
    tokenizer.unlink()
    assert invoke("fsck", "child", "--repair", "--storage", str(root))[0] == 0
    assert tokenizer.read_bytes() == own
    shutil.rmtree(root / "runs" / "one")
    again = runner.reopen(str(root), "child")
    [(start, uses)] = again.referenced().items()
    assert uses == ("start",)
    kept = again.vault.load(start).member.arrays()
    weights = [name for name in given if name.startswith("weights/")]
    assert weights
    assert all(np.array_equal(kept[name], given[name]) for name in weights)


@pytest.mark.parametrize("how", DAMAGES)
def test_any_one_damaged_file_is_named_in_one_line(root: Path, how: str) -> None:
    seen = 0
    for path in files_of(root):
        name = path.relative_to(root / "runs" / "one").as_posix()
        before = path.read_bytes()
        DAMAGES[how](path)
        if path.exists() and path.read_bytes() == before:
            continue
        found = wrong(root)
        path.write_bytes(before)
        if name == "LEASE" and how == "gone":
            assert found == (), "a lease that nobody holds is not missed"
            continue
        if name == "LEASE" and not found:
            continue  # a letter of a name was changed: no writer is kept out by it
        assert name in [file.name for file in found], f"{how} {name} was not noticed"
        for file in found:
            assert "\n" not in file.why
            assert str(root / "runs/one" / file.name) in file.why
            assert file.remedy
        seen += 1
    assert seen > 30


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    error = done.exception
    if isinstance(error, StorageError):
        return error.exit_code, str(error)
    assert error is None or isinstance(error, SystemExit), repr(error)
    return done.exit_code, done.output


def picked(root: Path, what: str) -> Path:
    home = root / "runs" / "one"
    run = runner.reopen(str(root), "one")
    shipped = ship(run)
    manifest = run.store.checkpoints.load(shipped.id).manifest
    blobs = home / "checkpoints/blobs"
    segments = sorted((home / "journal").iterdir())
    return {
        "config": home / "config.json",
        "state": home / "state.json",
        "pointer": home / "checkpoints/LATEST",
        "lease": home / "LEASE",
        "list": home / "files.json",
        "weights to take away": home / "model/model.safetensors",
        "tokenizer": home / "model/tokenizer.json",
        "table": home / "metrics/evaluations.parquet",
        "page": home / "report/report.html",
        "figures": home / "report/final-report.json",
        "blob of the best": blobs / manifest.parts["member"].sha256,
        "manifest of the best": home / f"checkpoints/manifests/{shipped.id}.json",
        "last segment": segments[-2],
        "first segment": segments[1],
    }[what]


MENDED = (
    "config", "state", "pointer", "list", "weights to take away", "tokenizer", "table", "page",
    "figures",
)  # fmt: skip


@pytest.mark.parametrize("what", MENDED)
def test_what_the_rest_of_the_run_tells_is_made_anew(
    root: Path, what: str, request: pytest.FixtureRequest
) -> None:
    path = picked(root, what)
    before = path.read_bytes()
    how = list(DAMAGES)[MENDED.index(what) % 3]
    DAMAGES[how](path)
    code, told = invoke("fsck", "one", "--storage", str(root))
    assert code == 1
    assert path.name in told
    assert invoke("status", "one", "--storage", str(root))[0] == 0
    code, told = invoke("fsck", "one", "--repair", "--storage", str(root))
    assert code == 0, told
    assert f"mended: {path}" in told
    assert wrong(root) == ()
    if what in ("config", "weights to take away", "tokenizer"):
        assert path.read_bytes() == before


def test_of_a_large_run_what_it_goes_on_from_is_compared_first_and_the_rest_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.reopen(str(root), "one")
    run.claim()
    other = saved(run, 900, 9.0)
    line = saved(run, 901, 9.0)
    run.release()
    store = run.store.checkpoints
    assert run.state.best is not None
    unneeded, needed = (store.load(r.id).manifest.parts["member"] for r in (other, line))
    monkeypatch.setattr("symbio_core.storage.fsck.SMALL_BYTES", 100_000)
    first = [store.load(one) for one in {line.id, run.state.best.id, run.state.line} if one]
    sizes = {p.sha256: p.size for each in first for p in each.manifest.parts.values()}
    quick = sum(size for size in sizes.values() if size > 100_000)
    monkeypatch.setattr("symbio_core.runner.keeping.QUICK_BYTES", quick)
    for part in (unneeded, needed):
        flip(root / "runs/one/checkpoints/blobs" / part.sha256)
    code, told = invoke("status", "one", "--storage", str(root))
    assert code == 0
    assert f"{needed.sha256} does not match" in told.replace(":", "")
    assert unneeded.sha256 not in told
    assert "large files only the length was compared; `symbio fsck one --storage" in told
    assert {file.name for file in runner.examine(str(root), "one", deep=True).wrong} == {
        f"checkpoints/blobs/{part.sha256}" for part in (unneeded, needed)
    }


def test_a_model_that_no_list_names_writes_nothing_and_is_made_anew(root: Path) -> None:
    listed, weights = root / "runs/one/files.json", root / "runs/one/model/model.safetensors"
    good = weights.read_bytes()
    listed.unlink()
    flip(weights)
    assert [file.name for file in wrong(root)] == ["files.json"]
    code, told = invoke("sample", "one", "--tokens", "3", "--storage", str(root))
    assert code == 1
    assert "model is damaged" in told or "is not in files.json" in told
    assert "files.json" in invoke("status", "one", "--storage", str(root))[1]
    code, told = invoke("fsck", "one", "--repair", "--storage", str(root))
    assert code == 0, told
    assert f"mended: {listed}" in told
    assert weights.read_bytes() == good


def test_a_list_that_is_gone_is_written_anew_before_the_run_is_finished(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    run = runner.open_run(tiny(tiny_corpus, tmp_path), "one")
    run.release()
    listed = tmp_path / "runs/one/files.json"
    listed.unlink()
    assert [file.name for file in wrong(tmp_path)] == ["files.json"]
    assert f"mended: {listed}" in runner.repair(str(tmp_path), "one")
    assert wrong(tmp_path) == ()


def test_a_damaged_best_checkpoint_is_named_and_the_model_given_away_still_writes(
    root: Path,
) -> None:
    path = picked(root, "blob of the best")
    flip(path)
    before = (root / "runs/one/model/model.safetensors").read_bytes()
    code, told = invoke("resume", "one", "--plain", "--storage", str(root))
    assert code == 0
    assert str(path) in told
    assert path.exists(), "what is damaged is left to be looked at"
    # A worse checkpoint that is whole does not take the place of the model that was given away.
    assert (root / "runs/one/model/model.safetensors").read_bytes() == before
    texts = runner.sample(str(root), "one", "the", temperature=0.7, tokens=8, count=1, seed=1)
    assert texts[0]


def test_the_model_to_take_away_is_made_from_the_next_best_checkpoint_that_is_whole(
    root: Path,
) -> None:
    best = ship(runner.reopen(str(root), "one"))
    path = picked(root, "blob of the best")
    run = runner.reopen(str(root), "one")
    run.claim()
    with run.writing():
        other = saved(run, 900, best.val_bpb + 1.0)
    told(run, dormant=(other,))
    flip(path)
    flip(root / "runs/one/model/model.safetensors")
    assert ship(run).id != best.id
    run.finish()
    about = json.loads((root / "runs/one/model/config.json").read_text())
    assert about["checkpoint"] != best.id
    assert about["val_bpb"] > best.val_bpb
    texts = runner.sample(str(root), "one", "the", temperature=0.7, tokens=8, count=1, seed=1)
    assert texts[0]
    members = {m.parts["member"].sha256 for m in run.store.checkpoints.manifests()}
    for name in members - {path.name}:
        flip(path.with_name(name))
    flip(root / "runs/one/model/tokenizer.json")
    with pytest.raises(CheckpointDamaged, match="does not match its hash") as caught:
        ship(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["last segment", "first segment"])
def test_a_journal_goes_back_to_what_stands_before_its_damage(root: Path, what: str) -> None:
    path = picked(root, what)
    later = [p for p in sorted(path.parent.iterdir()) if p.name >= path.name and p.is_file()]
    contents = {p.name: p.read_bytes() for p in later if p != path}
    cut(path)
    code, told = invoke("resume", "one", "--plain", "--storage", str(root))
    assert code == 1
    assert str(path) in told
    assert "symbio fsck" in told
    code, told = invoke("fsck", "one", "--repair", "--storage", str(root))
    aside = next(p for p in path.parent.iterdir() if p.is_dir())
    assert {p.name: p.read_bytes() for p in aside.iterdir() if p.name != path.name} == contents
    run = runner.reopen(str(root), "one")
    assert len(run.events) < 4 or not run.is_finished
    assert run.plan_next() is not None or run.is_open


@pytest.mark.parametrize("how", DAMAGES)
def test_what_a_journal_set_aside_names_is_kept_so_that_it_can_be_put_back(
    root: Path, how: str
) -> None:
    checkpoints = root / "runs/one/checkpoints"
    path = sorted((root / "runs/one/journal").iterdir())[3]
    good = path.read_bytes()
    before = set(checkpoints.rglob("*"))
    DAMAGES[how](path)
    code, told = invoke("fsck", "one", "--repair", "--storage", str(root))
    assert code == 0, told
    assert "no checkpoint is deleted" in told
    run = runner.reopen(str(root), "one")
    with run.writing():
        run._retain()
    run.release()
    assert set(checkpoints.rglob("*")) >= before
    for mark in path.parent.glob("*.jsonl"):
        if mark.name >= path.name:
            mark.unlink()
    aside = next(path.parent.glob("set-aside-*"))
    for segment in aside.iterdir():
        segment.rename(path.parent / segment.name)
    path.write_bytes(good)
    aside.rmdir()
    assert runner.reopen(str(root), "one").is_finished
    runner.repair(str(root), "one")
    assert runner.examine(str(root), "one", deep=True).wrong == ()


def test_a_run_whose_journal_is_gone_is_not_begun_again_over_its_checkpoints(root: Path) -> None:
    home = root / "runs" / "one"
    shutil.rmtree(home / "journal")
    before = {path: path.read_bytes() for path in files_of(root)}
    for words in (("resume", "one", "--plain"), ("fsck", "one", "--repair")):
        code, told = invoke(*words, "--storage", str(root))
        assert code == 1
        assert "the journal of run 'one' is gone and had" in told
        assert f"put back a copy of {home / 'journal'}, or delete {home / 'state.json'}" in told
        assert {path: path.read_bytes() for path in files_of(root)} == before


def test_a_run_without_a_whole_checkpoint_says_so_and_what_to_do(root: Path) -> None:
    run = runner.reopen(str(root), "one")
    plan = run.attempts[-1].plan
    shutil.rmtree(root / "runs/one/checkpoints/blobs")
    with pytest.raises(CheckpointDamaged, match="no checkpoint of run 'one' is whole") as caught:
        run._whole_start(plan)
    assert f"put back a copy of {root / 'runs/one/checkpoints'}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_run_is_neither_gone_on_from_nor_deleted(root: Path) -> None:
    run = runner.reopen(str(root), "one")
    assert run.state.best is not None
    loaded = run.store.checkpoints.load(run.state.best.id)
    others = RunStore(FolderStore(root), "another").checkpoints
    parts = {"member": loaded.arrays("member"), "search": {"not": "ours"}}
    manifest = others.save(parts, loaded.manifest.meta, step=999, kind="step")
    for path in (root / "runs/another/checkpoints").rglob("*"):
        if path.is_file() and path.name != "LATEST":
            shutil.copy(path, root / "runs/one/checkpoints" / path.parent.name / path.name)
    newest, told = run.store.checkpoints.load_newest("step")
    assert newest is None or newest.manifest.run_id == "one"
    assert any(f"{manifest.id}.json is a checkpoint of run 'another'" in line for line in told)
    with run.writing():
        run._retain()
    run.release()
    assert run.store.checkpoints.load(manifest.id).json("search") == {"not": "ours"}
    code, output = invoke("fsck", "one", "--storage", str(root))
    assert code == 0
    assert "1 foreign" in output


def test_a_run_that_cannot_be_read_hides_no_other_and_is_no_donor(
    root: Path, tiny_corpus: Path
) -> None:
    shutil.copytree(root / "runs/one", root / "runs/two")
    cut(sorted((root / "runs/two/journal").iterdir())[1])
    code, told = invoke("runs", "--storage", str(root))
    assert code == 0
    assert "one " in told
    assert re.search("two .*cannot be read", told)
    assert str(root / "runs/two/journal") in told
    config = changed(tiny(tiny_corpus, root), {"start_from": "latest"})
    assert runner.opening.find_donor(FolderStore(root), config) == "one"


def test_files_of_others_are_told_and_left_alone(root: Path) -> None:
    home = root / "runs" / "one"
    foreign = [home / "notes.txt", home / "checkpoints/blobs/mine", home / "journal/old.jsonl"]
    for path in foreign:
        path.write_text("mine")
    code, told = invoke("fsck", "one", "--repair", "--storage", str(root))
    assert code == 0, told
    assert "3 foreign" in told
    assert all(path.read_text() == "mine" for path in foreign)


def test_a_run_whose_checkpoints_are_damaged_goes_on_from_the_newest_whole_one(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    run = runner.open_run(tiny(tiny_corpus, tmp_path), "one")
    unsubscribe = subscribe(lambda p: request_stop() if p.phase == "cambrian" else None)
    with pytest.raises(Interrupted):
        runner.live(run)
    unsubscribe()
    clear_stop()
    damaged = damage_all_but_the_first(run)
    again = runner.reopen(str(tmp_path), "one")
    assert len(runner.damage(again)) == len(damaged)
    plan = again.plan_next()
    assert plan is not None
    outcome = again.train(plan)
    assert outcome.steps > 0
    notes = " ".join(event["message"] for event in again.events if event["event"] == "noted")
    assert all(str(path) in notes for path in damaged[-1:])


def damage_all_but_the_first(run: Run) -> list[Path]:
    manifests = run.store.checkpoints.manifests()
    kept = {part.sha256 for part in manifests[0].parts.values()}
    names = {p.sha256 for m in manifests[1:] for n, p in m.parts.items() if n == "member"} - kept
    paths = [Path(run.store.store.where(f"{run.store.checkpoints.home}/blobs/{n}")) for n in names]
    for path in paths:
        flip(path)
    return paths


class Outage:
    """The storage root is out of reach for one request: the one of the given number."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        for verb in ("read", "size", "keys", "sha256"):
            patch.setattr(FolderStore, verb, self.failing(getattr(FolderStore, verb)))

    def failing(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def ask(store: FolderStore, *args: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise BucketUnreachable("no answer for long")
            return verb(store, *args)

        return ask


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "quick"])
def test_a_storage_out_of_reach_is_told_and_never_taken_for_damage(
    whole: Path, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in itertools.count(1):
        with monkeypatch.context() as patch:
            outage = Outage(patch, number)
            try:
                found = runner.examine(str(whole), "one", deep=deep)
            except BucketUnreachable:
                continue
        assert found.wrong == (), number
        if outage.left > 0:
            assert number > len(files_of(whole)), "every file was looked at"
            return


def test_a_repair_that_loses_the_storage_sets_nothing_aside(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = root / "runs/one/journal"
    before = {path: path.read_bytes() for path in journal.iterdir()}
    with monkeypatch.context() as patch:
        never = Outage(patch, 10**6)
        runner.repair(str(root), "one")
    for number in range(1, 10**6 - never.left, 5):
        with monkeypatch.context() as patch:
            Outage(patch, number)
            with pytest.raises(BucketUnreachable):
                runner.repair(str(root), "one")
        # A repair that got to write leaves a mark of its own behind the others.
        assert not list(journal.glob("set-aside-*")), number
        assert all(path.read_bytes() == data for path, data in before.items()), number
