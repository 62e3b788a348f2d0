"""Real disks that are too small, read-only, or gone: one line, and nothing saved is lost."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from symbio_core import runner
from symbio_core.config import changed
from symbio_core.errors import DiskTooFull, LeaseLost, NotWritable, StorageError
from symbio_core.progress import Progress, subscribe
from symbio_core.runner import opening
from symbio_core.runner.vault import CHECKPOINTS_HELD, checkpoint_bytes
from symbio_core.storage import FolderStore, RunStore
from symbio_core.training import Member, prepare_device
from tests.conftest import tiny
from tests.faults.conftest import Lived

MB = 1_000_000
NOBODY = 65534


class Disk:
    """A file system of its own, held in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free."""
        block = bytes(64 * 1024)
        with self.filler.open("ab", buffering=0) as file:
            with suppress(OSError):
                while file.write(block) == len(block):
                    pass
            file.truncate(file.tell() - leave)

    def free(self) -> None:
        self.filler.unlink()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def remove(self) -> None:
        """Take it away under those who use it."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Mounts a disk of so many bytes; only root can."""
    path = tmp_path / "disk"
    path.mkdir()

    def mounted(size: int) -> Disk:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("only root may mount a small disk")
        return Disk(path)

    yield mounted
    while os.path.ismount(path):
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save(run: RunStore, size: int, step: int) -> None:
    run.checkpoints.save({"m": {"w": np.full(size, step, np.uint8)}}, {}, step=step, kind="step")


def newest_step(root: Path) -> int:
    found = RunStore(FolderStore(root), "alpha").checkpoints.newest_whole()
    assert found.manifest is not None
    assert found.damaged == ()
    return found.manifest.step


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".part-*"))


def test_a_save_that_does_not_fit_says_so_and_leaves_the_last_one_whole(
    disk: Callable[[int], Disk],
) -> None:
    small = disk(3 * MB)
    run = RunStore(FolderStore(small.path), "alpha")
    run.claim()
    save(run, 1 * MB, 1)
    with pytest.raises(DiskTooFull, match=r"no space left to write .*free some space") as caught:
        save(run, 4 * MB, 2)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert newest_step(small.path) == 1
    assert leftovers(small.path) == []
    save(run, 1 * MB, 3)
    assert newest_step(small.path) == 3
    run.release()


def test_a_quota_is_a_full_disk(tmp_path: Path) -> None:
    run = RunStore(FolderStore(tmp_path), "alpha")
    save(run, 1000, 1)
    with files_up_to(100_000), pytest.raises(DiskTooFull, match="no space left to write"):
        save(run, 1 * MB, 2)
    assert newest_step(tmp_path) == 1
    assert leftovers(tmp_path) == []
    save(run, 1 * MB, 2)
    assert newest_step(tmp_path) == 2


def test_a_run_whose_disk_fills_up_goes_on_once_there_is_space_as_if_nothing_had_been(
    disk: Callable[[int], Disk], tiny_corpus: Path, whole: Path
) -> None:
    small = disk(120 * MB)
    run = runner.open_run(tiny(tiny_corpus, small.path), "one")
    plan = run.plan_next()
    assert plan is not None

    def fill(_report: Progress) -> None:
        if not small.filler.exists():
            small.fill()

    unsubscribe = subscribe(fill)
    with pytest.raises(DiskTooFull, match="what was saved before is whole"):
        run.train(plan)
    unsubscribe()
    assert runner.stands_at(runner.reopen(str(small.path), "one")) == "in abiogenesis"
    small.free()
    again = runner.reopen(str(small.path), "one")
    outcome = again.train(plan)
    expected = runner.reopen(str(whole), "one").attempts[0].outcome
    assert outcome.points == expected.points
    assert outcome.end.val_bpb == expected.end.val_bpb
    again.release()


def test_a_run_that_would_not_fit_is_refused_before_it_starts(
    disk: Callable[[int], Disk], tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AIR_BYTES", 0)  # So that only checkpoints ask for room.
    small = disk(8 * MB)
    with pytest.raises(DiskTooFull, match=r"0\.01 GB free and this run needs about 0\.01 GB"):
        runner.open_run(tiny(tiny_corpus, small.path), "one")
    assert runner.names(str(small.path)) == []


def test_a_run_that_would_not_fit_any_more_is_refused_before_it_goes_on(
    disk: Callable[[int], Disk], tiny_corpus: Path
) -> None:
    small = disk(120 * MB)
    run = runner.open_run(tiny(tiny_corpus, small.path), "one")
    plan = run.plan_next()
    assert plan is not None
    run.release()
    small.fill(leave=1 * MB)
    trained: list[Progress] = []
    unsubscribe = subscribe(trained.append)
    with pytest.raises(DiskTooFull, match=r"0\.00 GB free and this run needs about 0\.01 GB"):
        runner.reopen(str(small.path), "one").train(plan)
    unsubscribe()
    assert trained == []
    small.free()
    runner.reopen(str(small.path), "one").claim()


def test_what_a_run_holds_never_exceeds_what_was_predicted(lived: Lived) -> None:
    predicted = checkpoint_bytes(lived.config)
    assert 0.1 * predicted < lived.most_held < predicted


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"without": ["fusion", "kuramoto"]},
        {"optimiser.ema_decay": 0.0},
        {"optimiser.name": "muon"},
        {"model.tie_embeddings": True, "model.ffn": "gated"},
    ],
)
def test_a_checkpoint_is_as_large_as_predicted(
    tiny_corpus: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = changed(tiny(tiny_corpus, tmp_path), {"model.n_layer": 4, **changes})
    member = Member(
        config, config.data.vocab_size, "gelu(x)", prepare_device(config.compute), seed=1
    )
    tokens = np.ones((2, config.model.context), np.int64)
    member.train(2, lambda _: (tokens, tokens), lambda _: 1.0)
    if config.has("fusion"):
        member.follow_shadow(0.1, 2)
    size = sum(array.nbytes for array in member.arrays().values())
    assert checkpoint_bytes(config) / CHECKPOINTS_HELD == pytest.approx(size, rel=0.02)


def test_a_disk_that_becomes_read_only_is_named(disk: Callable[[int], Disk]) -> None:
    small = disk(3 * MB)
    run = RunStore(FolderStore(small.path), "alpha")
    save(run, 1000, 1)
    small.remount("ro")
    with pytest.raises(NotWritable, match=r"cannot write .*\(Read-only file system\); check"):
        save(run, 1000, 2)
    with pytest.raises(NotWritable, match="Read-only file system"):
        FolderStore(small.path).check_writable()
    assert newest_step(small.path) == 1
    small.remount("rw")
    save(run, 1000, 2)
    assert newest_step(small.path) == 2


# Newer Pythons warn of a fork beside threads; the child does nothing but write.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    FolderStore(tmp_path / "other").check_writable()  # What it takes is imported before the fork.
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)

    def try_to_write() -> str:
        os.chdir(home)  # While root may still pass the folders above.
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            FolderStore(Path()).check_writable()
        except NotWritable as error:
            return str(error)
        return "written"

    assert "Permission denied" in in_a_process(try_to_write)
    home.chmod(0o700)
    assert in_a_process(try_to_write) == "written"


def in_a_process(work: Callable[[], str]) -> str:
    """Return what ``work`` says in a process of its own, which may give up its rights."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        told = said.read()
    os.waitpid(pid, 0)
    return told


def test_a_disk_that_is_gone_is_named_and_nothing_is_begun_in_its_place(
    disk: Callable[[int], Disk],
) -> None:
    small = disk(3 * MB)
    run = RunStore(FolderStore(small.path), "alpha")
    run.claim()
    save(run, 1000, 1)
    run.write_state({"n": 1})
    small.remove()
    for write in (
        lambda: save(run, 1000, 2),
        lambda: run.journal.append([{"event": "x"}]),
        lambda: run.write_state({"n": 2}),
    ):
        with pytest.raises(StorageError, match="its disk is gone") as caught:
            write()
        assert isinstance(caught.value, LeaseLost)
    assert list(small.path.iterdir()) == []


# --- what the dead leave behind


def test_old_half_written_files_are_swept_and_nothing_else_is(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create("runs/a/file", b"x")
    home = tmp_path / "runs/a"
    old, young = home / f".part-{'a' * 32}", home / f".part-{'b' * 32}"
    foreign = [home / ".part-mine", home / f"part-{'c' * 32}", home / f".part-{'d' * 33}"]
    for path in (old, young, *foreign):
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (time.time() - 7200,) * 2)
    (home / "folder").mkdir()
    (home / "folder" / "link").symlink_to(home / "file")
    store.check_writable()
    assert not old.exists()
    assert all(path.exists() for path in (young, *foreign, home / "file", home / "folder" / "link"))
    assert store.sweep(older_than_s=-1.0) == 1
    assert not young.exists()


def test_a_lock_that_a_stopped_process_holds_is_told_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    monkeypatch.setattr("symbio_core.storage.objects._LOCK_S", 0.2)
    store = FolderStore(tmp_path)
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(NotWritable, match=r"has held .*\.lock for 0 s, so it was stopped"),
    ):
        store.create("a", b"x")
    assert store.create("a", b"x")
